"""The runs of a folder while they appear, grow and disappear: the list of all, and the view of one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError
from dashboards.report.client_grid import grid_signature
from dashboards.report.formats import clock_time, is_number
from dashboards.report.round_series import is_regression
from dashboards.report.run_data import RunData, read_run
from dashboards.report.run_view import Budget, Grid, read_grid, run_view
from server.record.checked.kept_lines import KeptLines
from server.record.checked.layouts import LINE
from server.record.checked.line_files import NOT_JSON, RecordedLines, take_line
from server.record.checked.parsing import parse_json
from server.record.checked.regular_files import LARGEST_RECORD, LONGEST_LINE, open_regular
from server.record.records import RunFolder

SILENT_SECONDS = 60.0
"""A run without an outcome is shown as silent if its record has not grown for this long and for five rounds' time."""
TAIL = 1 << 18
MOST_LISTED = 500


class Lines:
    """The whole lines of a growing file, each read once.

    Args:
        path: `rounds.jsonl`. It may grow, be cut back and grow again, or end in half a line.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, b""
        self._found = RecordedLines()

    def read(self) -> KeptLines:
        """Return the lines so far, up to the first damaged one."""
        return self.record().values

    def record(self) -> RecordedLines:
        """Return the lines so far, and what is wrong with the next one.

        Raises:
            RunFolderError: the file does not exist or cannot be read.
        """
        self._found.damage = ""
        with open_regular(self._path, most=LARGEST_RECORD) as file:
            offset = self._found.ends[-1] if self._found.ends else 0
            file.seek(offset - len(self._last))
            if file.read(len(self._last)) != self._last:  # a resumed run cut it back: read it from the start
                self._found, self._last, offset = RecordedLines(), b"", 0
                file.seek(0)
            while (raw := file.readline(LONGEST_LINE)).endswith(b"\n"):
                problem = take_line(self._found, raw, LINE, offset + len(raw))
                if problem:  # the last line may be half written: it is read again
                    is_half = problem == NOT_JSON and not file.read(1)
                    self._found.damage = "" if is_half else f"line {len(self._found.values) + 1} {problem}"
                    break
                offset, self._last = offset + len(raw), raw
        values = self._found.values.copy()
        return replace(self._found, values=values, heads=list(self._found.heads), ends=list(self._found.ends))


class WatchedRuns:
    """The runs in a folder.

    Args:
        root: the folder of runs (it need not exist yet), one run's folder, or a study's, whose runs are shown.
        now: returns the seconds since 1970.
    """

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        self.root, self._now = (root / "runs" if (root / "study.toml").is_file() else root), now
        self._listed: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._lines: dict[str, Lines] = {}
        self._grids: dict[str, tuple[Any, Grid]] = {}

    def paths(self) -> dict[str, Path]:
        """Return the folders of runs by name. No other folder is opened."""
        if _is_run(self.root):
            return {self.root.resolve().name: self.root}
        found: dict[str, Path] = {}
        with suppress(OSError), os.scandir(self.root) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir() and _is_run(Path(entry.path)):
                        found[entry.name] = Path(entry.path)
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each run, the newest change first; at most `MOST_LISTED`."""
        rows = []
        paths = self.paths()
        for name, path in paths.items():
            try:
                signature = _signature(path)
                known = self._listed.get(name)
                if known is None or known[0] != signature:
                    known = self._listed[name] = signature, _row(name, path)
                rows.append({**known[1], "state": self._state(known[1]), "age": max(0.0, self._now() - known[1]["at"])})
            except (OSError, RunFolderError) as error:
                if _is_run(path):  # else it has disappeared, or is not complete yet
                    rows.append(_unreadable(name, error) | {"age": max(0.0, self._now() - _changed(path))})
        for gone in self._listed.keys() - paths.keys():
            del self._listed[gone]
        return sorted(rows, key=lambda row: (row["age"], row["name"]))[:MOST_LISTED]

    def view(self, name: str, seen: str = "") -> dict[str, Any]:
        """Return the page's view of a run.

        Args:
            name: the name of the run.
            seen: the `version` that the page shows.

        Returns:
            The view under `view` with its `version`; `same` if it has not changed; `gone` if there is no such run;
            `problem` if it cannot be read.
        """
        path = self.paths().get(name)
        if path is None:
            self._lines.pop(name, None)
            self._grids.pop(name, None)
            return {"gone": True}
        try:
            row = _row(name, path)
            version = f"{_signature(path)}{grid_signature(path / 'clients')}{self._state(row)}"
            if version == seen:
                return {"same": True}
            lines = self._lines.setdefault(name, Lines(path / "rounds.jsonl")).record()
            run = read_run(path, lines)
        except (OSError, RunFolderError) as error:
            return {"gone": True} if not _is_run(path) else {"problem": str(error)}
        view = run_view(run, Budget(), self._grid)
        if run.outcome is None:
            view |= {"state": self._state(row), "verdict": self._unfinished(row, run)}
        return {"version": version, "view": view}

    def _grid(self, run: RunData, budget: Budget) -> Grid:
        """Return the client grid; it is read again only after a new part was written."""
        signature = grid_signature(run.folder.clients)
        known = self._grids.get(run.name)
        if known is None or known[0] != signature:
            known = self._grids[run.name] = signature, read_grid(run, budget)
        return known[1]

    def _state(self, row: Mapping[str, Any]) -> str:
        if row["state"] != "unfinished":
            return str(row["state"])
        return "running" if self._now() - row["at"] < max(SILENT_SECONDS, 5 * row["seconds"]) else "silent"

    def _unfinished(self, row: Mapping[str, Any], run: RunData) -> str:
        """Return the headline of a run that has not ended."""
        budget = run.facts.get("rounds")
        where = f"round {run.last_round:,}" + (f" of at most {budget:,}" if is_number(budget) else "")
        if self._state(row) == "running":
            return f"Running: {where}"
        silence = clock_time(self._now() - row["at"])
        return f"Silent at {where}: nothing was recorded for {silence}, and there is no outcome"


def _is_run(path: Path) -> bool:
    return (path / "scenario.toml").is_file() and (path / "rounds.jsonl").is_file()


def _signature(path: Path) -> tuple[Any, ...]:
    """Return a value that changes with the record of a run."""
    marks: list[Any] = []
    for name in ("rounds.jsonl", "outcome.json", "events.jsonl", "environment.json", "partition.json"):
        try:
            stat = (path / name).lstat()
            marks.append((stat.st_mtime_ns, stat.st_size))
        except FileNotFoundError:
            marks.append(None)
    return tuple(marks)


def _row(name: str, path: Path) -> dict[str, Any]:
    """Return the row of a run in the list, read from the end of its record.

    Raises:
        OSError: the record does not exist.
    """
    folder = RunFolder(path)
    last = _last_line(folder.rounds)
    outcome: dict[str, Any] | None = None
    facts: dict[str, Any] = {}
    damaged = False
    try:
        outcome = folder.read_outcome()
    except RunFolderError:
        damaged = True
    with suppress(RunFolderError):
        facts = (folder.read_environment() or {}).get("run") or {}
    score = "validation_error" if is_regression([last], "validation_error") else "validation_accuracy"
    loss = next((k for k in ("validation_loss", "train_loss") if is_number(last.get(k))), "")
    return {
        "name": name,
        "title": str(facts.get("title") or ""),
        "scenario": str(facts.get("scenario") or ""),
        "algorithm": str(facts.get("algorithm") or ""),
        "seed": facts.get("seed"),
        "state": "damaged" if damaged else str((outcome or {}).get("outcome") or "unfinished"),
        "round": last.get("round"),
        "rounds": facts.get("rounds"),
        "loss": last.get(loss),
        "score": last.get(score),
        "seconds": last["wall_seconds"] if is_number(last.get("wall_seconds")) else 0.0,
        "at": folder.rounds.stat().st_mtime,
    }


def _last_line(path: Path) -> dict[str, Any]:
    """Return the last whole line of a record; an empty dictionary if there is none in its last `TAIL` bytes.

    Raises:
        RunFolderError: the record cannot be read.
    """
    with open_regular(path, most=LARGEST_RECORD) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        *whole, _ = file.read(TAIL).split(b"\n")
    for raw in reversed(whole):
        with suppress(ValueError):
            line = parse_json(raw)
            LINE(line)
            return dict(line)
    return {}


def _unreadable(name: str, error: OSError | RunFolderError) -> dict[str, Any]:
    """Return the row of a run that cannot be read: its name and the reason."""
    problem = f"{Path(error.field).name}: {error.problem}" if isinstance(error, RunFolderError) else str(error)
    empty = dict.fromkeys(("seed", "round", "rounds", "loss", "score"))
    texts = dict.fromkeys(("title", "scenario", "algorithm"), "")
    return {"name": name, "problem": problem, "state": "damaged", "seconds": 0.0, **texts, **empty}


def _changed(path: Path) -> float:
    """Return when a folder was changed last."""
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
