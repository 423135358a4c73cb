"""Measures of samples beside real examples, on features of both: Fréchet distance, precision, coverage, classes.

One number cannot say both whether samples look real and whether they are as varied as what is real (Sajjadi et al.
2018): a generator that repeats one good example is precise and covers nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64, I64, Bool

NEIGHBOURS = 5
"""The ball around a real example reaches to this neighbour among the others (Naeem et al. 2020, section 4.2)."""
DIMENSIONS = 32
"""Principal components that features are, at most."""
FEWEST_OF_A_CLASS = 0.01
"""A class counts as drawn where at least this share of the samples are precise and nearest to it."""


@dataclass(frozen=True)
class FeatureSpace:
    """The leading principal components of some real examples, not scaled.

    Attributes:
        mean: of the examples, (D,).
        axes: orthonormal, (D, d); the first has the largest variance.
    """

    mean: F64
    axes: F64

    @classmethod
    def of(cls, examples: F64, most: int = DIMENSIONS) -> FeatureSpace:
        """Return the space of examples (n, D)."""
        mean = examples.mean(0)
        away = examples - mean
        _, axes = np.linalg.eigh(away.T @ away)
        return cls(mean, axes[:, ::-1][:, : min(most, max(1, len(examples) - 1))])

    def features(self, examples: F64) -> F64:
        """Return the features of examples (n, D), (n, d)."""
        found: F64 = (examples - self.mean) @ self.axes
        return found


@dataclass(frozen=True)
class Quality:
    """How good samples are.

    Attributes:
        frechet_distance: see `frechet_distance`; 0 is best.
        precision: share of the samples inside the ball of a real example (Kynkäänniemi et al. 2019, equation 2).
        coverage: share of the real examples whose ball has a sample (Naeem et al. 2020, equation 6).
        classes: how many classes are drawn; see `classes_drawn`. None where real examples have no classes.
    """

    frechet_distance: float
    precision: float
    coverage: float
    classes: int | None


def quality_of(real: F64, drawn: F64, labels: I64 | None = None) -> Quality:
    """Measure samples.

    Args:
        real: features of real examples, (n, d), n > `NEIGHBOURS`.
        drawn: features of as many samples, (n, d); those that are not finite make all measures nan, and no class count.
        labels: classes of the real examples, (n,), if they have some.
    """
    assert len(real) > NEIGHBOURS, "a ball reaches to the fifth neighbour"
    if not np.isfinite(drawn).all():
        return Quality(np.nan, np.nan, np.nan, None if labels is None else 0)
    distances = pairwise(real, drawn)
    inside = distances <= radii(real)[:, None]
    return Quality(
        frechet_distance(real, drawn),
        float(inside.any(0).mean()),
        float(inside.any(1).mean()),
        None if labels is None else classes_drawn(distances, inside, labels),
    )


def frechet_distance(real: F64, drawn: F64) -> float:
    """Return the squared Fréchet distance of the Gaussians of two sets (Heusel et al. 2017, equation 6).

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), with the means and covariances of the sets: the trace of the root is the
    sum of the roots of the eigenvalues of C^(1/2) C' C^(1/2), which is symmetric.

    Args:
        real: (n, d), n >= 2.
        drawn: (m, d), m >= 2.

    Example:
        >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 3.0]])
        >>> round(frechet_distance(x, x + [3.0, 4.0]), 9), round(frechet_distance(x, 2 * x - x.mean(0)), 9)
        (25.0, 3.333333333)
    """
    c, other = (np.atleast_2d(np.cov(x.T)) for x in (real, drawn))
    values, vectors = np.linalg.eigh(c)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
    apart = np.square(real.mean(0) - drawn.mean(0)).sum()
    return max(0.0, float(apart + np.trace(c) + np.trace(other) - 2 * shared))


def pairwise(a: F64, b: F64) -> F64:
    """Return the Euclidean distances between two sets of points, (n, m)."""
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
    found: F64 = np.sqrt(np.maximum(squares, 0))
    return found


def radii(real: F64, neighbours: int = NEIGHBOURS) -> F64:
    """Return the distance of each point to its k-th nearest among the others, (n,).

    Example:
        >>> radii(np.array([[0.0], [1.0], [3.0], [7.0]]), 2).tolist()
        [3.0, 2.0, 3.0, 6.0]
    """
    distances = pairwise(real, real)
    np.fill_diagonal(distances, np.inf)
    found: F64 = np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1]
    return found


def classes_drawn(distances: F64, inside: Bool, labels: I64) -> int:
    """Return how many classes at least one in a hundred samples has.

    A sample has the class of its nearest real example, and none where it lies in no ball. With fewer classes than the
    real examples have, the generator has collapsed to a part of them.

    Args:
        distances: between n real examples and m samples, (n, m).
        inside: whether a sample lies in the ball of a real example, (n, m).
        labels: classes of the real examples, (n,).
    """
    precise = inside.any(0)
    counts = np.bincount(labels[distances.argmin(0)[precise]], minlength=1)
    return int((counts >= FEWEST_OF_A_CLASS * distances.shape[1]).sum() if precise.any() else 0)
