"""A run's folder: how it is made, how its files are written and read back, and how a resumed run cuts it back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError
from server.record.checked.json_files import read_json, write_json
from server.record.checked.layouts import PROBE_VERSION
from server.record.checked.line_files import RecordedLines, read_record, truncate_rounds
from server.record.checked.regular_files import LARGEST_TEXT, read_regular
from server.record.checked.run_paths import RunPaths
from server.record.checked.seals import sealed_toml, toml_problem, unsealed_toml
from server.record.client_table import ClientTable
from server.record.environment import environment
from server.record.files import folder_name, sync_folder, whole_file, writing
from server.record.hints import check_run, is_run, way_on
from server.record.kept.checkpoints import CheckpointFolder
from server.record.kept.parameters import ParameterFolder


@dataclass(frozen=True)
class RunFolder(RunPaths):
    """One run's folder. `create` and `create_at` make it; `open` finds an existing one."""

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
        """Make the folder `path`, or use it if it is empty, but for what `fedscape federate` puts there before a run.

        Raises:
            RunFolderError: it is not empty, or the system refuses.
        """
        with writing(path, fix="Name another folder with --out."):
            path.mkdir(parents=True, exist_ok=True)
            first = cls.held_by_others(path)
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
    def held_by_others(cls, path: Path) -> str | None:
        """Return the name of a file in a folder that is to become a run's; None without any that hinders."""
        ours = {cls(path).logs.name, cls(path).states.name, cls(path).federation.name}
        return min((entry.name for entry in path.iterdir() if entry.name not in ours), default=None)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open the folder of an existing run.

        Raises:
            RunFolderError: the folder does not exist, or lacks files that every run has.
        """
        folder = cls(path)
        check_run(path)
        return folder

    @property
    def parameters(self) -> ParameterFolder:
        """The parameters of earlier rounds; empty where none were kept."""
        return ParameterFolder(self.path / "parameters")

    @property
    def kept_checkpoints(self) -> CheckpointFolder:
        """The checkpoints of earlier rounds; empty where none were kept."""
        return CheckpointFolder(self.checkpoints)

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

    def write_samples(self, samples: Mapping[str, Any]) -> None:
        """Write the result of `clients.engines.samples.held_out.SampleMeter.picture`.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.samples, samples)

    def write_surface(self, surface: Mapping[str, Any]) -> None:
        """Write the result of `simulator.surface.result.Surface.to_dict`.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.surface, surface)

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

    def read_certificate(self) -> RecordedLines:
        """Return the lines of certificate.jsonl, up to the first that is damaged; none where the file is absent.

        Raises:
            RunFolderError: it cannot be read.
        """
        return read_record(self.certificate) if os.path.lexists(self.certificate) else RecordedLines()

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

    def read_samples(self) -> dict[str, Any] | None:
        """Return the content of samples.json; None where it is absent.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.samples)

    def read_surface(self) -> dict[str, Any] | None:
        """Return the content of surface.json; None where no surface was measured.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.surface)

    def write_explanation(self, explanation: Mapping[str, Any]) -> None:
        """Write the causes that were found, as `simulator.explaining` makes them.

        Raises:
            RunFolderError: it cannot be written.
        """
        write_json(self.explanation, explanation, indent=True)

    def read_explanation(self) -> dict[str, Any] | None:
        """Return the content of explanation.json; None where it is absent.

        Raises:
            RunFolderError: it cannot be read, or is damaged.
        """
        return _read_json(self.explanation)

    def read_probes(self) -> list[Mapping[str, Any]]:
        """Return the probes of probes.json, as `simulator.probes` makes them; none where none were made.

        Raises:
            RunFolderError: it cannot be read, is damaged, or is of another version of fedscape.
        """
        probes: list[Mapping[str, Any]] = (_read_json(self.probes) or {"probes": []})["probes"]
        for probe in probes:
            if probe["version"] != PROBE_VERSION:
                problem = f"has probes of layout {probe['version']}, and this version reads {PROBE_VERSION}"
                raise RunFolderError(str(self.probes), problem, fix="Remove the file and probe again.")
        return probes

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
            self.samples.unlink(missing_ok=True)
            self.surface.unlink(missing_ok=True)
            self.explanation.unlink(missing_ok=True)
            self.events.touch()
        self.parameters.truncate(last_round)
        self.kept_checkpoints.truncate(last_round)
        ClientTable(self.clients).truncate(last_round)
        if self.scores.is_dir():  # the scores of the final model may be those of a round without an evaluation
            evaluated = any(
                "client_spread" in line for line in self.read_rounds().values if line["round"] == last_round
            )
            ClientTable(self.scores).truncate(last_round if evaluated else last_round - 1)
        truncate_rounds(self.events, last_round)
        if os.path.lexists(self.certificate):
            truncate_rounds(self.certificate, last_round)
        return truncate_rounds(self.rounds, last_round)


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a file of one JSON object; None where it is absent."""
    found = read_json(path)
    return found[0] if found is not None else None
