"""What the console says of a round while it runs, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dashboards.report.formats import is_number, number, share

Facts = Mapping[str, Any]


def measures(line: Facts) -> str:
    """Return a round's loss, score, drift and dispersion, those that were measured."""
    parts = []
    loss = "validation_loss" if line.get("validation_loss") is not None else "train_loss"
    if line.get(loss) is not None:
        parts.append(f"{'loss' if loss == 'validation_loss' else 'train loss'} {number(line[loss])}")
    if line.get("validation_accuracy") is not None:
        parts.append(f"accuracy {share(line['validation_accuracy'])}")
    elif line.get("validation_error") is not None:
        parts.append(f"error {number(line['validation_error'])}")
    drift = line.get("client_drift")
    drift = drift.get("mean") if isinstance(drift, Mapping) else drift
    parts += [f"drift {number(drift)}"] if drift is not None else []
    dispersion = line.get("update_dispersion")
    parts += [f"dispersion {number(dispersion)}"] if dispersion is not None else []
    return "  ".join(parts)


def nearing(criteria: Mapping[str, Facts], most: int) -> str:
    """Return how near each criterion is, the nearest first.

    Example:
        >>> nearing({"settled": {"value": 8e-4, "threshold": 1e-3, "held": 0, "needed": 2},
        ...          "plateau": {"held": 3, "needed": 5}}, 4)
        'plateau 3/5 · settled 0.8x'
    """
    looks = sorted(criteria.items(), key=lambda item: _distance(item[1]))
    return " · ".join(_nearness(name.replace("_", " "), look) for name, look in looks[:most])


def _distance(look: Facts) -> float:
    """Return how far a criterion is from holding, for ordering only."""
    if look.get("holds"):
        return -1.0
    distance = look.get("distance")
    if distance is not None:
        return distance if is_number(distance) else math.inf
    return 1.0 - (look.get("held") or 0) / max(look.get("needed") or 1, 1)


def _nearness(name: str, look: Facts) -> str:
    """Return one criterion's state in a few words."""
    held, needed, words = look.get("held") or 0, look.get("needed") or 1, str(look.get("words") or "")
    value, threshold = look.get("value"), look.get("threshold")
    if look.get("holds"):
        return f"{name} holds"
    if held and needed > 1:
        return f"{name} {held}/{needed}"
    if words and len(words) <= 24:
        return words
    if is_number(value) and is_number(threshold) and threshold:
        return f"{name} {number(value / threshold, 2)}x"
    return f"{name} {held}/{needed}"


def pace(line: Facts) -> str:
    """Return clients a second, given or from the round's wall time; empty where unknown."""
    rate = line.get("clients_per_second")
    if rate is None and line.get("respondents") and line.get("wall_seconds"):
        rate = line["respondents"] / line["wall_seconds"]
    return f"{rate:,.0f} clients/s" if is_number(rate) else ""
