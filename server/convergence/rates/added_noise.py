"""The fit of a + b q^r by least squares, where noise is added on top of the path.

A loss measured on few examples has such noise: no value hands its own on to the next. The regression of each value on
the one before it (`recursion`) has that noise on both sides. Its slope is too low, and that with the value before as
instrument has several times the error of this fit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from clients.core.arrays import F64
from server.convergence.rates.recursion import Slope, false_alarm

MEMORY = 0.8
"""Autocorrelation from which residuals are a path of their own, and no added noise."""
_STEPS = 12
_CLOSE = 1e-3  # standard deviations of the factor that the last step may move it by
_LONGEST_STEP = 2.0  # times log q
_STEEPEST, _FLATTEST, _FASTEST = 0.05, 0.99, 0.02
_CORRELATED = 1.3  # z of the residuals' autocorrelation from which it widens the interval


class Added(NamedTuple):
    """The factor; how far the values bend otherwise (as `Bend.excess`); the residuals' autocorrelation at lag 1."""

    slope: Slope
    excess: float
    echo: float


def fit_added(y: F64, factor: float) -> Added | None:
    """Fit a + b q^r by Gauss and Newton's steps from a first factor.

    Correlated residuals count as fewer values: (1 - echo) / (1 + echo) of them. Costs about 100 us.

    Returns:
        the fit, or None where the steps do not settle, as in a straight fall, or the curve rises.
    """
    n = len(y)
    ages = np.arange(n, dtype=np.float64)
    q = min(max(factor, _STEEPEST), _FLATTEST)
    columns = np.ones((3, n))  # of a, b and, but for the height, log q
    for _ in range(_STEPS):
        columns[1] = q**ages
        columns[2] = ages * columns[1]
        try:
            inverse = np.asarray(np.linalg.inv(columns @ columns.T), np.float64)
        except np.linalg.LinAlgError:
            return None
        found = inverse @ (columns @ y)
        height, step = float(found[1]), float(found[2])
        if height <= 0.0:
            return None
        left: F64 = y - found @ columns
        variance = float(left.dot(left)) / (n - 3)
        deviation = math.sqrt(max(variance * float(inverse[2, 2]), 0.0)) / height
        step /= height
        if abs(step) <= _CLOSE * deviation:
            break
        fall = -math.log(q)
        q = max(math.exp(-min(max(fall - step, fall / _LONGEST_STEP), fall * _LONGEST_STEP)), _FASTEST)
    else:
        return None
    excess, echo, longer = _rest(ages * columns[2], columns, inverse, left)
    limit = float(y.mean()) - height * float(columns[1].mean())
    pivot = limit + height * float(columns[1][:-1].mean()), limit + height * float(columns[1][1:].mean())
    return Added(Slope(q, q * deviation * math.sqrt(longer), math.sqrt(variance), pivot), excess, echo)


def _rest(pattern: F64, columns: F64, inverse: F64, left: F64) -> tuple[float, float, float]:
    """Return how far a changing factor fits better, the residuals' autocorrelation, and its share of variances."""
    n = len(left)
    own = pattern - (inverse @ (columns @ pattern)) @ columns
    size = max(float(own.dot(own)), 1e-300)
    pull = float(own.dot(left))
    rest = left - pull / size * own
    square = max(float(rest.dot(rest)), 1e-300)
    echo = autocorrelation(rest, len(columns) + 1)
    longer = (1.0 + echo) / (1.0 - echo) if echo * math.sqrt(n) > _CORRELATED else 1.0
    return abs(pull) * math.sqrt((n - 4) / (square * size * longer)) / false_alarm(n - 4), echo, longer


def autocorrelation(residuals: F64, fitted: int) -> float:
    """Return the autocorrelation at lag 1, of at least 0, without what the fit of smooth columns took from it.

    Each takes the power of the lowest frequency, (1 + echo) / (1 - echo) times that of an average one.
    """
    n = len(residuals)
    square = float(residuals.dot(residuals)) or 1.0
    raw = found = float(residuals[1:].dot(residuals[:-1])) / square
    for _ in range(3):
        echo = min(max(found, 0.0), 0.95)
        taken = min(fitted * (1.0 + echo) / (1.0 - echo), n / 8.0)
        found = (raw * (n - taken) + taken) / n
    return min(max(found, 0.0), 0.95)
