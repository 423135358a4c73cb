"""Memory that the processes of one machine share: one row for each client of a cohort, in sections by name."""

from __future__ import annotations

import mmap
from collections.abc import Mapping

import torch
from torch import Tensor


class Arena:
    """Rows in shared memory, made before the processes are forked; memory is taken when rows are written.

    The clients of a job have consecutive rows. A worker writes them, and the server reads them where they are.

    Args:
        rows: the most rows, one for each client of a cohort.
        widths: numbers in a row of each section.
        dtype: of all numbers.
    """

    def __init__(self, rows: int, widths: Mapping[str, int], dtype: torch.dtype) -> None:
        self._rows, self._dtype = rows, dtype
        self._sections: dict[str, Tensor] = {}
        for name, width in widths.items():
            size = rows * width * dtype.itemsize
            if size:
                memory = torch.frombuffer(mmap.mmap(-1, size), dtype=dtype)
                self._sections[name] = memory.view(rows, width)

    def fits(self, rows: int) -> bool:
        """Return whether there are so many rows."""
        return rows <= self._rows

    def put(self, tensors: Mapping[str, Tensor], start: int) -> dict[str, Tensor]:
        """Write rows [k, width] by name, from a row on; return those that have no section."""
        left = {}
        for name, rows in tensors.items():
            section = self._sections.get(name)
            if section is None or rows.dtype != self._dtype:
                left[name] = rows
            else:
                section[start : start + len(rows)] = rows
        return left

    def view(self, name: str, start: int, count: int) -> Tensor:
        """Return some rows without a copy: the next job overwrites them."""
        return self._sections[name][start : start + count]
