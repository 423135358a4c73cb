"""Generated points with two classes: separable by a plane, or XOR, or rings, or with labels of coins."""

from __future__ import annotations

import numpy as np
import torch

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.population import Population
from clients.partition.options import PartitionOptions
from clients.partition.pooled import Pool, pooled_population
from clients.sources.made_options import PointsOptions


def points_population(
    options: PointsOptions, partition: PartitionOptions | None, *, seed: int, dtype: torch.dtype = torch.float32
) -> Population:
    """Make the population of generated points.

    Args:
        options: the pattern, and how examples are held out.
        partition: which client holds which points.
        seed: root seed.
        dtype: of the features.

    Raises:
        PartitionError: the partition is missing or cannot be made.
    """
    features, labels, facts = made_points(options, seed)
    pool = Pool("points", "kind", features, labels, {"label": labels}, facts=facts, outputs=2)
    return pooled_population(pool, partition, options, seed=seed, dtype=dtype)


def made_points(options: PointsOptions, seed: int) -> tuple[F64, I64, dict[str, float]]:
    """Return points [n, features], their classes [n], and facts for the record.

    Separable points have the facts `radius` R (the largest length), `margin` gamma (the least distance from the
    separating plane through the origin), and `mistake_bound` (R / gamma)^2: however often a perceptron without a bias
    sees them, and in whatever order, it makes no more mistakes (Novikoff 1962).

    Example:
        >>> points, labels, facts = made_points(PointsOptions(features=20, margin=0.2), seed=0)
        >>> points.shape, facts["margin"] >= 0.2
        ((500, 20), True)
    """
    n, d = options.examples, options.features
    drawn = streams.normals(streams.keys(seed, "points", np.arange(n)), d)
    coins = streams.uniforms(streams.keys(seed, "point classes", np.arange(n)), 2)
    labels = (coins[:, 0] < 0.5).astype(np.int64)
    if options.pattern == "separable":
        return _separable(drawn / np.sqrt(d), options, seed)
    if options.pattern == "random":
        return drawn / np.sqrt(d), labels, {}
    points = options.spread * drawn
    if options.pattern == "xor":
        first = np.where(coins[:, 1] < 0.5, 1.0, -1.0)
        points[:, :2] += np.stack([first, np.where(labels, -first, first)], axis=1)
    else:
        angle = 2 * np.pi * coins[:, 1]
        points[:, :2] += (1.0 + labels)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points, labels, {}


def _separable(points: F64, options: PointsOptions, seed: int) -> tuple[F64, I64, dict[str, float]]:
    normal = streams.normals(streams.keys(seed, "point plane", 0), options.features).reshape(-1)
    normal /= np.linalg.norm(normal)
    labels = (points @ normal > 0).astype(np.int64)
    side = 2.0 * labels - 1.0
    points = points + options.margin * side[:, None] * normal
    radius, margin = float(np.linalg.norm(points, axis=1).max()), float((side * (points @ normal)).min())
    facts = {"radius": radius, "margin": margin}
    return points, labels, facts | ({"mistake_bound": (radius / margin) ** 2} if margin > 0 else {})
