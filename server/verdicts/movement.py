"""How far a loss is from rest: what it still has to fall, since when it is level, and the rounds to a target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from server.convergence.outcome import fit_whole
from server.convergence.rates.families import Fitted, fit_families
from server.convergence.rates.rate import Rate
from server.convergence.rates.recursion import LONGEST
from server.verdicts.course import Course, motion_of
from server.verdicts.thresholds import BLOCKS, FEWEST, STRAIGHT, TAIL

_NORMAL = 1.645
"""Two-sided 90% quantile of the normal distribution."""


@dataclass(frozen=True)
class Rounds:
    """Rounds still needed, with a 90% interval; infinite where the slow end never gets there."""

    estimate: float
    low: float
    high: float


def remaining(course: Course) -> float:
    """Return how far a loss has still to fall, from its falls over the newest third and the third before it.

    Of a geometric fall with falls f0 and f it is f r / (1 - r) with r = f / f0 (Aitken). A straight one has no limit:
    there it is the fall over as many rounds again as `STRAIGHT` thirds. It is 0 where the newest third does not
    clearly fall.

    Example:
        >>> import numpy as np
        >>> falls = Course("loss", np.arange(60), 0.95 ** np.arange(60.0))
        >>> bool(0.7 * 0.95**59 < remaining(falls) < 1.2 * 0.95**59)
        True
    """
    third = max(FEWEST, len(course) // TAIL)
    if not course.motion.falls:
        return 0.0
    fall, before = -course.motion.change, course.values[-2 * third : -third]
    fell = -motion_of(before).change if len(before) >= FEWEST else math.inf
    ratio = min(fall / fell, STRAIGHT / (1.0 + STRAIGHT)) if fell > fall else STRAIGHT / (1.0 + STRAIGHT)
    return fall * ratio / (1.0 - ratio)


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
