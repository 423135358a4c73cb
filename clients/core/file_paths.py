"""Finds the user's files, and reports missing ones."""

from __future__ import annotations

from glob import glob
from pathlib import Path

from clients.core.errors import DataError


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


def find_files(path: str, field: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files at `path`: itself, all of a folder with one of `suffixes`, or those a glob matches, sorted.

    Raises:
        DataError: there are none.
    """
    if any(c in path for c in "*?["):
        files = sorted(Path(p) for p in glob(str(Path(path).expanduser()), recursive=True) if Path(p).is_file())
        if not files:
            raise DataError(field, f"no file matches {path}", fix="Check the folder and the pattern.")
        return files
    found = find_file(path, field)
    if found.is_file():
        return [found]
    files = sorted(p for p in found.iterdir() if p.is_file() and p.name.endswith(suffixes))
    if not files:
        raise DataError(field, f"the folder {path} holds no file that ends in {', '.join(suffixes)}")
    return files
