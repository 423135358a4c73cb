"""Rows that are read a part at a time, so that no one holds all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 16 << 20
"""Bytes of rows that are read together, where a row is not larger."""


@dataclass(frozen=True)
class LazyRows:
    """M rows of the same shape, in memory, in a file, or to be put together.

    Attributes:
        shape: (M, ...).
        dtype: of the numbers.
        take: indices int64 [K] -> a copy of these rows, [K, ...], on the CPU.

    Example:
        >>> rows = LazyRows.of(torch.arange(6.0).reshape(3, 2))
        >>> len(rows), rows.row_bytes, rows.tensor()[1], [len(block) for block in rows.blocks(16)]
        (3, 8, tensor([2., 3.]), [2, 1])
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    take: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, rows: Tensor) -> LazyRows:
        """Return the rows of a tensor."""
        return cls(tuple(rows.shape), rows.dtype, lambda places: rows.detach().index_select(0, places).cpu())

    def __len__(self) -> int:
        """Return M."""
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        count = self.dtype.itemsize
        for size in self.shape[1:]:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self.row_bytes

    def parts(self, most: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
        """Yield the rows in blocks of at most so many bytes, and at least one row, each with its place."""
        step = max(1, most // max(1, self.row_bytes))
        for start in range(0, len(self), step):
            part = slice(start, min(start + step, len(self)))
            yield part, self.take(torch.arange(part.start, part.stop))

    def blocks(self, most: int = BLOCK) -> Iterator[Tensor]:
        """Yield the blocks of `parts`."""
        for _, block in self.parts(most):
            yield block

    def tensor(self) -> Tensor:
        """Return all rows in memory."""
        return self.take(torch.arange(len(self)))
