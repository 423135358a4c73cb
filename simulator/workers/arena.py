"""Memory that the processes of one machine share: one row for each client of a cohort, in sections by name."""

from __future__ import annotations

import mmap
from collections.abc import Mapping

import torch
from torch import Tensor

from clients.core.arrays import I64


class Arena:
    """Rows in shared memory, made before the processes are forked; memory is taken when rows are written.

    A worker writes the rows of its clients, and the server reads them. What is read must be copied before the next job.

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

    def fits(self, places: I64) -> bool:
        """Return whether there is a row for each of some positions in the cohort."""
        return int(places.max(initial=-1)) < self._rows

    def put(self, tensors: Mapping[str, Tensor], places: I64) -> dict[str, Tensor]:
        """Write rows [k, width] by name at the clients' places; return those that have no section."""
        left = {}
        for name, rows in tensors.items():
            section = self._sections.get(name)
            if section is None or not self.fits(places) or rows.dtype != self._dtype:
                left[name] = rows
            else:
                section[torch.from_numpy(places)] = rows
        return left

    def get(self, name: str, places: I64) -> Tensor:
        """Return a copy of the rows at some places."""
        return self._sections[name][torch.from_numpy(places)]
