"""One run as the page draws it: words, tables of series, the client grid, the partition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.report import condition_text, round_series, run_text
from dashboards.report.client_grid import METRICS, client_grid
from dashboards.report.formats import count, is_number, number, share
from dashboards.report.run_data import RunData
from dashboards.report.surface.view import surface_view
from dashboards.report.theory.view import theory_view
from dashboards.report.views.city_view import city_view, event_rows
from dashboards.report.views.explanation_view import explanation_view
from dashboards.report.views.forecast_view import forecast_view
from dashboards.report.views.sample_view import sample_view
from server.convergence.facts import FACTS, label_of
from server.convergence.outcome import widest

MOST_EVENTS, MOST_WIDEST = 100, 8
Grid = dict[str, Any] | None


@dataclass(frozen=True)
class Budget:
    """How much of a run a page may hold.

    Attributes:
        rounds: rounds a series may have.
        cells: cells of each client grid; 0 leaves the grids out.
        bands: whether outer quantiles and layers are drawn.
    """

    rounds: int = 1200
    cells: int = 120_000
    bands: bool = True


def share_out(runs: int) -> Budget:
    """Return the budget of each of several runs on one page, so that the page stays below 5 MB.

    Example:
        >>> share_out(1) == Budget(), share_out(20).rounds
        (True, 225)
    """
    if runs == 1:
        return Budget()
    return Budget(max(60, min(1200, 4500 // runs)), 120_000 // runs, runs <= 20)


def run_view(
    run: RunData, budget: Budget | None = None, grid_of: Callable[[RunData, Budget], Grid] | None = None
) -> dict[str, Any]:
    """Return everything the page shows of a run, as JSON values.

    Args:
        run: the run.
        budget: how much of it; by default as much as fits on a page of one run.
        grid_of: reads the client grid; by default `read_grid`.
    """
    budget = budget or Budget()
    lines, facts = run.lines, run.facts
    series = round_series.tables(lines, round_series.paths_of(lines, bands=budget.bands), budget.rounds)
    grid = (grid_of or read_grid)(run, budget)
    bad = round_series.not_finite(lines, ("train_loss", "validation_loss", "client_drift.mean", "update_dispersion"))
    ending = ending_of(run)
    city, events = city_view(lines, run.events, budget.cells), event_rows(run.events)
    forecasts, surface = forecast_view(run, budget.cells), surface_view(run, budget.cells)
    theory, predicted = theory_view(run, budget.cells, budget.rounds)
    return {
        "name": run.name,
        "title": str(facts.get("title") or run.scenario.get("title") or run.name),
        "scenario": str(facts.get("scenario") or run.scenario.get("name") or ""),
        "algorithm": str(facts.get("algorithm") or ""),
        "seed": facts.get("seed"),
        "state": run.state,
        "verdict": ending.headline,
        "reasons": list(ending.reasons),
        "hint": " ".join(ending.hints),
        "happened": condition_text.happened(run.outcome or {}),
        "signs": [list(row) for row in condition_text.sign_rows(run.outcome or {})],
        "names": {name: fact.label for name, fact in FACTS.items()},
        "header": [line.strip() for line in run_text.header({**facts, "notices": ()})],
        "notices": run_text.notices(facts),
        "error": str(facts.get("error") or ""),
        "reached": reached_of(run),
        "round": run.last_round,
        "rounds": facts.get("rounds"),
        "series": [*series, *predicted],
        "bands": [".".join(band) for band in round_series.BANDS],
        "layers": round_series.layers_of(lines) if budget.bands else [],
        "criteria": _criteria(run),
        "target": (run.outcome or {}).get("to_target") or _target(run),
        "rate": run_text.rate_words(run.outcome or _last_rate(lines)),
        "grid": grid,
        "widest": {
            "words": run_text.WIDEST.capitalize(),
            "clients": [run_text.widest_client(*pair) for pair in widest(lines, MOST_WIDEST)],
        },
        "partition": _partition(run),
        "events": events[:MOST_EVENTS],
        "notes": [
            *run.problems,
            *_notes(run, series, grid, bad),
            *_left_out(events),
            *(city or {}).get("left_out", ()),
            *(forecasts or {}).get("left_out", ()),
            *(surface or {}).get("left_out", ()),
            *(theory or {}).get("left_out", ()),
        ],
        "forecasts": forecasts,
        "surface": surface,
        "samples": sample_view(run),
        "explanation": explanation_view(run),
        "theory": theory,
        "scenario_text": run.scenario_text,
        "versions": dict(run.versions),
    } | ({} if city is None else {"city": city})


def ending_of(run: RunData) -> run_text.Ending:
    """Return how the run ended, or that it has not."""
    if run.outcome is not None:
        return run_text.ending(run.outcome)
    words = "no outcome is recorded, because the run was killed or is still running"
    return run_text.Ending(f"Unfinished at round {run.last_round}: {words}")


def reached_of(run: RunData) -> list[list[str]]:
    """Return rows of (what, value, aside): what was reached, or how far an unfinished run is."""
    if run.outcome is not None:
        apart = ("record", condition_text.HAPPENED, condition_text.SIGNS_ROW)
        rows = [row for row in run_text.reached(run.outcome) if row[0] not in apart]
    else:
        rows = _so_far(run)
    found = []
    for name, value in rows:
        head, _, aside = value.partition("   (")
        found.append([name, head, aside.removesuffix(")")])
    return found


def _so_far(run: RunData) -> list[tuple[str, str]]:
    """Return how far an unfinished run is."""
    if not run.lines:
        return []
    line, budget = run.lines[-1], run.facts.get("rounds")
    rows = [("round", f"{run.last_round:,}" + (f" of {budget:,} at most" if is_number(budget) else ""))]
    score = "validation_error" if round_series.is_regression([line], "validation_error") else "validation_accuracy"
    for key in ("validation_loss", "train_loss", score):
        if line.get(key) is not None:
            rows.append((label_of(key), share(line[key]) if "accuracy" in key else number(line[key])))
    return rows


def _criteria(run: RunData) -> list[dict[str, Any]]:
    """Return each criterion: its spans of states, and its last state in words."""
    found = []
    for name in round_series.criteria_of(run.lines):
        state = round_series.at(run.lines[-1], ("criteria", name)) or {}
        found.append({
            "name": name,
            "label": run_text.criterion_label(name),
            "spans": round_series.criterion_spans(run.lines, name),
            "words": str(state.get("words") or ""),
            "first_held": state.get("first_held"),
            "needed": state.get("needed"),
        })  # fmt: skip
    return found


def _target(run: RunData) -> Mapping[str, Any] | None:
    """Return the target of an unfinished run."""
    chosen = (run.scenario.get("convergence") or {}).get("target")
    if not isinstance(chosen, Mapping):
        return None
    value = next((chosen[key] for key in ("at_least", "at_most") if is_number(chosen.get(key))), None)
    return {"metric": chosen.get("metric"), "value": value}


def _last_rate(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the last fitted rate."""
    line: Mapping[str, Any] = next((line for line in reversed(lines) if line.get("rate")), {})
    return {key: line[key] for key in ("rate", "rounds_to_go") if key in line}


def read_grid(run: RunData, budget: Budget) -> Grid:
    """Read the client grid: a row a client, a column a round."""
    clients = run.facts.get("clients") or (run.partition or {}).get("clients") or 0
    if not budget.cells or not run.folder.clients.is_dir():
        return None
    metrics = METRICS if budget.cells > 20_000 else METRICS[:2]
    grid = client_grid(run.folder.clients, int(clients), cells=budget.cells, metrics=metrics)
    names = _names_of_clients(run.partition or {})
    return grid if grid is None or not names else {**grid, "known": names}


def _names_of_clients(partition: Mapping[str, Any]) -> dict[str, str]:
    """Return index -> name of the clients whose names the partition lists; empty where a name is the index.

    Example:
        >>> _names_of_clients({"shown": [0, 5], "names": ["Dongsi", "Shunyi"]})
        {'0': 'Dongsi', '5': 'Shunyi'}
    """
    shown, listed = partition.get("shown") or (), partition.get("names") or ()
    names = {str(k): str(name) for k, name in zip(shown, listed, strict=False)}
    return {} if all(k == name for k, name in names.items()) else names


def _partition(run: RunData) -> dict[str, Any]:
    """Return the partition of the examples over the clients, with measures of how unequal it is."""
    facts = run.facts
    skew = {
        name: round(facts[name], 4)
        for name in ("label_emd", "label_js", "smallest_client", "median_client", "largest_client")
        if is_number(facts.get(name))
    }
    classes = class_names(facts.get("data_facts") or {}, (run.partition or {}).get("label_counts"))
    return {"measures": skew, **(run.partition or {})} | ({"classes": classes} if classes else {})


def class_names(facts: Mapping[str, Any], label_counts: Sequence[Sequence[int]] | None) -> list[str]:
    """Return the names of the classes from the facts of the data; empty where they do not name every class.

    Example:
        >>> class_names({"classes": "benign, scan"}, [[3, 1]]), class_names({"classes": 2}, [[3, 1]])
        (['benign', 'scan'], [])
    """
    listed = facts.get("classes")
    names = listed.split(", ") if isinstance(listed, str) else []
    return names if label_counts and len(names) == len(label_counts[0]) else []


def _left_out(events: Sequence[Sequence[str]]) -> list[str]:
    """Return a sentence on the kinds of events that the page leaves out."""
    total = len(events)
    return [f"This run has {total} kinds of events; {MOST_EVENTS} are shown."] if total > MOST_EVENTS else []


def _notes(
    run: RunData, series: Sequence[Mapping[str, Any]], grid: Mapping[str, Any] | None, bad: Mapping[str, Sequence[int]]
) -> list[str]:
    """Return sentences on what the page leaves out or cannot draw."""
    notes = []
    thin = max(series, key=lambda table: table["of"], default=None)
    if thin is not None and thin["of"] > len(thin["axes"]["round"]):
        notes.append(
            f"Curves are drawn through {len(thin['axes']['round']):,} of {thin['of']:,} rounds: the last of each "
            "stretch, and those with its smallest and largest loss, score, drift and cosine. Text and tables cover "
            "all rounds."
        )
    if grid is not None and (grid["rows"] < grid["clients"] or grid["columns"] < grid["rounds"]):
        notes.append(
            f"A cell of the client heatmap is the mean of about {grid['clients'] / grid['rows']:.3g} clients over "
            f"{count(math.ceil(grid['rounds'] / grid['columns']), 'round')} at most: {grid['clients']:,} clients and "
            f"{grid['rounds']:,} rounds are drawn as {grid['rows']:,} by {grid['columns']:,} cells."
        )
    if grid is not None and grid["rounds"] < run.last_round:
        notes.append(f"Client rows are written at checkpoints; the last one was at round {grid['rounds']:,}.")
    if grid is None and run.last_round:
        notes.append("This run has no client rows, so there is no client heatmap.")
    shown = (run.partition or {}).get("shown")
    if shown and len(shown) < run.partition["clients"]:  # type: ignore[index]
        notes.append(f"Labels are shown for {len(shown):,} of {run.partition['clients']:,} clients, evenly spaced.")  # type: ignore[index]
    for name, (first, last, times) in bad.items():
        where = f"round {first}" if times == 1 else f"{times:,} rounds between {first} and {last}"
        notes.append(f"The {label_of(name)} was not a finite number in {where}; its curve has a gap there.")
    reason = next((str(line["not_measured"]) for line in run.lines if line.get("not_measured")), "")
    return [*notes, *([f"Not measured: {reason}."] if reason else [])]
