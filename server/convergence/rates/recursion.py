"""The regression of each value of a falling curve on the one before it: y+ = a + b y + noise.

What SGD, and so FedAvg, does to the loss of a quadratic obeys it: with x+ = rho x + noise, y = h |x|^2 / 2 has
E[y+ | y] = a + b y with b = rho^2, and a noise whose variance falls with the distance to the limit down to a floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from clients.core.arrays import F64

LONGEST = 4096
"""Most values a regression takes."""
_FALSE = 50  # straight curves that one is taken for bent among
_DRIFTS = 3.0  # z of the residuals' autocorrelation from which they drift
_ECHO = -2.3  # and from which they alternate: noise is added on top of the path
_FLOORS = np.array([[0.5], [1.0], [2.0], [4.0], [8.0]])  # noise at the limit, in its standard deviations
_AGES = np.arange(LONGEST, dtype=np.float64)


@dataclass(frozen=True)
class Line:
    """The weighted regression of each value on the one before it, and its residuals.

    `x`, `w`, `e`: values, weights and residuals; `xc` = x minus their weighted mean `x_mean`; `sxx`, `see`: weighted
    sums of squares of xc and e; `limit`, `spread`: of the pilot fit, the standard deviation around the limit.
    """

    x: F64
    z: F64
    w: F64
    xc: F64
    e: F64
    x_mean: float
    z_mean: float
    slope: float
    weight: float
    sxx: float
    see: float
    limit: float
    spread: float


class Slope(NamedTuple):
    """An estimate of the factor, its standard deviation, the noise's about the limit, and the pivot."""

    value: float
    deviation: float
    spread: float
    pivot: tuple[float, float]


def regress(y: F64, rounding: float) -> Line:
    """Regress y[1:] on y[:-1], weighted by the noise that a pilot fit suggests.

    In d dimensions that noise is (|y - limit| + c spread) up to a factor, with c near sqrt(d / 2) and `spread` the
    standard deviation at the limit; c is chosen from `_FLOORS` by likelihood. `rounding` is the smallest noise there
    can be.
    """
    x, z, n = y[:-1], y[1:], len(y) - 1
    w = np.ones(n)
    limit = spread = 0.0
    for stage in range(3):
        weight = float(w.sum())
        x_mean, z_mean = float(w.dot(x)) / weight, float(w.dot(z)) / weight
        xc = x - x_mean
        zc = z - z_mean
        wx = w * xc
        sxx = max(float(wx.dot(xc)), 1e-100)
        slope = float(wx.dot(zc)) / sxx
        e = zc - slope * xc
        e2 = e * e
        see = float(w.dot(e2))
        if stage == 2:
            break
        b = min(max(slope, 0.0), 0.999)
        limit = (z_mean - b * x_mean) / (1.0 - b)
        spread = math.sqrt(see / weight / (1.0 - b * b)) + rounding
        distance = np.abs(x - limit)
        if stage == 0:
            w = 1.0 / (distance + 2.0 * spread)
        else:
            noise = distance + spread * _FLOORS
            misfit = np.log(noise).sum(axis=1) + n * np.log((e2 / noise).sum(axis=1) + 1e-300)
            w = 1.0 / noise[misfit.argmin()]
    return Line(x, z, w, xc, e, x_mean, z_mean, slope, weight, sxx, see, limit, spread)


class Bend(NamedTuple):
    """How far a curve is from a straight recursion.

    `excess`: its largest |t| over the bound that a straight one exceeds once in `_FALSE`. `ends`: what a recursion with
    a square has more than the slope at the oldest and the newest value; 0 where the square is lost in the noise.
    `error`: standard deviation of the second of them.
    """

    excess: float
    ends: tuple[float, float]
    error: float


def bend(line: Line, rounding: float) -> Bend:
    """Compare the recursion with a straight line.

    Its residuals are regressed on what is left of the values' squares, and of time, beside the value: a square shows a
    factor that changes with the height, and time one that changes late, where many values lie close together.
    """
    w, xc, e, n = line.w, line.xc, line.e, len(line.e)
    if is_exact(line, rounding):
        return Bend(0.0, (0.0, 0.0), 0.0)
    root = e * np.sqrt(w)
    drift = float(root[1:].dot(root[:-1])) / line.see * math.sqrt(n) / _DRIFTS
    excess = drift if drift > 1.0 else 0.0
    wx = w * xc
    bow = leverage = error = 0.0
    for pattern in (_AGES[:n], xc * xc):
        lean = float(wx.dot(pattern)) / line.sxx
        own = pattern - (float(w.dot(pattern)) / line.weight + lean * xc)
        along = w * own
        size = max(float(along.dot(own)), 1e-300)
        pull = float(along.dot(e))
        deviation = math.sqrt(max(line.see - pull * pull / size, 1e-300) / ((n - 3) * size))
        t = abs(pull) / size / deviation
        excess = max(excess, t / false_alarm(n - 3))
        leverage = 2.0 * float(xc[-1]) - lean
        bow, error = pull / size if t > 1.0 else 0.0, deviation * abs(leverage)
    return Bend(excess, (bow * (leverage + 2.0 * float(xc[0] - xc[-1])), bow * leverage), error)


def is_exact(line: Line, rounding: float) -> bool:
    """Return whether the residuals are rounding."""
    return line.see <= 100.0 * line.weight * rounding**2


@cache
def false_alarm(freedom: int) -> float:
    """The |t| that no bend at all exceeds once in `_FALSE`."""
    from scipy.special import stdtrit  # the import takes a tenth of a second, and no early round fits a rate

    return float(stdtrit(freedom, 1.0 - 0.5 / _FALSE))


def carried(line: Line) -> Slope:
    """The slope, corrected for its small-sample bias, where the path carries its noise along.

    The bias of a regression on one's own past has two parts (the terms of Marriott and Pope 1954 and Kendall 1954,
    -(1 + 3b)/n at stationarity, here with the weights and residuals of this very series): the mean subtracted from
    each value contains later noise, and the noise in the slope's numerator returns in its denominator.
    """
    w, xc, n, sxx = line.w, line.xc, len(line.e), line.sxx
    wx = w * xc
    we = w * line.e
    kept = 1.0 - w / line.weight - wx * xc / sxx
    score = wx * line.e
    robust = score / np.maximum(kept, 1e-3)
    variance = max(float(robust.dot(robust)) / sxx, line.see / (n - 2)) / sxx
    b = min(max(line.slope, 0.0), 0.99)
    faded = b ** _AGES[n - 1 :: -1]
    mean = float(we.dot(we - we * faded)) / ((1.0 - b) * line.weight * sxx)
    ratio = 2.0 * b / (1.0 - b * b) * float(score.dot(score - score * faded * faded)) / sxx**2
    return Slope(line.slope + mean + ratio, math.sqrt(variance), line.spread, (line.x_mean, line.z_mean))


def echoing(line: Line) -> Slope | None:
    """The slope with the value before as instrument, where residuals alternate; None where they do not.

    Noise added on top of the path is in x as well as in z, and shows as a negative autocorrelation of the residuals
    at lag 1, which the variance then contains.
    """
    root = line.e * np.sqrt(line.w)
    n = len(root) - 1
    if float(root[1:].dot(root[:-1])) * math.sqrt(n + 1) >= _ECHO * line.see:
        return None
    before, x, z, w = line.x[:-1], line.x[1:], line.z[1:], line.w[1:]
    weight = float(w.sum())
    x_mean, z_mean = float(w.dot(x)) / weight, float(w.dot(z)) / weight
    instrument = w * (before - float(w.dot(before)) / weight)
    strength = float(instrument.dot(x - x_mean))
    if strength <= 1e-100:
        return None
    slope = float(instrument.dot(z - z_mean)) / strength
    score = instrument * ((z - z_mean) - slope * (x - x_mean))
    own = float(score.dot(score))
    variance = n / (n - 2) * (own + 2.0 * max(float(score[1:].dot(score[:-1])), -0.45 * own)) / strength**2
    return Slope(slope, math.sqrt(variance), math.sqrt(line.see / line.weight), (x_mean, z_mean))
