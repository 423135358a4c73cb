"""Causes in the course of the run: too few rounds, concept drift."""

from __future__ import annotations

import math

import numpy as np

from clients.core.arrays import F64
from server.convergence.facts import label_of, shown
from server.convergence.noise import deviation, direction
from server.diagnosis.evidence import Evidence
from server.diagnosis.finding import NOTHING, Change, Sign

FALL = 0.05
"""Share of what was gained that the last fifth of the rounds gained."""
LEFT = 0.05
"""Share of what was gained that three times the rounds would gain, at the present slowing down."""
MORE_THIRDS, SLOWEST = 6, 0.8
"""Thirds of the run in the rounds that are added to it, and the largest share that a third brings of the one before."""
FEW, SHORT = 15.0, 0.03
"""Rounds that are few, and the share of the way to the reference that is left after them."""
JUMP, CLEAR = 0.06, 4.0
"""Share of what was gained that a drift lost, and deviations of the noise before it."""


def too_few_rounds(e: Evidence) -> Sign:
    """The loss still falls at the end, beyond its noise."""
    values = e.loss
    if len(values) < 4 or e.ruined:
        return NOTHING
    fell = _fell(values)
    words = (
        f"{label_of(e.loss_name)} fell by {shown(fell)} in the last fifth of the rounds, "
        f"{fell / e.scale:.0%} of all it gained",
        f"at the pace at which it slows down, three times the rounds would gain {shown(_left(values))}",
        *e.short_words,
    )
    half = len(values) // 2
    fell_late = float(np.median(values[half:])) < float(np.median(values[:half]))
    short = min(e.shortfall / SHORT, FEW / max(1, e.rounds)) if fell_late else 0.0
    return Sign(max(short, falling(e)) * _open_to_rounds(e), words)


def _open_to_rounds(e: Evidence) -> float:
    """Return the share of the shortfall that the run's model makes up on the pooled sample; 1 where it is unknown."""
    pooled = e.pooled_shortfall
    return 1.0 if pooled is None or e.shortfall <= 0 else float(np.clip(1.0 - pooled / e.shortfall, 0.0, 1.0))


def falling(e: Evidence) -> float:
    """Return how clearly the loss still falls at the end of the run, in units of the threshold, >= 0."""
    values = e.loss
    if len(values) < 4 or e.diverged:
        return 0.0
    fell = _fell(values)
    error = max(2.0 * e.noise / math.sqrt(max(1, len(values) // 5)), 1e-12)
    clear = math.inf if direction(values.tolist()) < 0 else fell / error
    return max(0.0, min(max(fell / FALL, _left(values) / LEFT) / e.scale, clear))


def _fell(values: F64) -> float:
    """Return how far the median of the last fifth of the losses lies below that of the fifth before."""
    fifth = max(1, len(values) // 5)
    return float(np.median(values[-2 * fifth : -fifth]) - np.median(values[-fifth:]))


def _left(values: F64) -> float:
    """Return how far a loss falls with three times the rounds, >= 0.

    Each third of the rounds is taken to bring the same share of what the third before it brought.
    """
    if len(values) < 6:
        return float(max(values[-2] - values[-1], 0.0))
    third = len(values) // 3
    width = max(1, third // 4)
    ends = [
        float(np.median(values[max(0, at - width) : at]))
        for at in (len(values) - 2 * third, len(values) - third, len(values))
    ]
    first, second = ends[0] - ends[1], ends[1] - ends[2]
    if first <= 0 or second <= 0:
        return max(second, 0.0)
    share = min(second / first, SLOWEST)
    return second * share * (1.0 - share**MORE_THIRDS) / (1.0 - share)


def more_rounds(e: Evidence) -> Change:
    """Return three times the rounds."""
    return Change({"run.rounds": 3 * max(1, e.rounds)}, "run three times as many rounds")


def concept_drift(e: Evidence) -> Sign:
    """The loss jumps where a drift of the scenario begins, or where every client's loss jumps at once."""
    starts = drift_starts(e)
    rounds, values = e.series(e.loss_name)
    best = NOTHING
    for name, start in starts.items():
        before, after = values[(rounds < start) & (rounds >= start - 8)], values[rounds >= start]
        if not len(before) or not len(after):
            continue
        rise = float(after[: max(3, len(after) // 2)].max() - np.median(before))
        last = float(np.median(after[-3:]) - np.median(before))
        words = (
            f"{label_of(e.loss_name)} rose by {shown(rise)} after the drift '{name}' began in round {start:.0f}",
            f"at the end it is {shown(abs(last))} {'above' if last > 0 else 'below'} its value before",
        )
        noise = deviation(before.tolist())
        found = Sign(
            min(rise / e.scale / JUMP, rise / max(CLEAR * noise, 1e-12), 10.0), words, round_index=round(start)
        )
        best = found if found.strength > best.strength else best
    return best


def drift_starts(e: Evidence) -> dict[str, float]:
    """Return the round after which each concept drift of the scenario begins, by name; those in hours left out."""
    drifts = e.get("drifts") or {}
    return {
        name: float(d.get("start", 0.0))
        for name, d in drifts.items()
        if d.get("unit", "rounds") == "rounds" and d.get("strength", 1.0)
    }


def follow_drift(e: Evidence) -> Change:
    """Return more rounds after the drift."""
    return Change({"run.rounds": 2 * max(1, e.rounds)}, "train on after the drift, or start again from it")
