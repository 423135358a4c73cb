"""Memory that the processes of one machine share: rows of a cohort's clients, and vectors that every worker reads."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class Arena:
    """Rows in shared memory, made before the processes are forked; memory is taken when rows are written.

    The clients of a job have consecutive rows. A worker writes them, and the server reads them where they are.

    Args:
        rows: the most rows, one for each client of a cohort.
        widths: numbers in a row of each section.
        dtype: of all numbers.
        vectors: numbers in each vector that the server writes once for all workers.
    """

    def __init__(
        self, rows: int, widths: Mapping[str, int], dtype: torch.dtype, vectors: Mapping[str, int] | None = None
    ) -> None:
        self._rows, self._dtype = rows, dtype
        self._sections = {name: _memory(rows, width, dtype) for name, width in widths.items() if rows * width}
        self._vectors = {name: _memory(1, width, dtype)[0] for name, width in (vectors or {}).items() if width}
        self._written: dict[str, tuple[Tensor, int]] = {}

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

    def broadcast(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Write the tensors that have a vector, where that does not hold them already; return the others.

        They stay until the next call. Every worker of a pass is sent the same, so one that reads while another one's
        job is made reads the same numbers.
        """
        left = {}
        for name, tensor in tensors.items():
            vector = self._vectors.get(name)
            if vector is None or tensor.dtype != self._dtype or tensor.shape != vector.shape:
                left[name] = tensor
                continue
            last, version = self._written.get(name, (None, 0))
            if last is not tensor or version != tensor._version:
                vector.copy_(tensor)
                self._written[name] = tensor, tensor._version
        return left

    def received(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return vectors that were broadcast, without a copy."""
        return {name: self._vectors[name] for name in names}

    def view(self, name: str, start: int, count: int) -> Tensor:
        """Return some rows without a copy: the next job overwrites them."""
        return self._sections[name][start : start + count]


def _memory(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return new shared memory [rows, width], which is not taken before it is written."""
    return torch.frombuffer(mmap.mmap(-1, rows * width * dtype.itemsize), dtype=dtype).view(rows, width)
