"""The rows of a study's table: one for each arm and seed, from the rows of its runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dashboards.report.compared_measures import MEASURES
from server.record.files import sync_folder, whole_file
from simulator.studies.arms import PlannedRun
from simulator.studies.folder import StudyFolder

if TYPE_CHECKING:
    import pandas as pd

PLANNED, RUNNING, STOPPED = "planned", "running", "stopped"
DONE, DIVERGED, FAILED, BUSY, INTERRUPTED = "done", "diverged", "failed", "busy", "interrupted"
FINISHED = (DONE, DIVERGED)
"""States of runs that are not played again."""
Rows = Mapping[str, Mapping[str, Any]]
"""The row of a run by its key."""


def is_finished(folder: StudyFolder, key: str, row: Mapping[str, Any] | None) -> bool:
    """Return whether a run is finished, and its row has the measures of this version."""
    return (
        row is not None
        and row.get("state") in FINISHED
        and row.get("measures", {}).keys() == {measure.key for measure in MEASURES}
        and (folder.run(key) / "outcome.json").is_file()
    )


def read_rows(folder: StudyFolder, runs: Sequence[PlannedRun]) -> dict[str, dict[str, Any]]:
    """Return the rows that the runs of a study have now, by key."""
    found = {key: folder.read_row(key) for key in dict.fromkeys(run.key for run in runs)}
    return {key: row for key, row in found.items() if row is not None}


def frame(
    runs: Sequence[PlannedRun], rows: Rows, *, stopped: Mapping[str, str], running: Sequence[str]
) -> pd.DataFrame:
    """Return the table of a study.

    Args:
        runs: the planned runs, in order.
        rows: of those that have one.
        stopped: why the other runs of an arm are not played, by the arm's name.
        running: keys of the runs that are played now.

    Returns:
        One row a planned run. Columns: arm, seed, one a factor, run, key, state, verdict, rounds, seconds, the
        measures by key, and for those of a target `<key>_at_least`: what the run that missed it is at least.
    """
    import pandas as pd

    factors = list(runs[0].arm.values)
    mixed = {key: not _is_plain([run.arm.values[key] for run in runs]) for key in factors}
    lines = [_line(run, rows.get(run.key), factors, mixed, stopped, running) for run in runs]
    table = pd.DataFrame(lines)
    types = {"seed": "int64", "rounds": "int64", "seconds": "float64"}
    types |= {m.key: "float64" for m in MEASURES} | {f"{m.key}_at_least": "float64" for m in _of_target()}
    return table.astype(types)


def write_table(folder: StudyFolder, table: pd.DataFrame) -> None:
    """Replace study.parquet, atomically. The caller holds the table's lock.

    Raises:
        RunFolderError: it cannot be written.
    """
    with whole_file(folder.table) as file:
        table.to_parquet(file, index=False)
    sync_folder(folder.path)


def _line(
    run: PlannedRun,
    row: Mapping[str, Any] | None,
    factors: Sequence[str],
    mixed: Mapping[str, bool],
    stopped: Mapping[str, str],
    running: Sequence[str],
) -> dict[str, Any]:
    state, row = _state(run, row, stopped, running), row or {}
    played = state in FINISHED or row.get("state") == INTERRUPTED
    measures, least = row.get("measures", {}), row.get("at_least", {})
    verdict = {FAILED: row.get("error", ""), STOPPED: stopped.get(run.arm.name, "")}.get(state, row.get("verdict", ""))
    values = {key: _factor(run.arm.values[key], as_text=mixed[key]) for key in factors}
    line = {
        "arm": run.arm.name, "seed": run.seed, **values, "run": f"runs/{run.key}", "key": run.key, "state": state,
        "verdict": verdict, "rounds": row.get("rounds", 0), "seconds": row.get("seconds", float("nan")),
    }  # fmt: skip
    is_over = state in FINISHED and played
    line |= {m.key: _number(measures.get(m.key)) if is_over else float("nan") for m in MEASURES}
    return line | {f"{m.key}_at_least": _number(least.get(m.key)) if is_over else float("nan") for m in _of_target()}


def _state(run: PlannedRun, row: Mapping[str, Any] | None, stopped: Mapping[str, str], running: Sequence[str]) -> str:
    if run.key in running:
        return RUNNING
    known = row.get("state") if row is not None else None
    if known in (*FINISHED, FAILED):
        return str(known)
    return STOPPED if run.arm.name in stopped else PLANNED


def _of_target() -> list[Any]:
    return [measure for measure in MEASURES if measure.key.endswith("_to_target")]


def _is_plain(values: Sequence[Any]) -> bool:
    """Return whether a column of values needs no JSON: all texts, or all numbers, or all true or false."""
    kinds = {type(value) for value in values if value is not None}
    return kinds <= {str} or kinds <= {int, float} or kinds <= {bool}


def _factor(value: Any, *, as_text: bool) -> Any:
    return json.dumps(value, sort_keys=True) if as_text and value is not None else value


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
