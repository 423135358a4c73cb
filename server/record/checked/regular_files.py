"""Opens the files of a run's folder: regular files inside it, of bounded size.

A folder may come from another person or a damaged disk. A symbolic link could lead to a private file, and a named pipe
or a device would block its reader. All are refused, each with one line.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from clients.core.errors import RunFolderError

MIB = 1 << 20
LARGEST_TEXT = 16 * MIB
"""For scenario.toml, environment.json, outcome.json and a checkpoint's manifest, which have a few kB."""
LARGEST_TABLE = 256 * MIB
"""The other JSON files grow with clients: data_truth.json has about 100 bytes for each client and fault."""
LARGEST_RECORD = 4096 * MIB
"""rounds.jsonl has about 10 kB a round: this is enough for 400,000 rounds, and more would not fit in memory."""
LARGEST_PART = 4096 * MIB
"""A part of the client rows has at most 2 million rows of a dozen numbers, about 200 MB."""
LONGEST_LINE = 16 * MIB
"""A line has about 10 kB, and 100 bytes more for each layer of the model."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags with which the system opens no symbolic link."""


@contextmanager
def open_regular(path: Path, *, most: int, inside: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file of a run's folder for reading.

    Args:
        path: the file.
        most: the most bytes it may have.
        inside: the run's folder, for a file in one of its folders; by default the file's own folder.

    Raises:
        RunFolderError: it is no regular file, is reached by a symbolic link, is too large, or cannot be read.
    """
    with _plain_errors(path):
        _check_folders(path, inside)
        handle = os.open(path, os.O_RDONLY | NO_FOLLOW | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(handle)
            _check(path, status, most)
            file = os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise
        with file:
            yield file


def read_regular(path: Path, *, most: int, inside: Path | None = None) -> bytes:
    """Return the bytes of a file of a run's folder; arguments and errors as for `open_regular`."""
    with open_regular(path, most=most, inside=inside) as file:
        return file.read(most)


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise is_link(path) from error
        if error.errno == errno.ENXIO:  # a socket, or a device without a driver
            raise RunFolderError(str(path), "is not a regular file") from error
        raise RunFolderError(str(path), f"cannot be read: {error.strerror or error}") from error


def _check_folders(path: Path, inside: Path | None) -> None:
    """Refuse a path from a run's folder to a file that passes a symbolic link."""
    folder = path.parent
    while inside is not None and folder != inside and folder != folder.parent:
        if folder.is_symlink():
            raise is_link(folder)
        folder = folder.parent


def _check(path: Path, status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((f": it is {words}" for is_kind, words in _KINDS if is_kind(status.st_mode)), "")
        raise RunFolderError(str(path), f"is not a regular file{kind}")
    if status.st_size > most:
        problem = f"has {status.st_size:,} bytes, and at most {most:,} are read"
        raise RunFolderError(str(path), problem, fix="No run writes a file of this size.")


def is_link(path: Path) -> RunFolderError:
    """Return the error of a path that is a symbolic link, or passes one."""
    fix = "Replace it by a copy of what it leads to, if you trust that."
    return RunFolderError(str(path), "is a symbolic link, and only files in the folder itself are read", fix=fix)
