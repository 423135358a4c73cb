"""What a tuning found, as the page shows it: the best values, how flat the optimum is, and the trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.report.compared_measures import MEASURES, Measure
from dashboards.report.formats import is_number, number
from dashboards.study.interactions import factor_text
from dashboards.study.ranking import FORMATS

MOST_TRIALS = 1000
"""Trials of an arm that are drawn: the first ones."""


def tuning_view(tuned: Any) -> list[dict[str, Any]]:
    """Return what each arm's tuning found, as JSON values.

    Args:
        tuned: what `simulator.tuning` writes (`TunedArms.to_dict`): under `arms` a table by an arm's name; anything
            else is no tuning.

    Returns:
        For each arm `name`, `words` (sentences), `measure`, `format`, `better`, `keys` (the parameters), `flat` (rows
        of text: parameter, best value, values about as good, importance), and `trials` with `value`, `missed`, and the
        `values` of the parameters.
    """
    arms = _table(_table(tuned).get("arms"))
    return [_one({**one, "name": name}) for name, one in arms.items() if isinstance(one, Mapping)]


def tuning_words(tuned: Any) -> list[str]:
    """Return sentences on the budget of the tuning, which every arm has alike."""
    words = _table(tuned).get("sentences")
    return [str(one) for one in words] if isinstance(words, list) else []


def _one(tuned: Mapping[str, Any]) -> dict[str, Any]:
    measures = {measure.key: measure for measure in MEASURES}
    measure = measures.get(str(tuned.get("measure")))
    trials = _tables(tuned.get("trials"))
    complete = [trial for trial in trials if trial.get("state") == "complete" and is_number(trial.get("value"))]
    flat = _tables(tuned.get("flatness"))
    keys = list(dict.fromkeys(key for trial in complete for key in _table(trial.get("values"))))
    return {
        "name": str(tuned.get("name") or ""),
        "measure": measure.name if measure else str(tuned.get("measure") or ""),
        "format": FORMATS.get(measure.shown, "number") if measure else "number",
        "better": tuned.get("better"),
        "words": [*_words(tuned, measure, trials, len(complete)), *map(str, tuned.get("notes") or ())],
        "keys": keys,
        "flat": [_flat(part) for part in flat],
        "trials": [
            {"value": trial["value"], "missed": bool(trial.get("at_least")),
             "values": [_value(_table(trial.get("values")).get(key)) for key in keys]}
            for trial in complete[:MOST_TRIALS]
        ],
    }  # fmt: skip


def _words(tuned: Mapping[str, Any], measure: Measure | None, trials: Sequence[Any], complete: int) -> list[str]:
    """Return what was tried and found."""
    shown = measure.shown if measure else number
    name = measure.spoken if measure else str(tuned.get("measure"))
    seeds = ", ".join(str(seed) for seed in tuned.get("seeds") or ())
    found = [f"{len(trials)} trials, {complete} of them complete; each is the median of the {name} over seeds {seeds}."]
    if is_number(value := tuned.get("value")):
        best = ", ".join(f"{key} {factor_text(one)}" for key, one in _table(tuned.get("best")).items())
        bound = "at least " if tuned.get("at_least") else ""
        own = f"; the scenario's own values give {shown(tuned['untuned'])}" if is_number(tuned.get("untuned")) else ""
        found.append(f"Best: {bound}{shown(value)} with {best}{own}.")
        if is_number(within := tuned.get("within")):
            found.append(
                f"{tuned.get('as_good', 0)} of {complete} complete trials are within {within:.0%} of the best."
            )
    return found


def _flat(part: Mapping[str, Any]) -> list[str]:
    """Return a parameter, its best value, the values that are about as good, its importance."""
    low, high, choices = part.get("low"), part.get("high"), part.get("choices")
    if is_number(low) and is_number(high):
        spread = f"{low:.4g} alone" if low == high else f"{low:.4g} to {high:.4g}"
    else:
        spread = " or ".join(str(choice) for choice in choices or ()) or "–"
    edge = ", at an end of its range" if part.get("at_edge") else ""
    importance = part.get("importance")
    best = part.get("best")
    return [str(part.get("key")), (f"{best:.4g}" if is_number(best) else factor_text(best)) + edge, spread,
            f"{importance:.0%}" if is_number(importance) else "–"]  # fmt: skip


def _value(value: Any) -> Any:
    return value if is_number(value) or isinstance(value, str | None) else json.dumps(value, default=str)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tables(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []
