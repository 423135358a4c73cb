"""How a file is written so that a reader finds it whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from clients.core.errors import RunFolderError, UserError

KEPT = "Nothing written before is lost and the last checkpoint is kept: make room or choose another disk, then resume."
OTHER_OUT = "Make room, or name another file with --out."


@contextmanager
def writing(path: Path, *, fix: str = KEPT) -> Iterator[None]:
    """Turn the system's refusal to write `path` into a `RunFolderError` that names it and the system's reason.

    Raises:
        RunFolderError: any OSError inside, such as a full or a read-only disk.
    """
    try:
        yield
    except OSError as error:
        raise RunFolderError(str(path), f"cannot be written: {error.strerror or error}", fix=fix) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read `path` into a `RunFolderError`."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(str(path), f"cannot be read: {error.strerror or error}") from error


def temporary(path: Path) -> Path:
    """Return the name under which `path` is written before it is whole."""
    return path.with_name(f".{path.name}.tmp")


def place_for(file: Path, example: str) -> None:
    """Make the folder of a file that the user named with `--out`, and refuse a name that is a folder's.

    Args:
        file: where it will be written.
        example: what a file in that folder may be called.

    Raises:
        UserError: it is a folder, or lies in a file.
        RunFolderError: its folder cannot be made.
    """
    if file.is_dir():
        problem = f"must be a file, and {str(file)!r} is a folder"
        raise UserError("out", problem, fix=f"Name a file in it, such as {file / example}.")
    if file.parent.is_file():
        raise UserError("out", f"must lie in a folder, and {str(file.parent)!r} is a file", fix="Name another.")
    with writing(file, fix=OTHER_OUT):
        file.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def whole_file(path: Path, *, fix: str = KEPT) -> Iterator[BinaryIO]:
    """Open a file that takes the name `path` only once it is whole and on the disk.

    The name changes hands in one step: whoever opens `path`, at any moment and after any crash, finds the old
    content or the new. `sync_folder` afterwards makes the name itself survive a power cut.

    Raises:
        RunFolderError: the system refused; what stood under `path` is untouched.

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
    """Put the names in `folder` on the disk (some file systems cannot, and need not)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
