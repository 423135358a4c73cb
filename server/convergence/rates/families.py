"""Which family of curves a falling loss follows: a + b q^r (geometric) or a + b (r + c)^-p (power law).

Both are fitted to the same values by least squares; for given q, or p and c, the rest is linear, so a grid over them
gives the whole profile of the fit: the best curve, and the interval of its limit a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clients.core.arrays import F64
from server.convergence.rates.added_noise import autocorrelation
from server.convergence.rates.rate import LEVEL

Family = Literal["geometric", "power", "undecided", "neither"]
FEWEST_OF_FAMILY = 12
"""With fewer values the families are not compared."""
_EVIDENCE = 3.0
"""A family fits clearly better from this difference of log-likelihoods on: 20 to 1."""
SYSTEMATIC = 0.7
"""Residuals of which neighbours are correlated as much are no noise: the curve bends otherwise."""
_LINEAR = 0.5
"""Log of a shape over which its fit is taken for linear."""
_POINTS = 256
_OF_MEANS = 1e-6
"""Error of a curve's mean over a stretch."""
_ZOOMS = 40
_UNSEEN = 1.6
"""Over the number of values: the autocorrelation that they do not show. Set on curves with `tuning`."""
_EXPONENTS = (0.1, 4.0)
_SHIFTS = (0.5, 16.0)


@dataclass(frozen=True)
class Fitted:
    """The best curve of a family, and 90% intervals.

    Attributes:
        shape: q of a geometric curve, p of a power law.
        shapes: interval of the shape.
        limit: a.
        limits: interval of a.
        misfit: mean square of the residuals, with that of rounding.
        echo: autocorrelation of the residuals at lag 1.
    """

    shape: float
    shapes: tuple[float, float]
    limit: float
    limits: tuple[float, float]
    misfit: float
    echo: float


@dataclass(frozen=True)
class Families:
    """Both fits, and the family that fits clearly better."""

    geometric: Fitted
    power: Fitted
    better: Family


def fit_families(values: Sequence[float] | F64) -> Families | None:
    """Fit both families; None where there are too few values, or they do not change.

    A power law has one parameter more, which costs half a log of the values. Residuals that are correlated count as
    fewer values.

    Example:
        >>> found = fit_families([1.0 + 1.0 / r for r in range(1, 60)])
        >>> found.better, round(found.power.shape, 4), round(found.power.limit, 4)
        ('power', 1.0, 1.0)
        >>> fit_families([1.0 + 0.9**r for r in range(60)]).better
        'geometric'
    """
    y = np.asarray(values, np.float64)
    if len(y) < FEWEST_OF_FAMILY or not np.isfinite(y).all():
        return None
    scale = float(np.ptp(y))
    rounding = 4e-16 * float(np.abs(y).max())
    if scale <= 8.0 * rounding:
        return None
    t, means, weights = _thinned(y)
    z = (means - y[-1]) / scale
    floor = max(rounding / scale, _OF_MEANS if len(t) < len(y) else 0.0) ** 2
    geometric = _profile(t, z, weights, floor, power=False)
    power = _profile(t, z, weights, floor, power=True)
    counted = _independent(len(t), max(geometric.echo, power.echo))
    gain = 0.5 * counted * math.log(geometric.misfit / power.misfit) - 0.5 * math.log(counted)
    better: Family = "power" if gain > _EVIDENCE else "geometric" if gain < -_EVIDENCE else "undecided"
    bound = better == "power" and power.shape >= _EXPONENTS[1]
    if better != "geometric" and (bound or not _is_noise(power, floor)):
        better = "neither"  # such as a sum of two geometric falls, which any curve with one parameter more fits better
    newest = float(y[-1])
    return Families(_scaled(geometric, newest, scale), _scaled(power, newest, scale), better)


def _is_noise(found: Fitted, floor: float) -> bool:
    """Return whether residuals are noise, so that the curve misses nothing: rounding, or little correlated."""
    return found.misfit <= 100.0 * floor or found.echo < SYSTEMATIC


def _thinned(y: F64) -> tuple[F64, F64, F64]:
    """Return at most `_POINTS` (index, mean, number of values): single ones first, then means of longer stretches."""
    n = len(y)
    if n <= _POINTS:
        return np.arange(n, dtype=np.float64), y, np.ones(n)
    half = _POINTS // 2
    edges = np.unique(np.r_[np.arange(half), np.rint(np.geomspace(half, n, half + 1)).astype(np.int64)])
    counts = np.diff(edges).astype(np.float64)
    means = np.add.reduceat(y, edges[:-1]) / counts
    return edges[:-1] + 0.5 * (counts - 1.0), means, counts


def _independent(n: int, echo: float) -> float:
    """Return how many independent values n correlated ones are worth, at least 6."""
    return max(6.0, n * (1.0 - echo) / (1.0 + echo))


def _profile(t: F64, z: F64, weights: F64, floor: float, *, power: bool) -> Fitted:
    """Fit one family over a grid of shapes, zooming in until the interval is resolved."""
    n = len(t)  # the mean of a stretch is one value, of less noise
    low = np.log([_EXPONENTS[0], _SHIFTS[0]] if power else [1e-4, 1.0])
    high = np.log([_EXPONENTS[1], _SHIFTS[1]] if power else [6.0, 1.0])
    counts = (33, 11) if power else (65, 1)
    rows: list[F64] = []
    for _ in range(_ZOOMS):
        grid = np.stack(np.meshgrid(*(np.linspace(a, b, k) for a, b, k in zip(low, high, counts, strict=True))), -1)
        shapes = np.exp(grid.reshape(-1, 2))
        rows.append(_fits(t, z, weights, shapes, power=power))
        table = np.concatenate(rows)
        best = table[np.argmin(table[:, 3])]
        misfit = best[3] / n + floor
        residuals = np.sqrt(weights) * (z - _curve(t, weights, best, power=power))
        square = float(residuals.dot(residuals)) or 1.0
        echo = min(max(float(residuals[1:].dot(residuals[:-1])) / square, 0.0), 0.95)
        correlated = autocorrelation(residuals, 4 if power else 3)
        correlated = min(correlated + _UNSEEN / n, 0.95)
        free = max(_independent(n, correlated) - (4.0 if power else 3.0), 1.0)
        from scipy.special import fdtri  # the import takes a tenth of a second, and no early round fits families

        bound = misfit * (1.0 + float(fdtri(1.0, free, LEVEL)) / free)
        kept = table[table[:, 3] / n + floor <= bound]
        if len(kept) >= (9 if misfit <= 4.0 * floor else 25):
            break
        width = 0.25 * (high - low)
        centre = np.log(best[[0, 1]])
        low, high = centre - width, centre + width
        low[0], high[0] = (max(low[0], math.log(0.02)), min(high[0], math.log(8.0))) if power else (low[0], high[0])
        counts = (17, 9) if power else (33, 1)
    slack = max(bound - misfit, 0.0) * n
    shapes = np.r_[kept[:, 0], _ends(t, z, weights, best, slack, power=power)]
    shape, shapes = (best[0], shapes) if power else (math.exp(-best[0]), np.exp(-shapes))
    ends = kept[:, 2], kept[:, 4]
    reach = math.sqrt(slack)  # of the limit at fixed shape, in units of its own deviation
    limits = float((ends[0] - reach * ends[1]).min()), float((ends[0] + reach * ends[1]).max())
    ends_of_shape = float(shapes.min()), float(shapes.max())
    return Fitted(float(shape), ends_of_shape, float(best[2]), limits, float(misfit), echo)


def _ends(t: F64, z: F64, weights: F64, best: F64, slack: float, *, power: bool) -> F64:
    """Return the ends of the shape's interval if the fit were linear in its logarithm; none where it is far from it.

    The interval of two correlated parameters is a narrow ridge, which a grid cuts short. `slack` is what the square of
    the residuals may have more than that of the best row.
    """
    shape, shift, _, _, _, height = best
    basis = _basis(t, weights, best[None, :2], power=power)[0]
    along = 1.0 + t / shift
    by_shape = -shape * (np.log(along) if power else t) * basis * height
    columns = [np.ones(len(t)), basis, by_shape] + [shape * t / (shift * along) * basis * height] * power
    design = np.array(columns) * np.sqrt(weights)
    left = np.sqrt(weights) * (z - _curve(t, weights, best, power=power))
    gram = design @ design.T
    size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    inverse = np.linalg.pinv(gram / size / size[:, None]) / size / size[:, None]
    step = float((inverse @ (design @ left))[2])
    reach = math.sqrt(slack * max(float(inverse[2, 2]), 0.0))
    if reach + abs(step) > _LINEAR:
        return np.empty(0)
    ends: F64 = shape * np.exp([step - reach, step + reach])
    return ends


def _basis(t: F64, weights: F64, shapes: F64, *, power: bool) -> F64:
    """Return the falling part of each curve, 1 at the first value, as its mean over each stretch: [shapes, values]."""
    wide = (weights * weights - 1.0) / 24.0  # the second derivative's share in a mean
    shape, shift = shapes[:, :1], shapes[:, 1:]
    if power:
        along = 1.0 + t / shift
        found: F64 = along**-shape
        return found if not wide.any() else found * (1.0 + wide * shape * (shape + 1.0) / (shift * along) ** 2)
    found = np.exp(-shape * t)
    return found if not wide.any() else found * (1.0 + wide * shape * shape)


def _fits(t: F64, z: F64, weights: F64, shapes: F64, *, power: bool) -> F64:
    """Return a row (shape, shift, limit, square of residuals, the limit's deviation at unit noise, height) each."""
    basis = _basis(t, weights, shapes, power=power)
    total = weights.sum()
    middle, level = basis @ weights / total, float(z @ weights) / total
    away = basis - middle[:, None]
    spread = np.maximum((away * away) @ weights, 1e-300)
    height = (away * weights) @ (z - level) / spread
    residuals = (z - level) - height[:, None] * away
    square = (residuals * residuals) @ weights
    deviation = np.sqrt(1.0 / total + middle * middle / spread)
    return np.column_stack([shapes, level - height * middle, square, deviation, height])


def _curve(t: F64, weights: F64, row: F64, *, power: bool) -> F64:
    found: F64 = row[2] + row[5] * _basis(t, weights, row[None, :2], power=power)[0]
    return found


def _scaled(found: Fitted, newest: float, scale: float) -> Fitted:
    """Return a fit in the unit of the values."""
    low, high = (newest + scale * one for one in found.limits)
    return Fitted(
        found.shape, found.shapes, newest + scale * found.limit, (float(low), float(high)), found.misfit, found.echo
    )
