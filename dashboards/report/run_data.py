"""A run read from its folder, finished or not: the data of the report and the watch page."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clients.core.errors import RunFolderError
from server.record.jsonlines import read_rounds
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


def read_run(path: Path, lines: Sequence[Line] | None = None) -> RunData:
    """Read a run's folder.

    Args:
        path: the folder.
        lines: its rounds, where they are already read.

    Raises:
        RunFolderError: it is not a run's folder, or its rounds cannot be read. Other files that are missing or damaged
            are left out and named in `problems`.
    """
    folder = RunFolder.open(path)
    problems: list[str] = []
    if lines is None:
        lines, truncated = read_rounds(folder.rounds)
        problems += ["The last line of the record is incomplete and left out."] if truncated else []
    environment = _tried(folder.read_environment, problems) or {}
    text = _tried(folder.read_scenario, problems) or ""
    scenario: dict[str, Any] = {}
    with suppress(tomllib.TOMLDecodeError):
        scenario = tomllib.loads(text)
    return RunData(
        folder=folder,
        lines=lines,
        facts=environment.get("run") or {},
        versions=environment.get("versions") or {},
        outcome=_tried(folder.read_outcome, problems),
        events=_tried(lambda: read_rounds(folder.events)[0], problems) or [] if folder.events.exists() else [],
        scenario=scenario,
        scenario_text=text,
        partition=_tried(folder.read_partition, problems),
        forecasts=_tried(folder.read_forecasts, problems),
        problems=tuple(problems),
    )


def _tried(read: Callable[[], T], problems: list[str]) -> T | None:
    """Return what `read` returns; None, and a sentence in `problems`, where it cannot be read."""
    try:
        return read()
    except RunFolderError as error:
        problems.append(f"{Path(error.field).name}: {error.problem}.")
    except UnicodeDecodeError:
        problems.append("scenario.toml: is damaged: it is not text.")
    return None
