"""Reads matrices of numbers in plain text, as in UCI HAR: one row a line, numbers separated by blanks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clients.core.arrays import F32, Array
from clients.core.errors import DataError


def read_matrix(file: Path, columns: int) -> F32:
    """Read a matrix.

    Args:
        file: text.
        columns: numbers on every line.

    Returns:
        float32 (lines, columns).

    Raises:
        DataError: the file is missing or empty, or has a line of another length or a value that is not a finite number;
            the message names line and column.
    """
    try:
        lines = file.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("path", f"{file} cannot be read ({error})", fix="Is the download complete?") from error
    if not lines:
        raise DataError("path", f"{file} is empty")
    try:
        values: Array = np.array(" ".join(lines).split(), np.float32)
    except ValueError:
        values = np.empty(0, np.float32)
    if len(values) != len(lines) * columns or not np.isfinite(values).all():
        raise _fault(file, lines, columns)
    return values.reshape(len(lines), columns)


def _fault(file: Path, lines: list[str], columns: int) -> DataError:
    """Return the error that names the first mistake."""
    for number, line in enumerate(lines, 1):
        words = line.split()
        for column, word in enumerate(words, 1):
            try:
                good = bool(np.isfinite(np.float32(word)))
            except ValueError:
                good = False
            if not good:
                return DataError("path", f"{file}, line {number}, column {column}: {word!r} is not a finite number")
        if len(words) != columns:
            short = " Is the download complete?" if number == len(lines) else ""
            return DataError("path", f"{file}, line {number}: has {len(words)} numbers and must have {columns}.{short}")
    raise AssertionError("there is a fault")
