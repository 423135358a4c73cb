"""Common parts of sources of windows: how many windows a client has, and the part of the data each lies in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clients.city.source_types import Part
from clients.core import streams
from clients.core.arrays import I64, U64

BLOCK = 256
"""Windows made at once: their numbers stay in the cache."""


@dataclass(frozen=True)
class Counts:
    """How many windows clients have in each part, int64 (K,) each. In time: train, then validation, then test."""

    train: I64
    validation: I64
    test: I64

    @property
    def total(self) -> I64:
        """Windows of each client."""
        return self.train + self.validation + self.test

    def some(self, clients: slice) -> Counts:
        """Return the counts of successive clients."""
        return Counts(self.train[clients], self.validation[clients], self.test[clients])

    def span(self, part: Part) -> tuple[I64, I64]:
        """Return the first window of each client's part, and the one after its last."""
        if part == "train":
            return np.zeros_like(self.train), self.train
        if part == "validation":
            return self.train, self.train + self.validation
        return self.train + self.validation, self.total


def draw_counts(key: U64, mean: int, spread: float, validation: float, test: float) -> Counts:
    """Draw how many windows clients have: log-normal with a mean and a coefficient of variation, at least one.

    Args:
        key: one a client, (K,).
        mean: windows of a client on average.
        spread: coefficient of variation.
        validation: share of a client's windows in the validation part.
        test: likewise.
    """
    deviation = np.sqrt(np.log1p(spread**2))
    drawn = mean * np.exp(deviation * streams.normals(key, 1)[:, 0] - deviation**2 / 2.0)
    total = np.maximum(np.rint(drawn), 1.0).astype(np.int64)
    held = np.rint(test * total).astype(np.int64)
    checked = np.rint(validation * total).astype(np.int64)
    return Counts(total - held - checked, checked, held)


def pick(counts: Counts, part: Part) -> tuple[I64, I64]:
    """Return each example's client (0..K-1) and its window number there, int64 (M,), for a part, client by client."""
    first, end = counts.span(part)
    size = end - first
    owner = np.repeat(np.arange(len(size)), size)
    start = np.repeat(np.cumsum(size) - size, size)
    return owner, np.arange(len(owner)) - start + first[owner]


def in_blocks(index: I64, fill: Callable[[I64], None]) -> None:
    """Call `fill` with `BLOCK` of the indices at a time."""
    for first in range(0, len(index), BLOCK):
        fill(index[first : first + BLOCK])
