"""Reads some rows, chosen by seed, of a CSV of numbers that is too large to read whole."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64, U64
from clients.core.errors import DataError

_BLOCK = 1 << 24  # bytes read at once


def sample_rows(file: Path, rows: int, key: U64) -> tuple[tuple[str, ...], F64]:
    """Read at most `rows` rows of a CSV that has a header, commas, no quotes, and only numbers.

    The width of every line is checked, but only the numbers of the chosen rows. A row's own hash decides whether it is
    chosen, so more rows of the same file are a superset.

    Args:
        file: plain text.
        rows: number of rows, at least 1; they keep the order of the file.
        key: 0-d stream that chooses them.

    Returns:
        Column names, and float64 (rows, columns).

    Raises:
        DataError: the file is empty, is cut short, has a line of another width, or a chosen row holds a value that is
            not a finite number; the message names line and column.
    """
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            return _sample(file, raw, rows, key)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        if isinstance(error, DataError):
            raise
        empty = file.is_file() and file.stat().st_size == 0
        raise DataError("path", f"{file} is empty" if empty else f"{file} cannot be read ({error})") from error


def _sample(file: Path, raw: mmap.mmap, rows: int, key: U64) -> tuple[tuple[str, ...], F64]:
    ends, widths = _survey(raw)
    starts = np.concatenate(([0], ends[:-1] + 1))
    columns = tuple(_line(raw, starts, ends, 0).decode("utf-8", "replace").split(","))
    lines = len(ends)
    while lines > 1 and not _line(raw, starts, ends, lines - 1):  # empty lines at the end
        lines -= 1
    if lines < 2:
        raise DataError("path", f"{file} holds no rows")
    wrong = np.flatnonzero(widths[:lines] != len(columns))
    if len(wrong):
        i = int(wrong[0])
        short = " Is the download complete?" if i == lines - 1 else ""
        problem = f"{file}, line {i + 1}: has {widths[i]} columns and must have {len(columns)}.{short}"
        raise DataError("path", problem)
    chosen = streams.choose(key, lines - 1, min(rows, lines - 1)) + 1
    words = b",".join(_line(raw, starts, ends, i) for i in chosen.tolist()).split(b",")
    try:
        values = np.array(words, np.float64)
    except ValueError:
        values = np.full(len(words), np.nan)
    if not np.isfinite(values).all():
        raise _fault(file, raw, starts, ends, chosen, columns)
    return columns, values.reshape(len(chosen), len(columns))


def _survey(raw: mmap.mmap) -> tuple[I64, I64]:
    """Return where each line ends (its newline, or the end of the file) and how many columns it has."""
    ends, commas, before = [], [], 0  # commas: their number before each end
    for start in range(0, len(raw), _BLOCK):
        block = np.frombuffer(raw[start : start + _BLOCK], np.uint8)
        newlines, found = np.flatnonzero(block == 10), np.flatnonzero(block == 44)
        ends.append(newlines + start)
        commas.append(np.searchsorted(found, newlines) + before)
        before += len(found)
    if raw[len(raw) - 1] != 10:
        ends.append(np.array([len(raw)]))
        commas.append(np.array([before]))
    widths = np.diff(np.concatenate(commas), prepend=0) + 1
    return np.concatenate(ends).astype(np.int64), widths.astype(np.int64)


def _line(raw: mmap.mmap, starts: I64, ends: I64, i: int) -> bytes:
    return raw[int(starts[i]) : int(ends[i])].rstrip(b"\r")


def _fault(file: Path, raw: mmap.mmap, starts: I64, ends: I64, chosen: I64, columns: tuple[str, ...]) -> DataError:
    """Return the error that names the first value of a chosen row that is not a finite number."""
    for i in chosen.tolist():
        for name, word in zip(columns, _line(raw, starts, ends, i).split(b","), strict=True):
            try:
                good = bool(np.isfinite(float(word)))
            except ValueError:
                good = False
            if not good:
                problem = f"{file}, line {i + 1}, column {name!r}: {word.decode('utf-8', 'replace')!r}"
                return DataError("path", f"{problem} is not a finite number")
    raise AssertionError("there is a fault")
