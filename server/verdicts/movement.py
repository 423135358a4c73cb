"""How far a loss is from rest: what it will still fall, since when it is level, and the rounds to a target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64
from server.convergence.outcome import fit_whole
from server.convergence.rates.families import Fitted, fit_families
from server.convergence.rates.rate import Rate
from server.convergence.rates.recursion import LONGEST
from server.verdicts.course import Course
from server.verdicts.thresholds import (
    AHEAD,
    BLOCKS,
    E_FOLDS,
    FEWEST,
    LASTING,
    MISFIT,
    OUTLYING,
    PER_STRETCH,
    POWERS,
    SKIPPED,
    STRETCHES,
)

_NORMAL = 1.645
"""Two-sided 90% quantile of the normal distribution."""


@dataclass(frozen=True)
class Rounds:
    """Rounds still needed, with a 90% interval; infinite where the slow end never gets there."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Outlook:
    """What a loss will do if the run is played to `AHEAD` times its rounds.

    Attributes:
        fall: the median of the fall, >= 0.
        chance: the probability that it falls by more than was asked.
    """

    fall: float
    chance: float


def outlook(course: Course, more_than: float) -> Outlook:
    """Return how far a loss will still fall if its run is played to `AHEAD` times its rounds.

    Curves of several shapes are fitted to means of stretches of all but the first rounds, without outliers: geometric
    falls from a straight line to one that is long over, and power laws in the round from the logarithm on. Each counts
    by its marginal likelihood, with flat priors of its level and height and 1 / sigma for the noise; the fall of each
    is then Student's. They use most of the record, so they see falls which noise hides in the newest rounds.

    A loss that was never negative falls to 0 at most.

    Args:
        course: the loss.
        more_than: the fall whose probability is returned, >= 0.

    Example:
        >>> import numpy as np
        >>> r = np.arange(100.0)
        >>> found = outlook(Course("loss", r.astype(int), (1.0 + r) ** -0.5), 0.01)
        >>> found.chance > 0.99, abs(found.fall - (100**-0.5 - 300**-0.5)) < 0.005
        (True, True)
        >>> bool(outlook(Course("loss", r.astype(int), 0.9**r), 0.01).chance < 0.01)
        True
    """
    n = len(course)
    first = min(max(int(n * SKIPPED), 1), max(n - FEWEST, 0))
    reach = OUTLYING * course.noise  # of values about their running median
    values = np.clip(course.values, course.smooth - reach, course.smooth + reach)[first:]
    count = min(STRETCHES, max(len(values) // PER_STRETCH, min(len(values), FEWEST)))
    places = np.array_split(np.arange(len(values)), count)
    y = np.array([np.mean(values[at]) for at in places])
    t = np.array([np.mean(at) for at in places]) + max(first, 1)
    span, free = float(np.ptp(y)), count - 2
    if span <= course.rounding:
        return Outlook(0.0, 0.0)
    geometric = slice(1, 1 + len(E_FOLDS))
    curves, ahead = _curves(t, float(max(first, 1)), float(n - 1))
    y = (y - y.mean()) / span
    away = curves - curves.mean(axis=1, keepdims=True)
    size = (away * away).sum(axis=1)
    slope = away @ y / size
    rest = y - slope[:, None] * away
    square = (rest * rest).sum(axis=1) + count * MISFIT**2
    weight = -0.5 * np.log(size) - 0.5 * free * np.log(square)
    weight[geometric] -= LASTING + math.log(len(E_FOLDS) / (len(curves) - len(E_FOLDS)))
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    from scipy.special import stdtr  # the import takes a tenth of a second

    deviation = np.sqrt(square / free / size)
    chances = stdtr(free, (slope - more_than / span / ahead) / deviation)
    falls = np.maximum(slope, 0.0) * ahead
    order = np.argsort(falls)
    middle = falls[order][np.searchsorted(np.cumsum(weight[order]), 0.5)]
    newest = float(course.smooth[-1])
    most = newest if float(course.values.min()) >= 0.0 else math.inf  # a loss that was never negative stays so
    return Outlook(min(span * float(middle), most), float(weight @ chances) if more_than < most else 0.0)


def _curves(t: F64, start: float, now: float) -> tuple[F64, F64]:
    """Return falling curves at some times, each with a range of 1 [curves, times]; and what each falls from now on.

    A straight line has no limit: it goes on for as long as it was seen.
    """
    along, end = (t - start) / (now - start), (AHEAD * now - start) / (now - start)
    found = [-along, *(np.exp(-k * along) for k in E_FOLDS), -np.log(t), *(t**-p for p in POWERS)]
    falls = [1.0, *(math.exp(-k) - math.exp(-k * end) for k in E_FOLDS), math.log(AHEAD)]
    falls += [now**-p - (AHEAD * now) ** -p for p in POWERS]
    curves = np.array(found)
    width = np.ptp(curves, axis=1)
    return curves / width[:, None], np.array(falls) / width


def clear_limit(course: Course) -> float | None:
    """Return the limit of the family of curves that clearly fits a loss; None where none does.

    Example:
        >>> import numpy as np
        >>> found = clear_limit(Course("loss", np.arange(60), 1.0 + 0.9 ** np.arange(60.0)))
        >>> found is not None and abs(found - 1.0) < 1e-6
        True
    """
    families = fit_families(course.values[-LONGEST:])
    if families is None or families.better not in ("power", "geometric"):
        return None
    return families.power.limit if families.better == "power" else families.geometric.limit


def speed_of(course: Course) -> float:
    """Return by how much a loss falls in 100 rounds, from its newest third; 0 where that does not clearly fall.

    Example:
        >>> import numpy as np
        >>> straight = Course("loss", np.arange(0, 120, 2), 5.0 - 0.02 * np.arange(60))
        >>> round(speed_of(straight), 6)
        1.0
    """
    if not course.motion.falls:
        return 0.0
    length = len(course.tail)
    return -course.motion.change / (length * (1.0 - 1.0 / min(length, BLOCKS))) * 100.0 / _between(course)


def level_since(course: Course, tolerance: float) -> int:
    """Return the round since which the running median stays within a tolerance of the level."""
    away = np.flatnonzero(np.abs(course.smooth - course.level) > tolerance)
    at = min(int(away[-1]) + 1, len(course) - 1) if len(away) else 0
    return int(course.rounds[at])


def rounds_to(course: Course, threshold: float) -> Rounds | None:
    """Return the rounds that a falling metric still needs to a threshold; None where it gets there by no account.

    They follow the power law or the rate fitted to the whole record. Where the curve falls without slowing, neither
    fits, and they follow the straight line through the newest third.
    """
    fitted = fit_whole(course.values.tolist())
    families = fit_families(course.values[-LONGEST:])
    if families is not None and families.better == "power" and course.motion.falls:
        return _by_power_law(course, families.power, threshold)
    if isinstance(fitted, Rate):
        found = fitted.rounds_to(threshold) or _at_slowest(fitted, threshold)
        return Rounds(*(_between(course) * value for value in found)) if found is not None else None
    motion, length = course.motion, len(course.tail)
    if not motion.falls:
        return None
    span = length * (1.0 - 1.0 / min(length, BLOCKS))
    missing = max(course.level - threshold, 0.0)
    fast, slow = -motion.change + _NORMAL * motion.error, -motion.change - _NORMAL * motion.error
    per = [span * missing / change if change > 0.0 else math.inf for change in (-motion.change, fast, slow)]
    return Rounds(*(_between(course) * value for value in per))


def _at_slowest(rate: Rate, threshold: float) -> tuple[float, float, float] | None:
    """Return the rounds at the slow end of a rate's interval, where only that one's limit lies below the threshold."""
    limit = rate.limit_at(rate.high)
    if rate.high >= 1.0 or threshold <= limit or rate.current <= limit:
        return None
    rounds = math.log((threshold - limit) / (rate.current - limit)) / math.log(rate.high)
    return rounds, rounds, math.inf


def _by_power_law(course: Course, law: Fitted, threshold: float) -> Rounds | None:
    """Return the rounds along a + b (r + c)^-p: at a distance y - a it falls by p (y - a) / (r + c) a round."""
    speed = -course.motion.change / (len(course.tail) * (1.0 - 1.0 / BLOCKS))
    centre = float(np.median(course.tail))

    def needed(limit: float, shape: float) -> float:
        if threshold <= limit or centre <= limit:
            return math.inf
        age = shape * (centre - limit) / speed
        ratio: float = ((centre - limit) / (threshold - limit)) ** (1.0 / shape)
        return age * (ratio - 1.0) - 0.5 * len(course.tail)

    estimate = needed(law.limit, law.shape)
    if math.isinf(estimate):
        return None
    ends = [needed(limit, shape) for limit in law.limits for shape in law.shapes]
    scale = _between(course)
    return Rounds(*(scale * max(value, 0.0) for value in (estimate, min(estimate, *ends), max(estimate, *ends))))


def _between(course: Course) -> float:
    """Return the rounds between two measurements."""
    return float(course.rounds[-1] - course.rounds[0]) / (len(course) - 1) if len(course) > 1 else 1.0
