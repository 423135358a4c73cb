"""A table of rows that begins in memory and moves to a mapped file once it is large."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from clients.core.errors import RunFolderError
from clients.training.kept.mapped_file import MappedFile


class RowTable:
    """Rows of one width and dtype.

    Args:
        width: numbers in a row.
        dtype: of the numbers.
        most_in_memory: bytes of rows that stay in memory; a larger table is a file. The file grows by as many at
            least, where the disk has them, and after as many were read its pages leave the process.
        open_file: makes the file.
    """

    def __init__(
        self, width: int, dtype: torch.dtype, *, most_in_memory: int, open_file: Callable[[], MappedFile]
    ) -> None:
        self.width, self.dtype = width, dtype
        self._most, self._open = most_in_memory, open_file
        self._rows = torch.zeros(0, width, dtype=dtype)
        self._file: MappedFile | None = None
        self._touched, self._closed = 0, False

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize

    @property
    def in_memory(self) -> bool:
        """Whether the rows are in memory, and not in a file."""
        return self._file is None

    def reserve(self, count: int) -> None:
        """Make place for this number of rows.

        Raises:
            RunFolderError: there is no room for the file; the table stays as it was.
        """
        self._check_open()
        have = len(self._rows)
        if count <= have:
            return
        if self._file is None and count * self.row_bytes <= self._most:
            most = self._most // max(1, self.row_bytes)
            grown = torch.zeros(max(count, min(2 * have, most)) if self.width else count, self.width, dtype=self.dtype)
            grown[:have] = self._rows
            self._rows = grown
        elif self._file is None:
            self._move(count)
        else:
            self._grow(self._file, count)

    def read(self, slots: Tensor) -> Tensor:
        """Return a copy of rows, [K, width]."""
        self._check_open()
        found = self._rows.index_select(0, slots)
        self._touch(len(slots))
        return found

    def write(self, slots: Tensor, rows: Tensor) -> None:
        """Set rows, [K, width]."""
        self._check_open()
        self._rows.index_copy_(0, slots, rows)
        self._touch(len(slots))

    def close(self) -> None:
        """Drop the file and its rows; a table in memory stays as it is."""
        if self._file is not None:
            self._rows, self._closed = torch.zeros(0, self.width, dtype=self.dtype), True
            self._file.close()

    def _check_open(self) -> None:
        assert not self._closed, "the run is over, and the file of its client states is gone: read them before its end"

    def _move(self, count: int) -> None:
        """Move the rows to a file with place for `count`."""
        file = self._open()
        try:
            self._enlarge(file, count * self.row_bytes)
        except BaseException:
            file.close()
            raise
        rows = file.rows(self.width, self.dtype)
        rows[: len(self._rows)] = self._rows
        self._rows, self._file = rows, file

    def _grow(self, file: MappedFile, count: int) -> None:
        """Enlarge the file; the rows lie at their places."""
        self._rows = torch.zeros(0, self.width, dtype=self.dtype)  # the old map can be closed
        try:
            self._enlarge(file, count * self.row_bytes)
        finally:
            self._rows = file.rows(self.width, self.dtype)
        self._touched = 0

    def _touch(self, count: int) -> None:
        """Take a file's pages out of the process after as many bytes as a table in memory may have."""
        if self._file is None:
            return
        self._touched += count * self.row_bytes
        if self._touched > self._most:
            self._file.rest()
            self._touched = 0

    def _enlarge(self, file: MappedFile, needed: int) -> None:
        """Enlarge a file to the bytes needed, and ahead of later needs where the disk has room for that."""
        ahead = file.size + self._most
        if needed < ahead:
            with suppress(RunFolderError):
                file.grow(ahead)
                return
        file.grow(needed)
