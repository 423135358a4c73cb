"""Thins training examples by class: long tails and rare events. Held-out examples stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core import streams
from clients.core.arrays import I64
from clients.core.errors import DataError, require


@dataclass(frozen=True, kw_only=True)
class Thinning:
    """How many training examples of each class are kept.

    Attributes:
        long_tail: imbalance factor n_max / n_min of an exponential profile (Cui et al. 2019, section 5.1): class
            i = 0..C-1 keeps round(n long_tail^(-i / (C - 1))) examples, where n is the mean number a class has;
            never more than there are, and at least one. 1 keeps all.
        rare_classes: classes of rare events.
        rare_share: share of their examples kept, rounded, at least one; after the long tail.
    """

    long_tail: float = 1.0
    rare_classes: tuple[int, ...] = ()
    rare_share: float = 0.1

    def __post_init__(self) -> None:
        require(np.isfinite(self.long_tail) and self.long_tail >= 1, "long_tail", f"must be >= 1, got {self.long_tail}")
        require(0 < self.rare_share <= 1, "rare_share", f"must be in (0, 1], got {self.rare_share}")
        require(all(c >= 0 for c in self.rare_classes), "rare_classes", f"must be >= 0, got {list(self.rare_classes)}")


def thinned(rows: I64, labels: I64, thinning: Thinning, seed: int) -> I64:
    """Return the rows that are kept, in their order.

    Each example is ranked by its own hash, so a stronger thinning keeps a subset of what a weaker one keeps.

    Args:
        rows: indices of training examples, int64 (n,).
        labels: their classes, int64 (n,).
        thinning: how many examples of each class are kept.
        seed: root seed.

    Raises:
        DataError: no example has a rare class.

    Example:
        >>> labels = np.repeat([0, 1, 2], 100)
        >>> np.bincount(labels[thinned(np.arange(300), labels, Thinning(long_tail=100), seed=0)]).tolist()
        [100, 10, 1]
    """
    if thinning.long_tail == 1 and not thinning.rare_classes:
        return rows
    has = np.bincount(labels)
    unknown = [c for c in thinning.rare_classes if c >= len(has) or not has[c]]
    if unknown:
        raise DataError("rare_classes", f"no training example has class {unknown[0]}; they go up to {len(has) - 1}")
    present = np.flatnonzero(has)
    place = np.arange(len(present)) / max(1, len(present) - 1)
    keep = has.copy()
    if thinning.long_tail > 1:
        profile = np.round(len(labels) / len(present) * thinning.long_tail**-place)
        keep[present] = np.minimum(has[present], profile.astype(np.int64))
    rare = list(thinning.rare_classes)
    keep[rare] = np.round(keep[rare] * thinning.rare_share).astype(np.int64)
    keep[present] = np.maximum(keep[present], 1)
    order = np.lexsort((streams.keys(seed, "long tail", rows), labels))
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - np.repeat(np.cumsum(has) - has, has)
    return rows[rank < keep[labels]]
