"""Faults, concept drifts, districts and events of a run, as its page draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clients.core.arrays import I64
from dashboards.report.client_grid import CellMeans
from dashboards.report.round_series import MOST_DRIFTS, MOST_FAULTS, Line, names_in

MARKED = ("fault_started", "fault_ended", "drift_started")
"""Events that charts mark."""
DRAWN = ("client_drift", "train_loss", "changed", "clients")
FIXED = {"changed": (0.0, 1.0)}
MOST_MARKS, MOST_DISTRICTS = 24, 64


def city_view(lines: Sequence[Line], events: Sequence[Line], cells: int) -> dict[str, Any] | None:
    """Return the faults, drifts and districts of a run; None where a record has no faults, drifts or districts.

    Args:
        lines: the record's rounds.
        events: the run's events.
        cells: the most cells of a picture; 0 leaves the pictures out.

    Returns:
        `faults` and `drifts` (names; their series are "faults.NAME.changed" and "concept_drift.NAME.level"), `marks`
        ([round, words] for charts), `districts` (pictures of districts by rounds, as `client_grid` makes them, with
        `names`), and `left_out`, sentences on what is not shown.
    """
    faults, drifts = names_in(lines, "faults"), names_in(lines, "concept_drift")
    districts = names_in(lines, "districts")
    if not (faults or drifts or districts):
        return None
    marks = _marks(events)
    counts = (
        ("faults", len(faults), MOST_FAULTS), ("concept drifts", len(drifts), MOST_DRIFTS),
        ("districts", len(districts), MOST_DISTRICTS), ("marks", len(marks), MOST_MARKS),
    )  # fmt: skip
    return {
        "faults": faults[:MOST_FAULTS],
        "drifts": drifts[:MOST_DRIFTS],
        "marks": marks[:MOST_MARKS],
        "districts": _pictures(lines, districts[:MOST_DISTRICTS], cells) if cells and districts else None,
        "left_out": [f"This run has {total} {what}; {most} are shown." for what, total, most in counts if total > most],
    }


def _marks(events: Sequence[Line]) -> list[list[Any]]:
    """Return [round, words] of events that begin or end something, joined by round."""
    words: dict[int, list[str]] = {}
    for event in events:
        if event.get("kind") in MARKED and isinstance(event.get("round"), int):
            sign = "−" if event["kind"] == "fault_ended" else "+"
            words.setdefault(event["round"], []).append(f"{sign} {event.get('name', '')}".rstrip())
    return [[round_index, ", ".join(parts)] for round_index, parts in sorted(words.items())]


def event_rows(events: Sequence[Line]) -> list[list[str]]:
    """Return rows of (kind, name, rounds, times, first message), one for each kind and name, in order of appearance.

    Example:
        >>> event_rows([{"kind": "clients_failed", "round": r, "message": f"{r} failed"} for r in (3, 5)])
        [['clients failed', '', '3 to 5', '2', '3 failed']]
    """
    groups: dict[tuple[str, str], list[Line]] = {}
    for event in events:
        groups.setdefault((str(event.get("kind", "")), str(event.get("name") or "")), []).append(event)
    rows = []
    for (kind, name), found in groups.items():
        rounds = [event["round"] for event in found if isinstance(event.get("round"), int)]
        first, last = min(rounds, default=None), max(rounds, default=None)
        span = "" if first is None else f"{first:,}" if first == last else f"{first:,} to {last:,}"
        rows.append([kind.replace("_", " "), name, span, f"{len(found):,}", str(found[0].get("message") or "")])
    return rows


def _pictures(lines: Sequence[Line], names: Sequence[str], cells: int) -> dict[str, Any] | None:
    """Return pictures of districts by rounds; a cell for several rounds shows their mean."""
    rounds = max((int(line["round"]) for line in lines), default=0)
    if rounds < 1:
        return None
    columns = min(rounds, max(1, cells // len(names)))
    row_of = {name: row for row, name in enumerate(names)}
    found: dict[str, tuple[list[int], list[float]]] = {metric: ([], []) for metric in DRAWN}
    for line in lines:
        if line["round"] < 1:
            continue
        column = (line["round"] - 1) * columns // rounds
        for name, parts in (line.get("districts") or {}).items():
            if name in row_of:
                _take(found, parts, row_of[name] * columns + column)
    metrics = {}
    for metric, (cell, values) in found.items():
        sums = CellMeans(len(names) * columns)
        sums.add(_integers(cell), np.array(values, np.float64), None)
        if values and (picture := sums.picture(FIXED.get(metric))) is not None:
            metrics[metric] = picture
    shape = {"clients": len(names), "rows": len(names), "rounds": rounds, "columns": columns}
    return {**shape, "names": list(names), "metrics": metrics} if metrics else None


def _take(found: dict[str, tuple[list[int], list[float]]], parts: Mapping[str, Any], cell: int) -> None:
    for metric, (cells, values) in found.items():
        if isinstance(parts.get(metric), int | float):
            cells.append(cell)
            values.append(float(parts[metric]))


def _integers(values: list[int]) -> I64:
    return np.array(values, np.int64)
