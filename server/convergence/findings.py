"""What a record knows beside the criteria: overfitting, nothing learnt, a path to a biased point. A clause each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from server.convergence.facts import METRICS, facts_of, label_of, shown
from server.convergence.noise import CLEAR, WINDOW, deviation, direction
from server.convergence.rates.rate import NoTrend, Rate, fit_rate
from server.convergence.rates.recursion import LONGEST

Line = Mapping[str, Any]
Series = list[tuple[int, float]]
LEARNT_ON = ("optimality_gap", "validation_frechet_distance", "validation_loss", "train_loss")
"""Losses that what was learnt is judged by: the first that the record has."""
_SCORES = ("validation_accuracy", "validation_balanced_accuracy")
_FEWEST = 5
_ROUNDING = 1e-6
"""Relative rounding of a loss in float32."""
_AT_REST = 0.05
"""Steps tend to 0 where their limit is below this share of the longest."""


def findings(lines: Sequence[Line]) -> tuple[str, ...]:
    """Return what the record knows that the criteria do not say, as clauses; none for rounds without an aggregate.

    Example:
        >>> losses = [2.3, 1.0, 0.5, 0.3, 0.31, 0.33, 0.35, 0.37, 0.39, 0.41]
        >>> findings([{"round": r, "validation_loss": v, "train_loss": 2.3 / (r + 1)} for r, v in enumerate(losses)])[0]
        'validation loss rose for 6 rounds, from its best 0.3 in round 3 to 0.41, while training loss fell: it overfits'
    """
    facts = [(int(line["round"]), facts_of(line)) for line in lines]

    def series(name: str) -> Series:
        return [(r, float(v)) for r, f in facts if (v := f.get(name)) is not None and np.isfinite(v)]

    name, learnt = next(((n, found) for n in LEARNT_ON if len(found := series(n)) >= _FEWEST), ("", []))
    values, steps = [value for _, value in learnt], [value for _, value in series("step_norm")]
    learnt_otherwise = any(_learnt_by(name, series(name)) for name in (*_SCORES, "train_loss"))
    known = bool(series("optimality_gap"))  # of one known objective: there is nothing to overfit
    clauses = (
        "" if known else _overfits(series("validation_loss"), series("train_loss")),
        "" if learnt_otherwise else _learnt_nothing(name, values),
        _is_biased(name, values, steps),
    )
    return tuple(clause for clause in clauses if clause)


def _overfits(validation: Series, train: Series) -> str:
    """Say since when the validation loss rises while the training loss falls."""
    if len(validation) < 2 * _FEWEST:
        return ""
    at = min(range(len(validation)), key=lambda i: validation[i][1])
    best, lowest = validation[at]
    since = [value for _, value in validation[at + 1 :]]
    if at == 0 or len(since) < _FEWEST:
        return ""
    rise = statistics.median(since[-3:]) - lowest
    before = [value for r, value in train if r <= best][-3:]
    after = [value for r, value in train if r > best][-3:]
    falls = before and after and statistics.median(after) < statistics.median(before)
    if not falls or rise <= CLEAR * deviation(since[-WINDOW:]) + _ROUNDING * abs(lowest):
        return ""
    rounds = validation[-1][0] - best
    course = f"from its best {shown(lowest)} in round {best} to {shown(since[-1])}"
    return f"validation loss rose for {rounds} rounds, {course}, while training loss fell: it overfits"


def _learnt_by(name: str, found: Series) -> bool:
    """Return whether a measure is clearly better at the end than at its start, whatever another loss does."""
    values = [value for _, value in found]
    if len(values) < _FEWEST:
        return False
    sign = 1.0 if METRICS[name] else -1.0
    gain = sign * (statistics.median(values[-_FEWEST:]) - values[0])
    return gain > CLEAR * deviation(values[1:][-WINDOW:]) + _ROUNDING * abs(values[0])


def _learnt_nothing(name: str, values: Sequence[float]) -> str:
    """Say that a loss never fell below its start by more than noise."""
    if len(values) < _FEWEST:
        return ""
    first, noise = values[0], deviation(values[1:][-WINDOW:])
    fell = first - min(values)
    newest = first - statistics.median(values[-_FEWEST:])
    rounding = _ROUNDING * abs(first)
    if newest < 0.0 and direction(values) > 0:
        return ""  # it explodes: that is another finding, and its scatter is no noise
    if fell > CLEAR * noise + rounding or newest > noise + rounding:
        return ""
    if fell <= rounding and newest <= -CLEAR * noise - rounding:
        return ""  # it rose: that is another finding
    return f"{label_of(name)} never fell below its start {shown(first)} by more than its noise: nothing was learnt"


def shrinking(steps: Sequence[float]) -> Rate | None:
    """Return the rate at which the server's steps shrink to 0; None where they do not."""
    found = fit_rate(steps, window=LONGEST)
    if isinstance(found, NoTrend):
        return None
    found = found.no_lower(0.0)
    return found if found.high < 1.0 and found.limit <= _AT_REST * max(steps) else None


def _is_biased(name: str, values: Sequence[float], steps: Sequence[float]) -> str:
    """Say that the iterates contract while the loss rises: a path to a point that does not minimise it."""
    if len(values) < _FEWEST or len(steps) < _FEWEST:
        return ""
    least = min(values)
    rise = values[-1] - least
    if rise <= CLEAR * deviation(values[-_FEWEST:]) or rise < 0.5 * (max(values) - least):
        return ""
    rate = shrinking(steps)
    if rate is None or steps[-1] > 0.5 * max(steps):
        return ""
    return (
        f"{label_of(name)} rises to a floor while the steps shrink by the factor {rate.factor:.3g} a round: it "
        "converges to a biased point"
    )
