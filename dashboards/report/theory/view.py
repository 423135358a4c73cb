"""What probes found as the page draws it: predicted curves, limits of the local rate, stacked causes, words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clients.core.errors import UserError
from clients.core.numbers.spacing import evenly_spaced
from clients.training.schedule_options import ScheduleOptions
from dashboards.report.client_grid import FEWEST_CELLS
from dashboards.report.formats import is_number, number, rounded
from dashboards.report.round_series import tables
from dashboards.report.run_data import Line, RunData
from dashboards.report.theory.prediction import Prediction
from dashboards.report.theory.words import NAMES, probe_words

Probe = Mapping[str, Any]
TOO_MANY = "Probes are not drawn on a page of this many runs."
MOST_BARS, MOST_CURVES, MOST_WORDS = 60, 4, 8
"""The most probed rounds with a bar, with a predicted curve, and with words."""
DIGITS = 6
MOST_POINTS = 240
"""The most points of a curve: predicted courses and schedules are smooth."""
ENDS = (".low", ".high")
"""Ends of the keys of a band."""


def theory_view(run: RunData, cells: int, rounds: int) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return what the page draws of a run's probes, and tables of series; None where no probe was made.

    Args:
        run: the run.
        cells: the cells that a client grid of the run may have, as a measure of the room on the page.
        rounds: rounds that a series may have.

    Returns:
        `predicted` (keys of the predicted curves), `limit` ([2 / L, words] of the last probed round, or None), `bars`,
        `words` (of each probed round), and `left_out`; and tables as `round_series.tables` makes them.
    """
    probes = list({probe["round_index"]: probe for probe in run.probes}.values())
    if not probes:
        return None, []
    if cells < FEWEST_CELLS:
        return {"predicted": [], "limit": None, "bars": None, "words": [], "left_out": [TOO_MANY]}, []
    split = [probe for probe in probes if probe["drift_by_cause"]]
    left_out = [
        f"This run has {len(found):,} probed rounds; {most} of them, evenly spaced, have {what}."
        for found, most, what in ((split, MOST_BARS, "a bar"), (probes, MOST_WORDS, "words"))
        if len(found) > most
    ]
    curves, rates = _curves(run, probes), _rates(run, probes)
    view = {
        "predicted": [key for key in curves if not key.endswith(ENDS)],
        "limit": _last_limit(probes),
        "bars": _bars(_spread(split, MOST_BARS)),
        "words": [probe_words(probe) for probe in _spread(probes, MOST_WORDS)],
        "left_out": left_out,
    }
    return view, _tables(run.lines, curves | rates, min(rounds, MOST_POINTS))


def _spread(found: Sequence[Probe], most: int) -> list[Probe]:
    """Return at most so many, evenly spaced, with the first and the last."""
    return [found[k] for k in evenly_spaced(len(found), most)]


def _tables(lines: Sequence[Line], columns: Mapping[str, Mapping[int, float]], rounds: int) -> list[dict[str, Any]]:
    """Return columns by round as tables of series."""
    own = [
        {key: line[key] for key in ("round", "simulated_seconds_total", "bytes_total", "wall_seconds") if key in line}
        | {key: values[line["round"]] for key, values in columns.items() if line["round"] in values}
        for line in lines
    ]
    return tables(own, [(key,) for key in columns], rounds)


def _curves(run: RunData, probes: Sequence[Probe]) -> dict[str, dict[int, float]]:
    """Return the predicted curves and their bounds by round, by key."""
    made: dict[str, dict[int, float]] = {}
    predictions = {found.round_index: found for found in map(_prediction, probes) if found is not None}
    for probe in _spread([probe for probe in probes if probe["round_index"] in predictions], MOST_CURVES):
        prediction = predictions[probe["round_index"]]
        for column in ("optimality_gap", "objective"):
            start = _measured(run, probe, column)
            rounds = [line["round"] for line in run.lines if line["round"] >= prediction.round_index and column in line]
            if start is None or len(rounds) < 2:
                continue
            drawn = (prediction.of_gap if column == "optimality_gap" else prediction.of_loss)(
                start, np.array(rounds, np.float64)
            )
            if drawn is not None:
                key = f"theory.{column}.{prediction.round_index}"
                made |= {
                    key + end: dict(zip(rounds, values.tolist(), strict=True))
                    for end, values in zip(("", *ENDS), drawn, strict=True)
                }
    return made


def _measured(run: RunData, probe: Probe, column: str) -> float | None:
    """Return a loss in the probed round; None where it is not that of the prediction, or was not measured."""
    local = run.scenario.get("local")
    if column == "optimality_gap" and isinstance(local, Mapping) and local.get("l2"):
        return None  # the gap is of the data's objective, without penalties
    line = next((line for line in run.lines if line["round"] == probe["round_index"]), {})
    value = line.get(column)
    if value is None and column == "objective" and probe["measure"] == "objective":
        value = probe["before"]
    return float(value) if is_number(value) else None


def _prediction(probe: Probe) -> Prediction | None:
    """Return what theory predicts from a probed round on; None where it predicts nothing, or only a part."""
    theory = probe["theory"] or {}
    floor, factors, gap = (theory.get(name) for name in ("floor", "factors", "gap"))
    if theory.get("contraction") is None or not floor or not factors:
        return None
    pair = (gap["low"], gap["high"]) if gap else None
    numbers = (theory["contraction"], factors["low"], factors["high"], floor["low"], floor["high"])
    if not all(math.isfinite(value) and value >= 0 for value in (*numbers, *(pair or ()))) or max(numbers[:3]) >= 1:
        return None
    return Prediction(int(probe["round_index"]), *numbers, pair)


def _rates(run: RunData, probes: Sequence[Probe]) -> dict[str, dict[int, float]]:
    """Return the local rate and its limits by round, by key; empty where no limit is known."""
    known = {probe["round_index"]: probe["theory"] for probe in probes if _limit(probe) is not None}
    if not known:
        return {}
    kept = {probe["round_index"] for probe in _spread([p for p in probes if p["round_index"] in known], MOST_BARS)}
    found = {
        key: {r: theory[name] for r, theory in known.items() if r in kept and is_number(theory[name])}
        for key, name in (("theory.limit", "limit"), ("theory.steepest_limit", "steepest_limit"))
    }
    measured = {r: float(theory["local_lr"]) for r, theory in known.items()}
    rates = _local_rates(run.scenario, [line["round"] for line in run.lines])
    if not rates or any(not math.isclose(rates.get(r, rate), rate) for r, rate in measured.items()):
        rates = {r: rate for r, rate in measured.items() if r in kept}  # such as of an algorithm that sets its own
    return {"theory.local_lr": rates} | found


def _limit(probe: Probe) -> float | None:
    """Return 2 / L in a probed round; None where there is none."""
    value = (probe["theory"] or {}).get("limit")
    return float(value) if is_number(value) else None


def _last_limit(probes: Sequence[Probe]) -> tuple[float, str] | None:
    """Return 2 / L of the last probed round that has it, with its words."""
    known = {probe["round_index"]: _limit(probe) for probe in probes}
    last = max((r for r, value in known.items() if value is not None), default=None)
    value = known[last] if last is not None else None
    return None if value is None else (value, f"2 / L = {number(value)} in round {last:,}")


def _local_rates(scenario: Mapping[str, Any], rounds: Sequence[int]) -> dict[int, float]:
    """Return the local rate of the round after each of some rounds; empty where the scenario does not tell."""
    local = scenario.get("local")
    rate = local.get("local_lr") if isinstance(local, Mapping) else None
    if not isinstance(local, Mapping) or not is_number(rate):
        return {}
    table = local.get("schedule") or {}
    try:
        schedule = ScheduleOptions(**{**table, "at": tuple(table.get("at") or ())})
        return {r: rate * schedule.scale(r + 1) for r in rounds}
    except (UserError, TypeError, ValueError, AttributeError, ArithmeticError):  # a damaged or a foreign scenario
        return {}


def _bars(probes: Sequence[Probe]) -> dict[str, Any] | None:
    """Return the parts of each probed round, as shares of the ideal's squared norm where no ideal is 0."""
    if not probes:
        return None
    drifts = [probe["drift_by_cause"] for probe in probes]
    relative = all(math.isfinite(drift["ideal_square"]) and drift["ideal_square"] > 0 for drift in drifts)
    scales = [drift["ideal_square"] if relative else 1.0 for drift in drifts]

    def shown(values: Sequence[float]) -> list[float | None]:
        return _short([value / scale for value, scale in zip(values, scales, strict=True)])

    parts = [(words, shown([drift["causes"][name] for drift in drifts])) for name, words in NAMES.items()]
    return {
        "rounds": [probe["round_index"] for probe in probes],
        "unit": "squared error, in squared norms of the ideal" if relative else "squared error of parameters",
        "parts": [*parts, ("residual", shown([drift["residual"] for drift in drifts]))],
        "totals": shown([drift["total"] for drift in drifts]),
        "errors": shown([drift["errors"]["total"] for drift in drifts]),
    }


def _short(values: Sequence[float | None]) -> list[float | None]:
    return [rounded(value, DIGITS) for value in values]
