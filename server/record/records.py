"""A run's folder: its files, how it is made, and the observer that fills it.

scenario.toml      the scenario as resolved            rounds.jsonl    one line a round, flushed
environment.json   versions, machine, decisions        events.jsonl    one line an event
clients/           rows by client and round            checkpoint/     the state for `resume`
model.safetensors  the final model                     outcome.json    how it ended; absent before
partition.json     client sizes and label counts       report.html     the report, from `dashboards`
data_truth.json    faults, concept drifts, the city    (only if any changed the data)
forecasts.json     forecasts against truth, for the report (only of forecasts)
parameters/        parameters of earlier rounds (only with run.keep_parameters_every)
scores/            scores by client and evaluated round (only with federated evaluation)
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from clients.core.arrays import Array
from clients.core.errors import RunFolderError
from server.record.checked.json_files import read_json, write_json
from server.record.checked.line_files import RecordedLines, read_record, truncate_rounds
from server.record.checked.regular_files import LARGEST_TEXT, read_regular
from server.record.checked.seals import checksum, sealed_toml, toml_problem, unsealed_toml
from server.record.client_table import ClientTable
from server.record.environment import environment
from server.record.files import folder_name, sync_folder, whole_file, writing
from server.record.hints import absent, incomplete, is_run, way_on
from server.record.jsonlines import RoundWriter
from server.record.kept_parameters import ParameterFolder


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. `create` and `create_at` make it; `open` finds an existing one.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, root: Path, scenario_name: str, *, now: datetime) -> RunFolder:
        """Make `root/<scenario>-<MMDD-HHMM>-<4 hex digits>/`.

        Args:
            root: the folder of runs; made if it does not exist.
            scenario_name: the scenario's name; characters unfit for a file name become `-`.
            now: the time in the name.

        Raises:
            RunFolderError: the system refuses.
        """
        stem = folder_name(scenario_name)
        while True:
            path = root / f"{stem}-{now:%m%d-%H%M}-{secrets.token_hex(2)}"
            if not path.exists():
                return cls.create_at(path)

    @classmethod
    def create_at(cls, path: Path) -> RunFolder:
        """Make the folder `path`, or use it if it is empty.

        Raises:
            RunFolderError: it is not empty, or the system refuses.
        """
        with writing(path, fix="Name another folder with --out."):
            path.mkdir(parents=True, exist_ok=True)
            first = min((entry.name for entry in path.iterdir()), default=None)
        if first is not None:
            fix = "Name another folder with --out" + (f", or {way_on(path)}" if is_run(path) else ".")
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
        """Open the folder of an existing run.

        Raises:
            RunFolderError: the folder does not exist, or lacks files that every run has.
        """
        folder = cls(path)
        if not path.is_dir():
            raise absent(path)
        if not is_run(path):
            raise incomplete(path)
        return folder

    @property
    def scenario(self) -> Path:
        """The resolved scenario."""
        return self.path / "scenario.toml"

    @property
    def rounds(self) -> Path:
        """One line for each round: the source of truth for all exporters."""
        return self.path / "rounds.jsonl"

    @property
    def events(self) -> Path:
        """One line for each event: `round`, `kind`, `message` and more."""
        return self.path / "events.jsonl"

    @property
    def clients(self) -> Path:
        """Parquet parts by client and round."""
        return self.path / "clients"

    @property
    def scores(self) -> Path:
        """Parquet parts by evaluated round and client: the clients' scores; absent where no client evaluates."""
        return self.path / "scores"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder."""
        return self.path / "checkpoint"

    @property
    def model(self) -> Path:
        """The final model."""
        return self.path / "model.safetensors"

    @property
    def parameters(self) -> ParameterFolder:
        """The parameters of earlier rounds; empty where none were kept."""
        return ParameterFolder(self.path / "parameters")

    @property
    def environment(self) -> Path:
        """The environment and the decisions at the start."""
        return self.path / "environment.json"

    @property
    def partition(self) -> Path:
        """Sizes and label counts of the clients."""
        return self.path / "partition.json"

    @property
    def truth(self) -> Path:
        """Ground truth of the data: faults, concept drifts, the city's clock; absent without any of these."""
        return self.path / "data_truth.json"

    @property
    def forecasts(self) -> Path:
        """Forecasts against truth of a few clients, for the report; absent where nothing is forecast."""
        return self.path / "forecasts.json"

    @property
    def report(self) -> Path:
        """The report page of the run."""
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
        with whole_file(self.scenario) as file:
            file.write(sealed_toml(text).encode())
        sync_folder(self.path)

    def write_environment(self, run: Mapping[str, Any]) -> None:
        """Write `environment()` and, under `run`, the decisions at the start (engine and why, parameters, ...).

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.environment, environment() | {"run": run}, indent=True)

    def write_partition(self, table: Mapping[str, Any]) -> None:
        """Write the result of `clients.heterogeneity.measures.partition_table`.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.partition, table)

    def write_truth(self, truth: Mapping[str, Any]) -> None:
        """Write the result of `clients.federation.ground_truth.data_ground_truth`.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.truth, truth)

    def write_outcome(self, outcome: Mapping[str, Any]) -> None:
        """Write how the run ended.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.outcome, outcome, indent=True)

    def write_forecasts(self, forecasts: Mapping[str, Any]) -> None:
        """Write the result of `clients.engines.forecasts.forecast_examples`.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.forecasts, forecasts)

    def read_scenario(self) -> str:
        """Return the resolved scenario's text, without its checksum.

        Raises:
            RunFolderError: it cannot be read.
        """
        try:
            return unsealed_toml(read_regular(self.scenario, most=LARGEST_TEXT)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise RunFolderError(str(self.scenario), "is damaged: it is not text") from error

    def scenario_problem(self) -> str:
        """Return that the scenario was changed after the run wrote it; empty where it was not, or has no checksum.

        Raises:
            RunFolderError: it cannot be read.
        """
        return toml_problem(read_regular(self.scenario, most=LARGEST_TEXT)) or ""

    def read_rounds(self) -> RecordedLines:
        """Return the lines of rounds.jsonl, up to the first that is damaged.

        Raises:
            RunFolderError: it cannot be read.
        """
        return read_record(self.rounds)

    def read_events(self) -> RecordedLines:
        """Return the lines of events.jsonl, up to the first that is damaged; none where the file is absent.

        Raises:
            RunFolderError: it cannot be read.
        """
        return read_record(self.events) if os.path.lexists(self.events) else RecordedLines()

    def read_outcome(self) -> dict[str, Any] | None:
        """Return how the run ended; None where it is unfinished or was killed.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        found = _read_json(self.outcome)
        return {key: value for key, value in found.items() if key != "seals"} if found is not None else None

    def read_seals(self) -> dict[str, str]:
        """Return the checksums that the outcome keeps of other files; empty before the end of the run.

        Raises:
            RunFolderError: outcome.json cannot be read, or is damaged.
        """
        return dict((_read_json(self.outcome) or {}).get("seals", {}))

    def read_environment(self) -> dict[str, Any] | None:
        """Return the content of environment.json; None where the run stopped before.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.environment)

    def read_partition(self) -> dict[str, Any] | None:
        """Return the content of partition.json; None where the run stopped before, or an older version made it.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.partition)

    def read_truth(self) -> dict[str, Any] | None:
        """Return the content of data_truth.json; None where it is absent.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.truth)

    def read_forecasts(self) -> dict[str, Any] | None:
        """Return the content of forecasts.json; None where it is absent.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.forecasts)

    def truncate(self, last_round: int) -> int | None:
        """Cut the record back to `last_round`: rounds, events, client rows and the outcome.

        It can be repeated after an interruption.

        Args:
            last_round: the round of the checkpoint from which the run continues.

        Returns:
            The last round in `rounds.jsonl`, None without rounds. It is below `last_round` only where synced lines were
            lost, for example by a power cut on a disk that ignores syncs; the caller reports it.

        Raises:
            RunFolderError: something cannot be read or replaced.
        """
        with writing(self.path):
            self.outcome.unlink(missing_ok=True)
            self.forecasts.unlink(missing_ok=True)
            self.events.touch()
        self.parameters.truncate(last_round)
        ClientTable(self.clients).truncate(last_round)
        if self.scores.is_dir():  # the scores of the final model may be those of a round without an evaluation
            evaluated = any(
                "client_spread" in line for line in self.read_rounds().values if line["round"] == last_round
            )
            ClientTable(self.scores).truncate(last_round if evaluated else last_round - 1)
        truncate_rounds(self.events, last_round)
        return truncate_rounds(self.rounds, last_round)


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a file of one JSON object; None where it is absent."""
    found = read_json(path)
    return found[0] if found is not None else None


class Recorder:
    """The observer that fills a run's folder. It is critical: an error in it stops the run.

    Args:
        folder: a new folder, or one cut back with `truncate`.

    Attributes:
        clients: the rows by client and round; the round loop adds to it.
    """

    critical: ClassVar[bool] = True

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.clients = ClientTable(folder.clients)
        self._scores: ClientTable | None = None
        self._rounds, self._events = RoundWriter(folder.rounds), RoundWriter(folder.events)

    def add_scores(self, round_index: int, columns: Mapping[str, Array]) -> None:
        """Add the scores of the clients that evaluated the model of a round; see `ClientTable.add`."""
        self._scores = self._scores or ClientTable(self.folder.scores)
        self._scores.add(round_index, columns)

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
        self.folder.write_outcome({**outcome, "seals": self.heads() | _checksums(self.folder.model)})

    def sync(self) -> None:
        """Sync the record to disk. Call it before a checkpoint, so that none is ahead of its record."""
        self.clients.flush()
        if self._scores is not None:
            self._scores.flush()
        self._rounds.sync()
        self._events.sync()

    def heads(self) -> dict[str, str]:
        """Return the heads of the chains over the lines so far, by file. A checkpoint and the outcome keep them."""
        return {"rounds.jsonl": self._rounds.head.hex(), "events.jsonl": self._events.head.hex()}

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        self._rounds.close()
        self._events.close()
        self.clients.close()
        if self._scores is not None:
            self._scores.close()


def _checksums(file: Path) -> dict[str, str]:
    """Return a file's checksum by its name; nothing where the file is absent."""
    if not file.is_file():
        return {}
    with writing(file):
        return {file.name: checksum(file.read_bytes())}
