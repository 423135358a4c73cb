"""Points of the Dirac-GAN: client k's data are one point x_k, and the equilibrium is at the mean of all points."""

from __future__ import annotations

import numpy as np
import torch

from clients.core import streams
from clients.core.arrays import F64
from clients.core.errors import require
from clients.core.population import ClientData, Population
from clients.core.population_parts import ExampleSpec, FederationFacts, KnownObjective
from clients.core.ragged import cohort_of, offsets_of
from clients.sources.options import DiracOptions


def dirac_population(options: DiracOptions, *, seed: int, dtype: torch.dtype = torch.float32) -> Population:
    """Make the population and the equilibrium of its game.

    Args:
        options: the points.
        seed: root seed of drawn points.
        dtype: of features; theory tests take float64.

    Returns:
        An `objective` population of points [d]. `objective.optimum` [2d] is the equilibrium: the generator at the
        clients' mean point, the discriminator at 0. Its value is half the points' variance: see `DiracGan`.

    Raises:
        UserError: points have different dimensions, or are not finite.

    Example:
        >>> dirac_population(DiracOptions(points=(-1.0, 3.0)), seed=0).objective.optimum.tolist()
        [1.0, 0.0]
    """
    points = _given(options) if options.points else _drawn(options, seed)
    clients, d = points.shape
    sizes = np.ones(clients, np.int64)
    features = torch.from_numpy(points).to(dtype)
    cohort = cohort_of(features, torch.zeros(clients, dtype=dtype), offsets_of(sizes), np.arange(clients))
    equilibrium = torch.from_numpy(np.concatenate([points.mean(0), np.zeros(d)]))
    return Population(
        spec=ExampleSpec(task="objective", feature_shape=(d,), outputs=d),
        federation=FederationFacts(name="dirac", sizes=sizes.astype(np.int32), record={"dimension": d}),
        clients=ClientData(cohort=cohort),
        objective=KnownObjective(equilibrium, 0.5 * float(points.var(axis=0).sum())),
    )


def _given(options: DiracOptions) -> F64:
    """Return the given points, (K, d)."""
    widths = {len(p) for p in options.points if isinstance(p, tuple)} or {options.dimension}
    require(len(widths) == 1, "points", f"must have one dimension, got {sorted(widths)}")
    d = widths.pop()
    points = np.stack([np.broadcast_to(np.asarray(p, np.float64), d) for p in options.points])
    require(bool(np.isfinite(points).all()), "points", "must be finite")
    return points


def _drawn(options: DiracOptions, seed: int) -> F64:
    """Draw points; a client's depends on the seed and its index alone."""
    keys = streams.keys(seed, "dirac/point", np.arange(options.clients))
    drawn: F64 = options.spread * streams.normals(keys, options.dimension)
    return drawn
