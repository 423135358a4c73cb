"""Moran's I of a quantity over places: whether near clients are alike.

I = (n / sum_ij w_ij) sum_ij w_ij z_i z_j / sum_i z_i^2 with z the quantity less its mean (Moran 1950; Cliff and Ord
1981, section 1.5). The weights are 1/k for each of a place's k nearest others and 0 otherwise: rows add up to 1, so
I = sum_i z_i (mean of z over i's neighbours) / sum_i z_i^2. It is near 1 where neighbours agree, negative where they
differ, and -1/(n - 1) on average if the quantity is dealt to the places at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clients.core.arrays import I64

NEIGHBOURS = 8


@dataclass(frozen=True)
class Moran:
    """Spatial autocorrelation of one quantity.

    Attributes:
        value: Moran's I.
        expected: its mean if the quantity does not depend on places, -1/(n - 1).
        deviation: its standard deviation then, for a normal quantity (Cliff and Ord 1981, equation 1.42).
        places: how many places, n.
    """

    value: float
    expected: float
    deviation: float
    places: int


def nearest(x: npt.ArrayLike, y: npt.ArrayLike, count: int = NEIGHBOURS) -> I64:
    """Return the `count` nearest other places of each place (all others where there are fewer), int64 (n, k).

    Example:
        >>> nearest([0.0, 1.0, 3.0], [0.0, 0.0, 0.0], 1).tolist()
        [[1], [0], [1]]
    """
    from scipy.spatial import cKDTree  # the import takes a tenth of a second, and few commands need it

    points = np.column_stack((x, y)).astype(np.float64)
    n = len(points)
    k = min(count, n - 1)
    assert k >= 1, "one place has no neighbours"
    found = np.asarray(cKDTree(points).query(points, k + 1)[1], np.int64)
    own = found == np.arange(n)[:, None]
    own[~own.any(axis=1), -1] = True  # with many places at one point, the place itself may not be among the first
    others: I64 = found[~own].reshape(n, k)
    return others


def morans_i(values: npt.ArrayLike, neighbours: I64) -> Moran | None:
    """Measure the spatial autocorrelation of a quantity.

    Args:
        values: (n,), finite.
        neighbours: int64 (n, k), the neighbours of each place, as from `nearest`.

    Returns:
        Moran's I; None where the quantity is the same everywhere or there are fewer than four places.

    Example:
        >>> print(morans_i([0.0, 1.0, 3.0, 4.0], nearest([0, 1, 3, 4], [0, 0, 0, 0], 1)).value)
        0.8
    """
    z = np.asarray(values, np.float64)
    n = len(z)
    z = z - z.mean()
    square = float(z @ z)
    if n < 4 or square <= 1e-24 * n:
        return None
    value = float(z @ z[neighbours].mean(axis=1)) / square
    return Moran(value, -1.0 / (n - 1), _deviation(neighbours), n)


def _deviation(neighbours: I64) -> float:
    """Return the standard deviation of I under normality: S0 = n, S1 and S2 of the weights."""
    n, k = neighbours.shape
    weight = 1.0 / k
    edges = np.arange(n)[:, None] * n + neighbours
    back = (neighbours * n + np.arange(n)[:, None]).ravel()
    mutual = int(np.isin(edges.ravel(), back).sum())
    s1 = weight * weight * (n * k + mutual)  # sum (w_ij + w_ji)^2 / 2 = sum w_ij^2 + sum w_ij w_ji
    columns = np.bincount(neighbours.ravel(), minlength=n) * weight
    s2 = float(((1.0 + columns) ** 2).sum())
    variance = (n * n * s1 - n * s2 + 3.0 * n * n) / (n * n * (n * n - 1.0)) - 1.0 / (n - 1) ** 2
    return float(np.sqrt(max(variance, 0.0)))
