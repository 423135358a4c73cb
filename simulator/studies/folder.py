"""A study's folder: its files, the locks that keep two processes from one run, and the rows of finished runs."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w

from clients.core.errors import RunFolderError
from server.record.checked.regular_files import LARGEST_TABLE, read_regular
from server.record.files import folder_name, sync_folder, whole_file, writing
from server.record.hints import is_run
from simulator.studies.options import StudyOptions

STUDIES = Path("studies")
STUDY_FILE = "study.toml"
OTHER = "Name another folder with --out."


@dataclass(frozen=True)
class StudyFolder:
    """One study's folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def table(self) -> Path:
        """The table: one row a planned run."""
        return self.path / "study.parquet"

    @property
    def facts(self) -> Path:
        """What the page says of the study beside the table: arms, pairs, what they share, engines."""
        return self.path / "study.json"

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "study.html"

    @property
    def log(self) -> Path:
        """What the runs' processes print."""
        return self.path / "processes.log"

    def run(self, key: str) -> Path:
        """Return the folder of a run."""
        return self.path / "runs" / key

    @classmethod
    def make(cls, out: Path | None, options: StudyOptions, *, now: datetime) -> StudyFolder:
        """Make a study's folder, or open the one of an earlier start; then write the study into it.

        Args:
            out: the folder: new, empty, or a study's; None makes a new one in `studies/`.
            options: the study.
            now: the time in the name of a new folder.

        Raises:
            RunFolderError: the folder holds something else, or the system refuses.
        """
        path = out or STUDIES / f"{folder_name(options.name)}-{now:%m%d-%H%M}-{secrets.token_hex(2)}"
        with writing(path, fix=OTHER):
            path.mkdir(parents=True, exist_ok=True)
            first = min((entry.name for entry in path.iterdir()), default=None)
        if first is not None and not (path / STUDY_FILE).is_file() and not (path / "locks").is_dir():
            what = "holds a run" if is_run(path) else f"already holds files ({first}) and is no study's"
            raise RunFolderError(str(path), what, fix=OTHER)
        folder = cls(path)
        with writing(path, fix=OTHER):
            for name in ("runs", "locks", "plans", "parts", "rows"):
                (path / name).mkdir(exist_ok=True)
        with folder.locked("study"):
            folder._write_study(options)
        return folder

    @classmethod
    def open(cls, path: Path) -> StudyFolder:
        """Open the folder of a study.

        Raises:
            RunFolderError: it is none.
        """
        if not (path / STUDY_FILE).is_file():
            problem = "does not exist" if not path.exists() else "is no study's folder: it has no study.toml"
            raise RunFolderError(str(path), problem, fix="A study prints its folder at its end.")
        return cls(path)

    def _write_study(self, options: StudyOptions) -> None:
        """Write study.toml with every default, and the scenarios that it names."""
        arms = []
        for number, arm in enumerate(options.arms, 1):
            table = {"name": arm.name, **({"against": arm.against} if arm.against else {})}
            if arm.scenario is not None:
                table["scenario"] = f"scenario-{number}.toml"
                self._write_toml(table["scenario"], arm.scenario)
            arms.append({**table, **arm.values})
        study = {
            "title": options.title,
            "name": options.name,
            "scenario": "scenario.toml",
            "seeds": list(options.seeds),
            "set": dict(options.set),
            "answer": _given(asdict(options.answer)),
            "budget": _given(asdict(options.budget)),
            "early": _given(asdict(options.early)),
        }
        study |= {"tuning": dict(options.tuning)} if options.tuning else {}
        if options.factors:
            study["factors"] = {"zip": options.zip, **{key: list(values) for key, values in options.factors.items()}}
        study |= {"arms": arms} if arms else {}
        self._write_toml("scenario.toml", options.scenario)
        self._write_toml(STUDY_FILE, study)

    def _write_toml(self, name: str, table: Mapping[str, Any]) -> None:
        with whole_file(self.path / name, fix=OTHER) as file:
            file.write(tomli_w.dumps(table).encode())
        sync_folder(self.path)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock of the study, and wait for it."""
        with self._lock(name, wait=True):
            yield

    @contextmanager
    def tried(self, name: str) -> Iterator[bool]:
        """Yield whether a lock of the study is held now; False where another process has it.

        The system frees the lock of a process that ends, however it ends.
        """
        with self._lock(name, wait=False) as held:
            yield held

    @contextmanager
    def _lock(self, name: str, *, wait: bool) -> Iterator[bool]:
        import fcntl

        path = self.path / "locks" / f"{name}.lock"
        with writing(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            held = True
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                held = False
            yield held
        finally:
            os.close(handle)

    def read_row(self, key: str) -> dict[str, Any] | None:
        """Return the row of a run; None where none was written, or it is damaged."""
        return self.read("rows", key)

    def write_row(self, key: str, row: Mapping[str, Any]) -> None:
        """Write the row of a run. The caller holds the run's lock.

        Raises:
            RunFolderError: it cannot be written.
        """
        self.write("rows", key, row)

    def read(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the object in a small file of the study; None where it is absent or damaged."""
        path = self.path / kind / f"{name}.json"
        try:
            found = json.loads(read_regular(path, most=LARGEST_TABLE)) if path.is_file() else None
        except (RunFolderError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write(self, kind: str, name: str, value: Mapping[str, Any]) -> None:
        """Write the object in a small file of the study.

        Raises:
            RunFolderError: it cannot be written.
        """
        path = self.path / kind / f"{name}.json"
        with whole_file(path) as file:
            file.write(json.dumps(value).encode())
        sync_folder(path.parent)

    def clear_run(self, key: str) -> None:
        """Remove what a killed run without a checkpoint has left. The caller holds the run's lock.

        Raises:
            RunFolderError: it cannot be removed.
        """
        with writing(self.run(key)):
            if self.run(key).exists():
                shutil.rmtree(self.run(key))


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
