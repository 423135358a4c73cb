"""Causes in the course of the run: too few rounds, concept drift."""

from __future__ import annotations

import math

import numpy as np

from clients.core.arrays import F64
from server.convergence.facts import label_of, shown
from server.convergence.noise import deviation, direction
from server.diagnosis.evidence import Evidence
from server.diagnosis.finding import NOTHING, Change, Sign
from server.verdicts.course import Course
from server.verdicts.movement import Outlook, outlook
from server.verdicts.thresholds import FEWEST

LEFT = 0.05
"""Share of what was gained that three times the rounds would gain: less is a healthy run's."""
LIKELY = 0.8
"""Probability from which such a fall is a cause to try; a condition states it as a fact from 0.9 on."""
FORESEEN = 1.1
"""The largest strength of a foreseen fall: causes that make it slow rank before it."""
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
        f"three times the rounds would lower it by about {shown(_foreseen(e).fall)}",
        *e.short_words,
    )
    half = len(values) // 2
    fell_late = float(np.median(values[half:])) < float(np.median(values[:half]))
    few = FEW / max(1, e.rounds)
    short = min(few, math.sqrt(few * e.shortfall / SHORT)) if fell_late else 0.0  # the fewer, the less is enough
    return Sign(max(short, min(falling(e), FORESEEN)) * _open_to_rounds(e), words)


def _open_to_rounds(e: Evidence) -> float:
    """Return the share of the shortfall that the run's model makes up on the pooled sample; 1 where it is unknown."""
    pooled = e.pooled_shortfall
    return 1.0 if pooled is None or e.shortfall <= 0 else float(np.clip(1.0 - pooled / e.shortfall, 0.0, 1.0))


def falling(e: Evidence) -> float:
    """Return how far the loss will still fall, in units of the threshold, >= 0; below 1 where it is not likely to."""
    if len(e.loss) < 4 or e.diverged:
        return 0.0
    found = _foreseen(e)
    fall = found.fall / (LEFT * e.scale)
    return fall if found.chance >= LIKELY else min(fall, found.chance / LIKELY)


def _fell(values: F64) -> float:
    """Return how far the median of the last fifth of the losses lies below that of the fifth before."""
    fifth = max(1, len(values) // 5)
    return float(np.median(values[-2 * fifth : -fifth]) - np.median(values[-fifth:]))


def _foreseen(e: Evidence) -> Outlook:
    """Return how far the loss falls with three times the rounds, as the run's condition foresees it.

    Fewer than `FEWEST` values tell no shape: the last step is taken to be repeated once, surely where all steps fall.
    """
    rounds, values = e.series(e.loss_name)
    if len(values) < FEWEST:
        return Outlook(max(0.0, float(values[-2] - values[-1])), float(direction(values.tolist()) < 0))
    last_drift = max(drift_starts(e).values(), default=0)
    since = int(np.searchsorted(rounds, last_drift))
    start = since if len(values) - since >= 2 * FEWEST else 0
    return outlook(Course(e.loss_name, rounds[start:].astype(np.int64), values[start:]), LEFT * e.scale)


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
