"""The rate at which a loss approaches its limit, fitted with an interval; `NoTrend` with the reason where none fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from clients.core.arrays import F64
from server.convergence.rates.added_noise import MEMORY, fit_added
from server.convergence.rates.recursion import (
    LONGEST,
    Bend,
    Line,
    Slope,
    bend,
    carried,
    echoing,
    is_exact,
    regress,
)

FEWEST = 8
"""Values below which no rate is fitted."""
NEWEST = 100
"""Newest values that a rate is fitted to."""
SHORTEST = 8
"""Shortest window the search for a straight recursion ends at."""
RISES = "it rises"
"""Why a rising curve has no rate."""
STEADY = "it falls without slowing yet"
"""Why a straight fall has no rate."""
LEVEL = 0.9
"""Coverage the interval aims at."""
_DESCENT = 4.0  # stationary standard deviations the window must start above its limit
_SELECTED = 6.0  # and from which this choice matters little
_LOST = "it fell no further than noise would carry it"
_FAINT = 1.5  # bend up to which a window is used after all, where its newest part has no trend
_SHORT = 16  # and values up to which
_AGAIN = 0.7  # bend, in units of its bound, that may stay in a part of a window that was bent
_LONG = 32  # values that added noise needs to be told from a bend
_CLEAR = 4.0  # bend that is no noise's
# Ends of the interval, set on the curves of tests/support/rate_curves.py with `tuning`:
_GROWTH = 0.24  # power of the slowing down, when the window was last shortened, that the newest value has beyond it
_HIDDEN = 1.7  # errors of the bend that noise may hide
_LOWER, _LOWER_OF_BENT = 0.85, 0.78  # of the reach below the slope: the upper end has more than its share


@dataclass(frozen=True)
class NoTrend:
    """No rate fits the values.

    Attributes:
        reason: why, as a clause for people.
    """

    reason: str


@dataclass(frozen=True)
class Rate:
    """The distance to the limit shrinks by `factor` a round.

    Attributes:
        factor: estimate of the factor per round, in [0, 1).
        low: lower end of its 90% interval, >= 0.
        high: upper end, <= 1; 1 means that a straight fall without a limit fits as well.
        limit: estimated limit of the values.
        current: the newest value.
        rounds: how many values, counted from the newest, it was fitted to.
        pivot: a point (value, expected next value) the fitted recursion passes through whatever the factor.
        least: the lowest possible value, and so the lowest possible limit; -inf where it is unknown.
    """

    factor: float
    low: float
    high: float
    limit: float
    current: float
    rounds: int
    pivot: tuple[float, float]
    least: float = -math.inf

    def no_lower(self, least: float) -> Rate:
        """Return the rate of values that cannot be below `least`.

        Where the fit's limit is below it, the limit is `least`, and the factor the one that goes with it: that of the
        recursion through the pivot and (least, least). The interval is widened to hold it.
        """
        value, following = self.pivot
        if self.limit >= least or value <= least:
            return replace(self, least=least)
        factor = min(max((following - least) / (value - least), 0.0), self.factor)
        return replace(self, factor=factor, low=min(self.low, factor), limit=least, least=least)

    def limit_at(self, factor: float) -> float:
        """Return the limit that goes with another factor inside the interval; from 1 on `least`."""
        value, following = self.pivot
        return max((following - factor * value) / (1.0 - factor) if factor < 1.0 else -math.inf, self.least)

    def rounds_to(self, value: float) -> tuple[float, float, float] | None:
        """Estimate how many more rounds the expected path needs to come down to `value`.

        Returns:
            (estimate, low, high) in rounds, >= 0, `high` infinite where the interval's slow end never gets there;
            None where the estimated limit lies above `value`. The ends follow the interval of the factor, each with
            its own limit; noise around the path is not in them.
        """
        if value >= self.current:
            return 0.0, 0.0, 0.0
        estimate, *ends = (self._rounds(value, factor) for factor in (self.factor, self.low, self.high))
        if math.isinf(estimate):
            return None
        return estimate, min(estimate, *ends), max(estimate, *ends)

    def _rounds(self, value: float, factor: float) -> float:
        """Rounds the expected path needs with this factor; infinite where it does not get there."""
        start, following = self.pivot
        if factor >= 1.0:
            return (self.current - value) / (start - following) if start > following else math.inf
        limit = self.limit_at(factor)
        if value <= limit or self.current <= limit:
            return math.inf
        return math.log((value - limit) / (self.current - limit)) / math.log(max(factor, 1e-12))


def fit_rate(values: Sequence[float] | F64, *, window: int = NEWEST) -> Rate | NoTrend:
    """Fit the factor by which the distance to the limit shrinks each round.

    Each value is regressed on the one before it (`recursion`), with weights 1 / (|y - limit| + floor), the
    floor chosen by likelihood. The interval is Student's, with the larger of the model's and the HC3 variance
    (MacKinnon and White 1985), around the slope corrected for its small-sample bias.
    Where residuals alternate, the noise is added on top of the path instead of carried along by it (a loss measured on
    few examples), which would pull the slope to 0: there the path itself is fitted (`added_noise`), or with the value
    before as the instrument where that does not settle. So it is where correlated noise bends the recursion only.
    Real curves slow down as they fall: while the recursion bends or its residuals drift, the older half of the window
    is dropped. The interval is that of the factor at the newest value: its upper end follows a bend that is left, and
    if even the shortest window is bent, it takes in the slopes at both ends. Where the newest part has no trend, a
    faint bend is put up with.
    Costs about 80 us, and as much again for every time the window is halved.

    Args:
        values: a loss or an error, one a round, oldest first (for an accuracy pass 1 - accuracy).
        window: newest values looked at, 8 to 4096.

    Returns:
        `Rate`, or `NoTrend` where there are too few values, one is not finite, they do not change, rise, or fall no
        further than noise would carry them.

    Example:
        >>> rate = fit_rate([1.0 + 0.9**r for r in range(30)])
        >>> round(rate.factor, 6), round(rate.limit, 6), round(rate.rounds_to(1.01)[0], 1)
        (0.9, 1.0, 14.7)
        >>> fit_rate([1.0] * 30)
        NoTrend(reason='it does not change')
    """
    assert FEWEST <= window <= LONGEST
    y = np.asarray(values[-window:], np.float64)
    if len(y) < FEWEST:
        return NoTrend(f"{len(y)} values are too few, {FEWEST} are needed")
    with np.errstate(all="ignore"):
        newest = float(y[-1])
        centred = y - newest
        scale = float(np.abs(centred).max())
        if not math.isfinite(scale):
            return NoTrend("a value is not finite")
        rounding = 4e-16 * (abs(newest) + scale)
        if scale <= 8.0 * rounding:
            return NoTrend("it does not change")
        return _search(centred / scale, rounding / scale, newest, scale)


def _search(y: F64, rounding: float, newest: float, scale: float) -> Rate | NoTrend:
    """Shorten the window until the recursion in it is straight: y = (values - newest) / scale."""
    most: float = 1.0
    longer: Rate | None = None
    growth, before = 0.0, 0.0
    while True:
        line = regress(y, rounding)
        slope, bent = _slope(y, line, rounding, most)
        growth, before = _growth(before, slope.value), slope.value
        if bent.excess <= most or len(y) <= SHORTEST:
            found = _conclude(line, slope, bent, newest, scale, growth=growth if most < 1.0 else None)
            lost = isinstance(found, NoTrend) and found.reason.endswith(_LOST)
            return longer if lost and longer is not None else found
        if longer is None and (bent.excess <= _FAINT or len(y) <= _SHORT):
            found = _conclude(line, slope, bent, newest, scale, growth=growth)
            longer = found if isinstance(found, Rate) else None
        most = _AGAIN
        y = y[-max(SHORTEST, len(y) // 2) :]
        if float(y.max()) - float(y.min()) <= 8.0 * rounding:
            return NoTrend("it does not change any more")


def _growth(longer: float, slope: float) -> float:
    """Return what the slope at the newest value has beyond that of a window, if it grows as it did from a longer one.

    It is the fall a round, -log(slope), that slows down: by the same factor, to a power.
    """
    if not 0.0 < longer < slope < 1.0:
        return 0.0
    fall, before = -math.log(slope), -math.log(longer)
    return math.exp(-fall * (fall / before) ** _GROWTH) - slope


def _slope(y: F64, line: Line, rounding: float, most: float) -> tuple[Slope, Bend]:
    """Return the slope of a window by the kind of its noise, and how far it bends; `most` is the bend that may stay."""
    echo = echoing(line)
    if echo is not None and not is_exact(line, rounding):
        added = fit_added(y, echo.value)
        slope, excess = (added.slope, added.excess) if added else (echo, 0.0)
        return slope, Bend(excess, (0.0, 0.0), 0.0)
    bent = bend(line, rounding)
    if most < bent.excess <= _CLEAR and len(y) >= _LONG:  # added noise that is correlated bends the recursion, too
        added = fit_added(y, line.slope)
        if added and added.excess <= most and added.echo < MEMORY and added.slope.value < 1.0:
            return added.slope, Bend(added.excess, (0.0, 0.0), 0.0)
    return echo or carried(line), bent


def _conclude(
    line: Line, found: Slope, bent: Bend, newest: float, scale: float, growth: float | None
) -> Rate | NoTrend:
    """Return the rate of a fitted recursion, or why it has none.

    `growth` is what the slope has more than that of a longer window, which was not straight; None without one.
    """
    n = len(line.e)
    slope, deviation, spread, pivot = found
    if slope >= 1.0 and line.x[0] > line.z[-1]:
        hidden = slope - _quantile(n - 2) * deviation < 1.0
        return NoTrend(f"over the newest {n + 1} rounds noise hides whether it slows down" if hidden else STEADY)
    if slope >= 1.0:
        return NoTrend(RISES)
    start = float(line.x[0]) - (pivot[1] - slope * pivot[0]) / (1.0 - slope)
    if start <= -_DESCENT * spread:
        return NoTrend(RISES)
    if start < _DESCENT * spread:
        return NoTrend(f"over the newest {n + 1} rounds {_LOST}")
    low, high = _interval(line, found, bent, start, growth)
    if high <= 0.0:
        return NoTrend("it alternates about its limit")
    factor = max(slope, 0.0)
    x0, z0 = (newest + scale * part for part in pivot)
    limit = newest + scale * (pivot[1] - factor * pivot[0]) / (1.0 - factor)
    return Rate(factor, max(low, 0.0), min(high, 1.0), limit, newest, n + 1, (x0, z0))


def _interval(line: Line, found: Slope, bent: Bend, start: float, growth: float | None) -> tuple[float, float]:
    """Return the interval of the factor at the newest value.

    Real curves slow down, so that the slope of a window is rather too low for its end. The upper end is the highest of
    four: that of the slope, wider the less the fall, `start`, stands out from the noise (what noise lets fall fast and
    far is what is given a rate at all); that of the slope at the end, where the square of the recursion shows; that of
    a slope that goes on growing as it did from a longer window to this one; and that with a square that noise hides.
    """
    bends = growth is not None
    reach = _quantile(len(line.e) - 2) * found.deviation
    low = found.value - (_LOWER_OF_BENT if bends else _LOWER) * reach
    high = found.value + reach * (1.0 + (_SELECTED * found.spread / start) ** 2)
    if bent.excess > 1.0:
        low, high = min(low, found.value + min(bent.ends)), max(high, found.value + max(bent.ends))
    error = _quantile(len(line.e) - 2) * bent.error if bends else 0.0
    grown, hidden = growth or 0.0, _HIDDEN * _quantile(len(line.e) - 2) * bent.error
    shown = found.value + bent.ends[1] + math.hypot(reach, error)
    return low, max(high, shown, found.value + reach + max(grown, hidden))


@cache
def _quantile(freedom: int) -> float:
    """Two-sided Student quantile at `LEVEL`."""
    from scipy.special import stdtrit  # the import takes a tenth of a second, and no early round fits a rate

    return float(stdtrit(freedom, 0.5 + LEVEL / 2.0))
