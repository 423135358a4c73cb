"""The files that a scenario's data are read from, and digests of what they hold: the identity of data.

The scenario's text names the files. What is in them decides the numbers of a run as much, and may change under the same
name, or differ between machines. Contents are hashed (XXH3, 128 bits); sizes and times would not show it everywhere.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xxhash import xxh3_128, xxh3_128_hexdigest

from clients.core.errors import DataError, RunFolderError, listed
from simulator.scenario.sections import Scenario

BLOCK = 1 << 22
LARGE = 2e9
"""Files of more bytes together are announced before they are read."""
MOST_FILES = 200
"""The hash of each file is kept for at most so many; beyond, the joint digest alone."""
_known: dict[tuple[str, int, int, int, int], str] = {}
_log = logging.getLogger("fedscape.notices")


@dataclass(frozen=True)
class DataFiles:
    """The files that data are read from.

    Attributes:
        path: as the scenario names them.
        digest: of the names and contents of all files.
        files: the hash of each file by its name, in order; empty where there are more than `MOST_FILES`.
    """

    path: str
    digest: str
    files: Mapping[str, str]

    def facts(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"path": self.path, "digest": self.digest, "files": dict(self.files)}


def data_files(scenario: Scenario) -> DataFiles | None:
    """Return the files of a scenario's data with their digests; None for data without files.

    A file is read once by a process, as long as its size and times stay. Where nothing can be read, None is returned:
    the run itself then says what is wrong.
    """
    data = scenario.data
    path = getattr(data, "path", None)
    if data is None or not isinstance(path, str):
        return None
    try:
        files = data.files()
        named = dict(zip(_names(path, files), files, strict=True))
        _announce(path, files)
        hashes = {name: _hash(named[name]) for name in sorted(named)}
    except (DataError, OSError):
        return None
    if not hashes:
        return None
    digest = xxh3_128_hexdigest(json.dumps(hashes).encode())
    return DataFiles(path, digest, hashes if len(hashes) <= MOST_FILES else {})


def data_digest(scenario: Scenario) -> str:
    """Return the digest of the files of a scenario's data; empty for data without files."""
    found = data_files(scenario)
    return found.digest if found is not None else ""


def data_changes(recorded: Mapping[str, Any] | None, now: DataFiles | None) -> str:
    """Return how data files differ from those of a record, as a clause such as "data/a.csv has changed".

    Args:
        recorded: what `facts` returned then; None or empty where nothing was recorded.
        now: the files of now; None where there are none.

    Returns:
        The clause; empty where they are the same, or one of the two is not known.
    """
    if not recorded or now is None or recorded.get("digest") == now.digest:
        return ""
    before, after = recorded.get("files") or {}, now.files
    if not before or not after:
        return f"files of {now.path} have changed"
    changed = [name for name in after if name in before and before[name] != after[name]]
    groups = ((changed, "has changed", "have changed"), (after.keys() - before.keys(), "is new", "are new"),
              (before.keys() - after.keys(), "is gone", "are gone"))  # fmt: skip
    clauses = [f"{_listed(now.path, names)} {one if len(names) == 1 else many}" for names, one, many in groups if names]
    return "; ".join(clauses)


def require_same_data(folder: Path, recorded: Mapping[str, Any] | None, scenario: Scenario) -> None:
    """Refuse data files that have changed since a run began, which cannot go on with others.

    Args:
        folder: the run's.
        recorded: the files then, as environment.json has them; None in a record of an earlier version.
        scenario: the run's.

    Raises:
        RunFolderError: naming the files.
    """
    if changes := data_changes(recorded, data_files(scenario)):
        fix = f"Restore the data, or run it as another run: fedscape run {folder / 'scenario.toml'}"
        raise RunFolderError(str(folder), f"was played with other data: {changes}", fix=fix)


def _listed(path: str, names: Iterable[str]) -> str:
    """Return names of files with their folder."""
    root = _root(path)
    return listed((str(root / name) for name in sorted(names)), 3)


def _root(path: str) -> Path:
    """Return the folder to which names of files are relative: the path, or that of a file, or what a pattern fixes."""
    place = Path(path).expanduser()
    if place.exists():
        return place if place.is_dir() else place.parent
    parts = place.parts
    until = next((i for i, part in enumerate(parts) if any(letter in part for letter in "*?[")), len(parts) - 1)
    return Path(*parts[:until])


def _names(path: str, files: Iterable[Path]) -> list[str]:
    root = _root(path)
    return [Path(os.path.relpath(file, root)).as_posix() for file in files]


def _announce(path: str, files: Iterable[Path]) -> None:
    """Say that reading takes a while, where it does."""
    size = sum(file.stat().st_size for file in files if _stamp(file) not in _known)
    if size > LARGE:
        _log.warning(
            "fedscape: reading %.0f GB in %s once, since runs are identified by what it holds", size / 1e9, path
        )


def _stamp(file: Path) -> tuple[str, int, int, int, int]:
    stat = file.stat()
    return os.path.realpath(file), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _hash(file: Path) -> str:
    """Return the hash of a file's contents, which are read once while its size and times stay."""
    stamp = _stamp(file)
    if stamp not in _known:
        state = xxh3_128()
        with file.open("rb") as content:
            while block := content.read(BLOCK):
                state.update(block)
        _known[stamp] = state.hexdigest()
    return _known[stamp]
