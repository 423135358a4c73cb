"""The data files of a study's arms: what they hold now, what they held when its runs were played, and what differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError, listed
from simulator.scenario.data_files import DataFiles, data_changes, data_files
from simulator.scenario.sections import Scenario
from simulator.studies.folder import StudyFolder

FILE = "data"
"""The study's data.json: by kind and path, the digests with which its runs were planned."""


@dataclass
class StudyData:
    """The digests of the data of a study's arms.

    Attributes:
        recorded: those of the study's folder, by kind and path.
        looks: whether the files are read; otherwise a study is only opened, and the recorded digests count.
        found: what was read, by kind and path.
    """

    recorded: Mapping[str, Any] = field(default_factory=dict)
    looks: bool = True
    found: dict[str, DataFiles] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path | None, *, looks: bool) -> StudyData:
        """Return the data of the study in a folder, which need not exist."""
        return cls((StudyFolder(path).read(".", FILE) if path is not None else None) or {}, looks)

    def digest(self, scenario: Scenario) -> str:
        """Return the digest of a scenario's data files; empty for data without files.

        Files that are not here count as recorded, so that results can be read without the data.
        """
        name = _name(scenario)
        if name and self.looks and (now := data_files(scenario)) is not None:
            self.found[name] = now
            return now.digest
        return str((self.recorded.get(name) or {}).get("digest", "")) if name else ""

    @property
    def changes(self) -> list[str]:
        """How files differ from those of the study's runs so far, one clause for each path."""
        clauses = (data_changes(self.recorded.get(name), now) for name, now in self.found.items())
        return [clause for clause in clauses if clause]

    def sentences(self, *, unseen: bool) -> list[str]:
        """Return sentences on runs that are played again, since their data have changed.

        Args:
            unseen: whether the folder has runs of a version whose identities did not see the files.
        """
        again = "runs with them are played again, and the runs before stay in runs/"
        found = [f"{clause} since this study's runs were played: {again}" for clause in self.changes]
        new = [now.path for name, now in self.found.items() if name not in self.recorded]
        if new and unseen:
            found.append(f"an earlier version played runs without a look into {listed(new)}: {again}")
        return found

    def require_same(self, folder: StudyFolder) -> None:
        """Refuse files that differ from those of the study's other parts.

        Raises:
            RunFolderError: naming the files.
        """
        if changes := "; ".join(self.changes):
            fix = "Restore the data; or start the study once without --shard, which takes the new data for all parts."
            raise RunFolderError(str(folder.path), f"has runs with other data: {changes}", fix=fix)

    def write(self, folder: StudyFolder) -> None:
        """Write the digests of the files that were read, beside those of other files.

        Raises:
            RunFolderError: they cannot be written.
        """
        if self.found:
            folder.write(".", FILE, {**self.recorded, **{name: now.facts() for name, now in self.found.items()}})


def _name(scenario: Scenario) -> str:
    """Return the kind and path of a scenario's data; empty for data without files."""
    path = getattr(scenario.data, "path", None)
    return f"{scenario.data.kind} {path}" if scenario.data is not None and isinstance(path, str) else ""
