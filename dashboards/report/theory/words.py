"""A probed round in words: totals of drift by cause, what theory predicts, and where its assumptions fail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dashboards.report.formats import number

NAMES = {"local_steps": "local steps", "heterogeneity": "heterogeneity", "gradient_noise": "gradient noise",
         "client_sampling": "client sampling"}  # fmt: skip
"""The causes, in the order in which they are switched on, with their names."""


def probe_words(probe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words of a probed round.

    Returns:
        `round`; `drift` and `theory`, sentences or empty; `warnings`, on assumptions that fail and on parts that could
        not be measured; `remarks`, on what a prediction leaves out.
    """
    theory, drift = probe["theory"], probe["drift_by_cause"]
    missing = [f"No {part.replace('_', ' ')}: {why.rstrip('.')}." for part, why in probe["not_measured"].items()]
    failures = list(theory["failures"]) if theory else []
    return {
        "round": probe["round_index"],
        "drift": _drift(drift) if drift else "",
        "theory": _theory(theory) if theory else "",
        "warnings": [*(f"No prediction: {sentence}" for sentence in failures), *missing],
        "remarks": list(theory["remarks"]) if theory else [],
    }


def _drift(drift: Mapping[str, Any]) -> str:
    """Return the totals of drift by cause."""
    square = drift["ideal_square"]
    relative = math.isfinite(square) and square > 0
    scale, unit = (square, " of the ideal's squared norm") if relative else (1.0, ", squared")

    def shown(value: float, error: float) -> str:
        return number(value / scale) + (f" ± {number(error / scale, 1)}" if math.isfinite(error) and error else "")

    causes, above = drift["causes"], {name: max(0.0, value) for name, value in drift["causes"].items()}
    words = f"Drift by cause: expected squared error {shown(drift['total'], drift['errors']['total'])}{unit}"
    main = max(NAMES, key=lambda name: causes[name])
    whole = sum(above[name] for name in NAMES)
    if whole > 0 and math.isfinite(whole):
        words += f"; the largest cause is {NAMES[main]}, {above[main] / whole:.0%} of the causes"
    if math.isfinite(drift["observed"]):
        words += f"; rounds that were played show {shown(drift['observed'], drift['observed_error'])}"
    return words + "."


def _theory(theory: Mapping[str, Any]) -> str:
    """Return limit, factor and floor."""
    words = f"Local rate {number(theory['local_lr'])}"
    if theory["limit"] is not None:
        words += f", limit 2 / L = {number(theory['limit'])}"
    if theory["steepest_limit"] is not None:
        words += f" ({number(theory['steepest_limit'])} of the steepest client)"
    if theory["contraction"] is not None:
        words += f"; predicted factor {number(theory['contraction'], 4)} a round for the distance to the limit"
    if theory["floor"] is not None:
        low, high = theory["floor"]["low"], theory["floor"]["high"]
        words += f", and a floor of {number(low)} to {number(high)} above the limit's loss"
    return words + "."
