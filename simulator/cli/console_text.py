"""The text of a round for the console."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dashboards.report.formats import clock_time, is_number, number, share
from dashboards.report.run_text import criterion_label
from server.convergence.criteria import CRITERIA

Facts = Mapping[str, Any]


def measures(line: Facts) -> str:
    """Return the measured ones of a round's loss, score, drift and dispersion, in words."""
    parts = []
    loss = "validation_loss" if line.get("validation_loss") is not None else "train_loss"
    if line.get(loss) is not None:
        parts.append(f"{'loss' if loss == 'validation_loss' else 'training loss'} {number(line[loss])}")
    if line.get("validation_accuracy") is not None:
        parts.append(f"accuracy {share(line['validation_accuracy'])}")
    elif line.get("validation_error") is not None:
        parts.append(f"error {number(line['validation_error'])}")
    if line.get("optimality_gap") is not None:
        parts.append(f"gap {number(line['optimality_gap'])}")
    if line.get("distance_to_optimum") is not None:
        parts.append(f"distance {number(line['distance_to_optimum'])}")
    drift = line.get("client_drift")
    drift = drift.get("mean") if isinstance(drift, Mapping) else drift
    parts += [f"drift {number(drift)}"] if drift is not None else []
    dispersion = line.get("update_dispersion")
    parts += [f"dispersion {number(dispersion)}"] if dispersion is not None else []
    return "  ".join(parts)


def nearing(criteria: Mapping[str, Facts], most: int) -> str:
    """Return how near each criterion is, the nearest first.

    A criterion shows the rounds in which its condition was met and the rounds it needs; before its condition is met,
    its value with an arrow to its threshold.

    Example:
        >>> nearing({"target": {"value": 0.69, "threshold": 0.9, "held": 0, "needed": 2},
        ...          "plateau": {"held": 3, "needed": 5}}, 4)
        'plateau 3/5 · target 0.69 → 0.9'
    """
    states = sorted(criteria.items(), key=lambda item: _distance(item[1]))
    return " · ".join(_nearness(name, state) for name, state in states[:most])


def _distance(state: Facts) -> float:
    """Return how far a criterion is from holding, for ordering only."""
    if state.get("holds"):
        return -1.0
    distance = state.get("distance")
    if distance is not None:
        return distance if is_number(distance) else math.inf
    return 1.0 - (state.get("held") or 0) / max(state.get("needed") or 1, 1)


def _nearness(name: str, state: Facts) -> str:
    """Return one criterion's state in a few words."""
    held, needed = state.get("held") or 0, state.get("needed") or 1
    value, threshold = state.get("value"), state.get("threshold")
    label, counts = criterion_label(name), name in CRITERIA and CRITERIA[name].counts
    if state.get("holds"):
        return f"{label} holds"
    if is_number(state.get("distance", 0.0)) and (counts or held or not is_number(threshold)):
        return f"{label} {held}/{needed}"
    if is_number(value) and is_number(threshold):
        return f"{label} {number(value)} → {number(threshold)}"
    return f"{label} not finite" if is_number(threshold) else f"{label} not measured"


def progress(facts: Facts) -> str:
    """Return how far a phase of a round is, and about how long it still takes.

    Example:
        >>> progress({"phase": "training", "done": 8590, "of": 19968, "unit": "batches", "seconds": 22.0})
        'training 43%, 8,590 of 19,968 batches, about 0:29 left'
        >>> progress({"phase": "evaluation", "done": 0, "of": 0, "unit": "examples", "seconds": 3.0})
        'evaluation'
    """
    done, of = facts.get("done") or 0, facts.get("of") or 0
    phase = str(facts.get("phase", ""))
    if not done or not of:
        return phase
    part = min(done / of, 1.0)
    words = f"{phase} {math.floor(100 * part)}%, {done:,} of {of:,} {facts.get('unit', '')}"
    seconds = facts.get("seconds")
    return words + (f", about {clock_time(seconds * (1 / part - 1))} left" if is_number(seconds) and part < 1 else "")


def pace(line: Facts) -> str:
    """Return clients a second, as recorded or from the round's wall time; empty if unknown."""
    rate = line.get("clients_per_second")
    if rate is None and line.get("respondents") and line.get("wall_seconds"):
        rate = line["respondents"] / line["wall_seconds"]
    if not is_number(rate):
        return ""
    return f"{rate:,.0f} clients/s" if rate >= 10 else f"{rate:.2g} clients/s"
