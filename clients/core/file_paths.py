"""Finds the user's files, and reports missing ones."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from clients.core.errors import DataError


@dataclass(frozen=True)
class FoundFiles:
    """Files that were found.

    Attributes:
        files: their paths, in order of their names.
        remarks: sentences on what was left out.
    """

    files: list[Path]
    remarks: tuple[str, ...] = ()


def find_file(path: str, field: str) -> Path:
    """Return the file or folder at `path` (`~` is the home folder; relative to the working folder).

    Raises:
        DataError: nothing is there; the message says which part of the path exists and what it holds.
    """
    found = Path(path).expanduser()
    if found.exists():
        return found
    nearest = next((p for p in found.absolute().parents if p.is_dir()), Path("/"))
    held = sorted(p.name for p in nearest.iterdir())
    holds = ", ".join(held[:8]) + (", ..." if len(held) > 8 else "") if held else "nothing"
    raise DataError(field, f"{path} does not exist; {nearest} does and holds {holds}", fix="Check the path.")


def find_files(path: str, field: str, suffixes: tuple[str, ...]) -> FoundFiles:
    """Return the files at `path`: itself, all of a folder with one of `suffixes`, or those a glob matches, sorted.

    A path that exists is taken as it is, also one with letters of a glob in it. Hidden files of a folder are left out.

    Raises:
        DataError: there are none.
    """
    expanded = Path(path).expanduser()
    if any(c in path for c in "*?[") and not expanded.exists():
        files = sorted(Path(p) for p in glob(str(expanded), recursive=True) if Path(p).is_file())
        if not files:
            raise DataError(field, f"no file matches {path}", fix="Check the folder and the pattern.")
        return FoundFiles(files)
    found = find_file(path, field)
    if found.is_file():
        return FoundFiles([found])
    held = sorted((p for p in found.iterdir() if p.is_file()), key=lambda p: p.name)
    hidden = [p.name for p in held if p.name.startswith((".", "~$"))]
    files = [p for p in held if p.name not in hidden and p.name.lower().endswith(suffixes)]
    if not files:
        held_ends = Counter(p.suffix for p in held if p.name not in hidden and p.suffix)
        fix = f"A pattern takes other files: {path.rstrip('/')}/*{held_ends.most_common(1)[0][0]}." if held_ends else ""
        raise DataError(field, f"the folder {path} holds no file that ends in {', '.join(suffixes)}", fix=fix)
    other = len(held) - len(hidden) - len(files)
    left = [f"{len(hidden)} hidden"] * bool(hidden) + [f"{other} of other endings"] * bool(other)
    return FoundFiles(files, (f"files left out of the folder: {' and '.join(left)}",) if left else ())


def all_files(path: str, field: str) -> list[Path]:
    """Return the file at `path`, or all files of the folder there and of its folders, sorted, without hidden ones.

    Raises:
        DataError: nothing is there.
    """
    found = find_file(path, field)
    if found.is_file():
        return [found]
    files: list[Path] = []
    seen: set[str] = set()  # a link may lead back into the folder
    for folder, inner, names in os.walk(found, followlinks=True):
        real = os.path.realpath(folder)
        inner[:] = [] if real in seen else sorted(name for name in inner if not name.startswith("."))
        if real not in seen:
            files += [Path(folder, name) for name in sorted(names) if not name.startswith((".", "~$"))]
        seen.add(real)
    return [file for file in files if file.is_file()]
