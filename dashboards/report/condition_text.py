"""The condition of a run, the signs of convergence and the best model in words, for the console and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards.report.formats import is_number, number
from server.convergence.facts import label_of

Facts = Mapping[str, Any]
SIGNS = {
    "parameters_settle": "parameters settle",
    "outputs_agree": "outputs agree",
    "validation_plateaus": "validation plateaus beside training",
}
"""The three signs of convergence, as people read them."""
HAPPENED, SIGNS_ROW = "what happened", "signs"
"""Names of the rows of `reached` that a page draws apart."""


def happened(outcome: Facts) -> str:
    """Return the condition of a run as a sentence; empty in records of earlier versions.

    Example:
        >>> happened({"condition": {"kind": "stuck", "words": "it is stuck: training loss never left 2.3"}})
        'It is stuck: training loss never left 2.3.'
    """
    words = str((outcome.get("condition") or {}).get("words") or "")
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def sign_rows(outcome: Facts) -> list[tuple[str, str, str]]:
    """Return the signs of convergence as rows of (sign, yes, no or not measured, why)."""
    return [
        (SIGNS.get(str(sign.get("name")), str(sign.get("name"))), str(sign.get("says")).replace("_", " "),
         str(sign.get("words") or ""))
        for sign in outcome.get("signs") or ()
    ]  # fmt: skip


def best_model_words(outcome: Facts) -> str:
    """Return which model is the best by validation, and which is the last; empty without a best one.

    Example:
        >>> best_model_words({"best_model": {"round": 9, "metric": "validation_loss", "value": 0.2279},
        ...                   "last_finite_round": 60})
        'that of round 9, validation loss 0.228   (model.best.safetensors; model.safetensors has the last, round 60)'
    """
    best, last = outcome.get("best_model") or {}, outcome.get("last_finite_round")
    if not is_number(best.get("value")):
        return ""
    words = f"that of round {best['round']}, {label_of(str(best.get('metric')))} {number(best['value'])}"
    if last == best["round"]:
        return f"{words}   (also the last: model.best.safetensors and model.safetensors are equal)"
    files = f"; model.safetensors has the last, round {last}" if is_number(last) else ""
    return f"{words}   (model.best.safetensors{files})"
