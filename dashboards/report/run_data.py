"""A run read from its folder, finished or not: the data of the report and the watch page."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clients.core.errors import RunFolderError
from server.record.checked.line_files import RecordedLines, damaged
from server.record.checked.shapes import anything
from server.record.completeness import problems_of
from server.record.records import RunFolder

Line = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class RunData:
    """The contents of a run's folder.

    Attributes:
        folder: the folder.
        lines: one line a round.
        facts: the facts of `run_started`; empty where the run stopped before it.
        versions: package -> version.
        outcome: how the run ended; None while it runs, or where it was killed.
        events: the run's events.
        scenario: the scenario's tables; empty where it cannot be read.
        scenario_text: the same as text.
        partition: the partition of the examples over the clients, or None.
        forecasts: forecasts against truth of a few clients, or None.
        samples: a few samples of the final model, or None.
        surface: the error surface, or None.
        explanation: the causes that `fedscape explain` found, or None.
        probes: what `fedscape probe` measured, one for each probed round.
        problems: sentences on files that could not be read.
    """

    folder: RunFolder
    lines: Sequence[Line]
    facts: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    outcome: Mapping[str, Any] | None = None
    events: Sequence[Line] = ()
    scenario: Mapping[str, Any] = field(default_factory=dict)
    scenario_text: str = ""
    partition: Mapping[str, Any] | None = None
    forecasts: Mapping[str, Any] | None = None
    samples: Mapping[str, Any] | None = None
    surface: Mapping[str, Any] | None = None
    explanation: Mapping[str, Any] | None = None
    probes: Sequence[Mapping[str, Any]] = ()
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.folder.path.resolve().name

    @property
    def state(self) -> str:
        """converged, diverged, stopped, interrupted; `unfinished` where no outcome was recorded."""
        return str((self.outcome or {}).get("outcome") or "unfinished")

    @property
    def last_round(self) -> int:
        """The last round of the record; 0 before the first."""
        return int(self.lines[-1]["round"]) if self.lines else 0


def read_run(path: Path, rounds: RecordedLines | None = None) -> RunData:
    """Read a run's folder.

    Args:
        path: the folder.
        rounds: its rounds, where they are already read; a run that is not over is then not compared with its record.

    Raises:
        RunFolderError: it is not a run's folder, or its rounds cannot be read. Other files that are missing or damaged
            are left out and named in `problems`.
    """
    folder = RunFolder.open(path)
    problems: list[str] = []
    is_watched = rounds is not None
    rounds = rounds or folder.read_rounds()
    if rounds.damage and not is_watched:
        raise damaged(folder.rounds, rounds)
    problems += [f"rounds.jsonl: {rounds.damage}; it and later lines are left out."] if rounds.damage else []
    problems += ["The last line of the record is incomplete and left out."] if rounds.truncated else []
    environment = _tried(folder.read_environment, problems) or {}
    text = _tried(folder.read_scenario, problems) or ""
    outcome = _tried(folder.read_outcome, problems)
    events = _tried(folder.read_events, problems) or RecordedLines()
    problems += [f"events.jsonl: {events.damage}; later events are left out."] if events.damage else []
    if outcome is not None or not is_watched:
        problems += problems_of(folder, rounds, outcome)
    return RunData(
        folder=folder,
        lines=rounds.values,
        facts=environment.get("run") or {},
        versions=environment.get("versions") or {},
        outcome=outcome,
        events=events.values,
        scenario=_tables_of(text, problems),
        scenario_text=text,
        partition=_tried(folder.read_partition, problems),
        forecasts=_tried(folder.read_forecasts, problems),
        samples=_tried(folder.read_samples, problems),
        surface=_tried(folder.read_surface, problems),
        explanation=_tried(folder.read_explanation, problems),
        probes=_tried(folder.read_probes, problems) or (),
        problems=tuple(problems),
    )


def _tried(read: Callable[[], T], problems: list[str]) -> T | None:
    """Return what `read` returns; None, and a sentence in `problems`, where it cannot be read."""
    try:
        return read()
    except RunFolderError as error:
        problems.append(f"{Path(error.field).name}: {error.problem}.")
    return None


def _tables_of(text: str, problems: list[str]) -> dict[str, Any]:
    """Return the tables of a scenario's text; none, and a sentence in `problems`, where it is no TOML."""
    try:
        found = tomllib.loads(text)
        anything(found)
    except (ValueError, RecursionError):
        problems.append("scenario.toml: is damaged: it is not TOML, or is nested too deeply.")
        return {}
    return found
