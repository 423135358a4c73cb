"""Atomic writing of files: a reader finds a complete file or none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from clients.core.errors import RunFolderError, UserError

KEPT = "The record so far and the last checkpoint are kept. Free some space or use another disk, then resume."
OTHER_OUT = "Free some space, or name another file with --out."


@contextmanager
def writing(path: Path, *, fix: str = KEPT) -> Iterator[None]:
    """Turn an OSError on writing `path` into a `RunFolderError` that names the path and the system's reason.

    Raises:
        RunFolderError: any OSError inside, such as a full or a read-only disk.
    """
    try:
        yield
    except OSError as error:
        raise RunFolderError(str(path), f"cannot be written: {error.strerror or error}", fix=fix) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError on reading `path` into a `RunFolderError`."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(str(path), f"cannot be read: {error.strerror or error}") from error


def temporary(path: Path) -> Path:
    """Return the temporary name of `path` until it is complete."""
    return path.with_name(f".{path.name}.tmp")


def place_for(file: Path, example: str) -> None:
    """Make the folder of a file that the user named with `--out`.

    Args:
        file: the file to be written.
        example: a possible file name, for the error message.

    Raises:
        UserError: `file` is a folder, or its folder is a file.
        RunFolderError: its folder cannot be made.
    """
    if file.is_dir():
        problem = f"must be a file, and {str(file)!r} is a folder"
        raise UserError("out", problem, fix=f"Name a file in it, such as {file / example}.")
    if file.parent.is_file():
        raise UserError("out", f"must lie in a folder, and {str(file.parent)!r} is a file", fix="Name another folder.")
    with writing(file, fix=OTHER_OUT):
        file.parent.mkdir(parents=True, exist_ok=True)


def folder_name(name: str) -> str:
    """Return a scenario's name as a part of a folder's name: characters unfit for a file name become `-`."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "run"


def free_name(path: Path) -> Path:
    """Return a path that nothing has: the path itself, or with the first free number from 2 on before its suffix.

    Example:
        >>> free_name(Path("no-such-folder/compare.html")).name
        'compare.html'
    """
    made, number = path, 1
    while os.path.lexists(made):
        number += 1
        made = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return made


def refuse_others(path: Path, mark: bytes) -> None:
    """Refuse to replace a file that the user named with `--out` and that this program did not write.

    Args:
        path: the file to be written.
        mark: bytes in the first 4 kB of every file of its kind.

    Raises:
        UserError: there is a file without the mark.
    """
    if not os.path.lexists(path):
        return
    is_ours = False
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                is_ours = mark in file.read(4096)
    if not is_ours:
        raise UserError("out", f"{str(path)!r} exists and is no page of fedscape's", fix="Name a new file.")


@contextmanager
def whole_file(path: Path, *, fix: str = KEPT) -> Iterator[BinaryIO]:
    """Open a file that gets the name `path` only once it is complete and on disk.

    The rename is atomic: at any moment, and after any crash, `path` has the old content or the new. Call `sync_folder`
    afterwards so that the name also survives a power cut.

    Raises:
        RunFolderError: the system refused; the old content of `path` is unchanged.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder) / "note") as file:
        ...         _ = file.write(b"all of it")
        ...     (Path(folder) / "note").read_text()
        'all of it'
    """
    unfinished = temporary(path)
    with writing(path, fix=fix):
        try:
            with unfinished.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Sync the names in `folder` to disk; errors are ignored, because some file systems do not support it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
