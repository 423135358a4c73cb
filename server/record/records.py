"""A run's folder: what is in it, how it begins, and the observer that fills it.

scenario.toml      the scenario as resolved            rounds.jsonl    one line a round, flushed
environment.json   where and with what it ran          events.jsonl    what happened besides
clients/           rows by client and round            checkpoint/     what `resume` needs
model.safetensors  the final model                     outcome.json    how it ended; absent until then
partition.json     client sizes and label counts       report.html     what `dashboards` draws of it all
data_truth.json    faults, concept drifts, the city    absent where nothing was done to the data
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from clients.core.errors import RunFolderError
from server.record.client_table import ClientTable
from server.record.environment import environment
from server.record.files import reading, sync_folder, whole_file, writing
from server.record.jsonlines import RoundWriter, from_json, to_json, truncate_rounds


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. Make it with `create` or `create_at`, find it again with `open`.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, root: Path, scenario_name: str, *, now: datetime) -> RunFolder:
        """Make `root/<scenario>-<MMDD-HHMM>-<4 hex digits>/`.

        Args:
            root: the folder of runs; made if it is not there.
            scenario_name: the scenario's name; what a file name should not hold becomes `-`.
            now: the time in the name.

        Raises:
            RunFolderError: the system refuses.
        """
        stem = re.sub(r"[^A-Za-z0-9._]+", "-", scenario_name).strip("-.") or "run"
        while True:
            path = root / f"{stem}-{now:%m%d-%H%M}-{secrets.token_hex(2)}"
            if not path.exists():
                return cls.create_at(path)

    @classmethod
    def create_at(cls, path: Path) -> RunFolder:
        """Make the folder `path`, or take it if it is empty.

        Raises:
            RunFolderError: it holds something, or the system refuses.
        """
        with writing(path, fix="Name another folder with --out."):
            path.mkdir(parents=True, exist_ok=True)
            first = min((entry.name for entry in path.iterdir()), default=None)
        if first is not None:
            fix = f"Name another folder with --out, or go on with the run in it: fedscape resume {path}"
            raise RunFolderError(str(path), f"already holds files ({first})", fix=fix)
        folder = cls(path)
        with writing(path, fix="Name another folder with --out."):
            folder.clients.mkdir()
            folder.checkpoint.mkdir()
            folder.rounds.touch()
            folder.events.touch()
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Find a run that was made before.

        Raises:
            RunFolderError: there is no folder, or it lacks what every run has.
        """
        folder = cls(path)
        if not path.is_dir():
            what = "is a file, not a run's folder" if path.exists() else "does not exist"
            raise RunFolderError(str(path), what, fix="A run's folder is named at the end of its run, as its record.")
        missing = [file.name for file in (folder.scenario, folder.rounds) if not file.is_file()]
        if missing:
            fix = "It is no run's folder, or its run stopped before it began: run the scenario again."
            raise RunFolderError(str(path), f"lacks {' and '.join(missing)}", fix=fix)
        return folder

    @property
    def scenario(self) -> Path:
        """The resolved scenario."""
        return self.path / "scenario.toml"

    @property
    def rounds(self) -> Path:
        """One line a round: the source of truth that every exporter reads."""
        return self.path / "rounds.jsonl"

    @property
    def events(self) -> Path:
        """One line an event: `round`, `kind`, `message` and more."""
        return self.path / "events.jsonl"

    @property
    def clients(self) -> Path:
        """Parquet parts by client and round."""
        return self.path / "clients"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder."""
        return self.path / "checkpoint"

    @property
    def model(self) -> Path:
        """The final model."""
        return self.path / "model.safetensors"

    @property
    def environment(self) -> Path:
        """Where and with what the run was made."""
        return self.path / "environment.json"

    @property
    def partition(self) -> Path:
        """How the examples lie on the clients."""
        return self.path / "partition.json"

    @property
    def truth(self) -> Path:
        """What was done to the data: faults, concept drifts, the city's clock; absent where nothing was."""
        return self.path / "data_truth.json"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.path / "report.html"

    @property
    def outcome(self) -> Path:
        """How the run ended."""
        return self.path / "outcome.json"

    def write_scenario(self, text: str) -> None:
        """Write the resolved scenario.

        Raises:
            RunFolderError: it cannot be written.
        """
        _replace(self.scenario, text)

    def write_environment(self, run: Mapping[str, Any]) -> None:
        """Write `environment()` and, under `run`, what was decided at the start (engine and why, parameters, ...).

        Raises:
            RunFolderError: it cannot be written.
        """
        _replace(self.environment, to_json(environment() | {"run": run}, indent=True) + "\n")

    def write_partition(self, table: Mapping[str, Any]) -> None:
        """Write what `clients.heterogeneity.measures.partition_table` says.

        Raises:
            RunFolderError: it cannot be written.
        """
        _replace(self.partition, to_json(table) + "\n")

    def write_truth(self, truth: Mapping[str, Any]) -> None:
        """Write what `clients.federation.ground_truth.data_ground_truth` says.

        Raises:
            RunFolderError: it cannot be written.
        """
        _replace(self.truth, to_json(truth) + "\n")

    def write_outcome(self, outcome: Mapping[str, Any]) -> None:
        """Write how the run ended.

        Raises:
            RunFolderError: it cannot be written.
        """
        _replace(self.outcome, to_json(outcome, indent=True) + "\n")

    def read_scenario(self) -> str:
        """Return the resolved scenario's text.

        Raises:
            RunFolderError: it cannot be read.
        """
        with reading(self.scenario):
            return self.scenario.read_text("utf-8")

    def read_outcome(self) -> dict[str, Any] | None:
        """Return how the run ended; None where it has not, or was killed.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.outcome)

    def read_environment(self) -> dict[str, Any] | None:
        """Return what `write_environment` wrote; None where the run stopped before.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.environment)

    def read_partition(self) -> dict[str, Any] | None:
        """Return what `write_partition` wrote; None where the run stopped before, or is of an older version.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.partition)

    def read_truth(self) -> dict[str, Any] | None:
        """Return what `write_truth` wrote; None where nothing was done to the data.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.truth)

    def truncate(self, last_round: int) -> int | None:
        """Take the record back to `last_round`: rounds, events, client rows and the outcome.

        Cut short at any moment, it can be done again.

        Args:
            last_round: the round of the checkpoint from which the run goes on.

        Returns:
            The last round that `rounds.jsonl` still tells of, None where none. Below `last_round` only where the
            record was lost (a power cut on a disk that lies): the caller says so.

        Raises:
            RunFolderError: something cannot be read or replaced.
        """
        with writing(self.path):
            self.outcome.unlink(missing_ok=True)
            self.events.touch()
        ClientTable(self.clients).truncate(last_round)
        truncate_rounds(self.events, last_round)
        return truncate_rounds(self.rounds, last_round)


def _replace(path: Path, text: str) -> None:
    """Write a whole file of text."""
    with whole_file(path) as file:
        file.write(text.encode())
    sync_folder(path.parent)


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a file of one JSON object; None where there is none."""
    if not path.exists():
        return None
    with reading(path):
        text = path.read_bytes()
    with suppress(ValueError):
        value = from_json(text)
        if isinstance(value, dict):
            return value
    raise RunFolderError(str(path), "is damaged: it is not a JSON object", fix="The rounds are in rounds.jsonl.")


class Recorder:
    """The observer that fills a run's folder. It is critical: when it fails, the run stops.

    Args:
        folder: a new folder, or one taken back with `truncate`.

    Attributes:
        clients: the rows by client and round; the round loop adds to it.
    """

    critical: ClassVar[bool] = True

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.clients = ClientTable(folder.clients)
        self._rounds, self._events = RoundWriter(folder.rounds), RoundWriter(folder.events)

    def run_started(self, facts: Mapping[str, Any]) -> None:
        """Write environment.json."""
        self.folder.write_environment(facts)

    def round_finished(self, line: Mapping[str, Any]) -> None:
        """Append to rounds.jsonl."""
        self._rounds.append(line)

    def event(self, event: Mapping[str, Any]) -> None:
        """Append to events.jsonl."""
        self._events.append(event)

    def run_finished(self, outcome: Mapping[str, Any]) -> None:
        """Write the last client rows, then outcome.json."""
        self.sync()
        self.folder.write_outcome(outcome)

    def sync(self) -> None:
        """Put all that was recorded on the disk: before a checkpoint, so that none is ahead of its record."""
        self.clients.flush()
        self._rounds.sync()
        self._events.sync()

    def close(self) -> None:
        """Close the files; a second time does nothing."""
        self._rounds.close()
        self._events.close()
