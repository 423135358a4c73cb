"""Rows of clients of unequal size, kept flat. A cohort's rows are picked from a population's without a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from clients.core.arrays import I64
from clients.core.examples import Cohort, CohortData


def offsets_of(sizes: npt.ArrayLike) -> I64:
    """Return where each client's rows start, and where the last one's end: int64 (K + 1,).

    Example:
        >>> offsets_of([2, 0, 3]).tolist()
        [0, 2, 2, 5]
    """
    sizes = np.asarray(sizes, np.int64)
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def positions(starts: I64, sizes: I64) -> I64:
    """Return `sizes[0]` numbers from starts[0] on, then `sizes[1]` from starts[1] on, ...: int64 (sum(sizes),).

    Example:
        >>> positions(np.array([10, 0]), np.array([2, 3])).tolist()
        [10, 11, 0, 1, 2]
    """
    if len(sizes) and (sizes == sizes[0]).all():
        return (starts[:, None] + np.arange(sizes[0])).reshape(-1)
    offsets = offsets_of(sizes)
    return np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])


def cohort_of(features: Tensor, targets: Tensor, offsets: I64, rows: I64 | None = None) -> Cohort:
    """Return the `ClientData.cohort` of examples that lie in two tensors.

    Args:
        features: [n, *feature_shape]; may be a view. Nothing is copied.
        targets: [n, ...].
        offsets: int64 (N + 1,); client k owns `rows[offsets[k]:offsets[k + 1]]`.
        rows: int64, indices into the tensors; None for 0, 1, 2, ...
    """

    def cohort(clients: I64) -> CohortData:
        sizes = offsets[clients + 1] - offsets[clients]
        where = positions(offsets[clients], sizes)
        return CohortData(features, targets, where if rows is None else rows[where], offsets_of(sizes))

    return cohort


def label_counts_of(cohort: Cohort, classes: int) -> Callable[[I64], I64]:
    """Return the `ClientData.label_counts` of a cohort function: clients -> counts, int64 (K, classes)."""

    def counts(clients: I64) -> I64:
        data = cohort(clients)
        owner = np.repeat(np.arange(len(clients)), data.sizes)
        cell = owner * classes + data.targets.numpy()[data.rows]
        return np.bincount(cell, minlength=len(clients) * classes).reshape(len(clients), classes).astype(np.int64)

    return counts


def alike(sizes: I64) -> Iterator[I64]:
    """Yield the positions of clients of similar size together. Padding such clients to one length wastes little."""
    octave = np.frexp(np.maximum(sizes, 1).astype(np.float64))[1]
    for o in np.unique(octave[sizes > 0]):
        yield np.flatnonzero((octave == o) & (sizes > 0))


def few_clients(numbers: I64, together: int) -> Iterator[slice]:
    """Yield groups of successive clients that together hold at most `together` numbers; each has at least one client.

    Args:
        numbers: how many each client holds, (K,).
        together: the most numbers of a group.

    Example:
        >>> [(few.start, few.stop) for few in few_clients(np.array([2, 3, 9, 1]), 5)]
        [(0, 2), (2, 3), (3, 4)]
    """
    ends = np.cumsum(numbers)
    first, held = 0, 0
    while first < len(numbers):
        stop = max(int(np.searchsorted(ends, held + together, side="right")), first + 1)
        yield slice(first, stop)
        first, held = stop, int(ends[stop - 1])
