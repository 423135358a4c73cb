"""Pseudo-gradients of a cohort that are never held whole: anchor minus parameters, one block of columns at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = {"cpu": 1 << 18}
"""Numbers in one block: on a CPU as many as fit in the cache, elsewhere 2**26 (half a gigabyte)."""


@dataclass(frozen=True)
class Differences:
    """Pseudo-gradients [K, P]: rows, or the broadcast parameters minus rows.

    Attributes:
        rows: pseudo-gradients [K, P], or local parameters where there is an anchor.
        anchor: the broadcast parameters [P], on the device of the rows; None where the rows are pseudo-gradients.
    """

    rows: Tensor
    anchor: Tensor | None = None

    @property
    def is_large(self) -> bool:
        """Whether they are worth blocks: a few blocks of a CPU's cache."""
        return self.rows.numel() >= 4 * BLOCK["cpu"]

    def whole(self) -> Tensor:
        """Return them as one tensor [K, P]; a copy where there is an anchor."""
        return self.rows if self.anchor is None else self.anchor - self.rows

    def blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Yield (columns, block [K, n]) in order; the next block overwrites a block, which may be changed."""
        clients, size = self.rows.shape
        step = max(1, BLOCK.get(self.rows.device.type, 1 << 26) // max(1, clients))
        memory = self.rows.new_empty(clients * min(step, size), dtype=dtype)
        for start in range(0, size, step):
            cut = slice(start, min(start + step, size))
            block = memory[: clients * (cut.stop - start)].view(clients, cut.stop - start)
            if self.anchor is None:
                block.copy_(self.rows[:, cut])
            elif dtype == self.rows.dtype:
                torch.sub(self.anchor[cut], self.rows[:, cut], out=block)
            else:
                block.copy_(self.anchor[cut] - self.rows[:, cut])
            yield cut, block

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Return sum_k weights[k] g_k [P], of the type of the rows; a weight of 0 leaves its row out, also one of nan.

        Args:
            weights: coefficients [K], of the type of the rows and on their device.
        """
        out = self.rows.new_empty(self.rows.shape[1])
        left_out = None if bool((weights != 0).all()) else (weights == 0)[:, None]
        for cut, block in self.blocks(self.rows.dtype):
            if left_out is not None:
                block.masked_fill_(left_out, 0.0)
            torch.mv(block.T, weights, out=out[cut])
        return out
