"""Clients whose examples are made on demand. A limit on memory bounds how many are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I32, I64
from clients.core.examples import Cohort, CohortData, FaultCounts
from clients.core.ragged import offsets_of, positions

RESIDENT_BYTES = 512 * 2**20
"""Populations up to this size stay in memory once made."""
RESIDENT_CLIENTS = 100_000
"""Larger populations do not stay in memory: the index of the clients in memory takes 9 bytes a client."""
CACHE_BYTES = 256 * 2**20
"""The most recent clients of larger populations are kept, up to this size."""
MOSTLY = 0.8
"""A cohort of a larger population is made as a whole if more than this share of its clients is not cached: copying
pieces together would cost more."""


@dataclass(frozen=True)
class Made:
    """The data of some clients, one client after the other.

    Attributes:
        features: of all these clients.
        targets: of all these clients.
        fault_counts: what faults changed, for each client; None where there are no faults.
    """

    features: Tensor
    targets: Tensor
    fault_counts: FaultCounts | None = None


Make = Callable[[I64], Made]
"""Clients -> their data. A client's data must not depend on the other clients."""


@dataclass(frozen=True)
class Recent:
    """A cohort function that keeps recent cohorts.

    Attributes:
        kept: the cohort function.
        fresh: the same function without a cache, for callers that turn these examples into others at once.
    """

    kept: Cohort
    fresh: Cohort

    def __call__(self, clients: I64) -> CohortData:
        """Return a cohort's data."""
        return self.kept(clients)


@dataclass(frozen=True)
class ExampleLayout:
    """Shape and type of one example.

    Attributes:
        feature_shape: shape of its features.
        target_shape: () for a label.
        dtype: of the features.
        target_dtype: of the targets.
    """

    feature_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    dtype: torch.dtype
    target_dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes of one example."""
        numbers = int(np.prod(self.feature_shape, dtype=np.int64)), int(np.prod(self.target_shape, dtype=np.int64))
        return numbers[0] * self.dtype.itemsize + numbers[1] * self.target_dtype.itemsize

    def empty(self, examples: int) -> tuple[Tensor, Tensor]:
        """Return uninitialised features and targets. Pages that nobody writes to take no memory."""
        features = torch.empty((examples, *self.feature_shape), dtype=self.dtype)
        return features, torch.empty((examples, *self.target_shape), dtype=self.target_dtype)


def on_demand_cohort(
    make: Make,
    sizes: I32,
    layout: ExampleLayout,
    *,
    faults: Sequence[str] = (),
    resident_bytes: int = RESIDENT_BYTES,
    cache_bytes: int = CACHE_BYTES,
) -> Cohort:
    """Return a `ClientData.cohort` that makes clients on demand.

    A population of at most `resident_bytes` and `RESIDENT_CLIENTS` stays in two tensors, which are filled client by
    client. A cohort that is already there costs no copy and no Python call a client. A larger population keeps
    `cache_bytes` of recent cohorts. Fault counts are kept as long as the rows that they belong to.

    Args:
        make: makes the examples of given clients; what it makes for a client must not depend on the others.
        sizes: examples of each client, (N,).
        layout: of one example.
        faults: names of the faults whose counts `make` returns.
        resident_bytes: see above.
        cache_bytes: see above.
    """
    if stays_resident(sizes, layout, resident_bytes):
        return _resident(make, sizes, layout, faults)

    def fresh(clients: I64) -> CohortData:
        made = make(clients)
        rows = np.arange(len(made.features), dtype=np.int64)
        return CohortData(made.features, made.targets, rows, offsets_of(sizes[clients]), made.fault_counts)

    return Recent(_RecentBlocks(make, sizes, layout, faults, cache_bytes), fresh)


def stays_resident(sizes: I32, layout: ExampleLayout, resident_bytes: int = RESIDENT_BYTES) -> bool:
    """Return whether a population of these sizes stays in memory once made."""
    return len(sizes) <= RESIDENT_CLIENTS and int(sizes.sum(dtype=np.int64)) * layout.bytes <= resident_bytes


def _no_counts(faults: Sequence[str], clients: int) -> FaultCounts | None:
    """Return counts of 0 for a number of clients; None without faults."""
    if not faults:
        return None
    return FaultCounts({name: np.zeros(clients) for name in faults}, {name: np.zeros(clients) for name in faults})


def _resident(make: Make, sizes: I32, layout: ExampleLayout, faults: Sequence[str]) -> Cohort:
    offsets = offsets_of(sizes)
    features, targets = layout.empty(int(offsets[-1]))
    counts = _no_counts(faults, len(sizes))
    known = np.zeros(len(sizes), np.bool_)

    def cohort(clients: I64) -> CohortData:
        if not known[clients].all():
            missing = np.unique(clients[~known[clients]])
            where = torch.from_numpy(positions(offsets[missing], sizes[missing].astype(np.int64)))
            made = make(missing)
            features[where], targets[where] = made.features, made.targets
            if counts is not None:
                _put(counts, missing, made.fault_counts)
            known[missing] = True
        own = sizes[clients].astype(np.int64)
        own_counts = None if counts is None else counts.take(clients)
        return CohortData(features, targets, positions(offsets[clients], own), offsets_of(own), own_counts)

    return cohort


def _put(counts: FaultCounts, clients: I64, made: FaultCounts | None) -> None:
    """Write the counts of some clients into the counts of all."""
    assert made is not None, "a maker with faults returns their counts"
    for name in counts.changed:
        counts.changed[name][clients] = made.changed[name]
        counts.effect[name][clients] = made.effect[name]


@dataclass(frozen=True)
class _Block:
    """One call of `make`: its clients and their data."""

    clients: I64
    offsets: I64
    made: Made


class _RecentBlocks:
    """A cohort function that caches the results of whole calls of `make`, without a copy.

    It drops the least recently used result first.
    """

    def __init__(self, make: Make, sizes: I32, layout: ExampleLayout, faults: Sequence[str], cache_bytes: int) -> None:
        self._make, self._sizes, self._layout = make, sizes, layout
        self._faults, self._cache_bytes = tuple(faults), cache_bytes
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._home: dict[int, tuple[int, int]] = {}  # client -> number of its block, position in it
        self._held = self._number = 0

    def __call__(self, clients: I64) -> CohortData:
        wanted = list(dict.fromkeys(clients.tolist()))
        missing = [c for c in wanted if c not in self._home]
        if len(missing) > MOSTLY * len(wanted):
            self._remember(np.asarray(wanted, np.int64))
        elif missing:
            self._remember(np.asarray(missing, np.int64))
        homes = np.array([self._home[c] for c in clients.tolist()], np.int64).reshape(-1, 2)
        used = np.unique(homes[:, 0]).tolist()
        for number in used:
            self._blocks.move_to_end(number)
        self._forget(set(used))
        if not used:
            features, targets = self._layout.empty(0)
            none, start = np.zeros(0, np.int64), np.zeros(1, np.int64)
            return CohortData(features, targets, none, start, _no_counts(self._faults, 0))
        return self._one(used[0], homes[:, 1]) if len(used) == 1 else self._several(clients, homes)

    def _one(self, number: int, slots: I64) -> CohortData:
        """Return clients that lie in one block, without a copy."""
        block = self._blocks[number]
        own = np.diff(block.offsets)[slots]
        counts = None if block.made.fault_counts is None else block.made.fault_counts.take(slots)
        rows = positions(block.offsets[slots], own)
        return CohortData(block.made.features, block.made.targets, rows, offsets_of(own), counts)

    def _several(self, clients: I64, homes: I64) -> CohortData:
        """Return clients that lie in several blocks, copied together."""
        pieces = [(self._blocks[number], slot) for number, slot in homes.tolist()]
        features = torch.cat([b.made.features[b.offsets[i] : b.offsets[i + 1]] for b, i in pieces])
        targets = torch.cat([b.made.targets[b.offsets[i] : b.offsets[i + 1]] for b, i in pieces])
        rows = np.arange(len(features), dtype=np.int64)
        return CohortData(features, targets, rows, offsets_of(self._sizes[clients]), self._gathered(homes))

    def _gathered(self, homes: I64) -> FaultCounts | None:
        counts = _no_counts(self._faults, len(homes))
        if counts is not None:
            for number in np.unique(homes[:, 0]).tolist():
                here = np.flatnonzero(homes[:, 0] == number)
                held = self._blocks[number].made.fault_counts
                _put(counts, here, None if held is None else held.take(homes[here, 1]))
        return counts

    def _remember(self, clients: I64) -> None:
        made = self._make(clients)
        self._blocks[self._number] = _Block(clients, offsets_of(self._sizes[clients]), made)
        self._home.update((int(c), (self._number, slot)) for slot, c in enumerate(clients))
        self._held += len(made.features) * self._layout.bytes
        self._number += 1

    def _forget(self, keep: set[int]) -> None:
        for old in list(self._blocks):
            if self._held <= self._cache_bytes:
                return
            if old not in keep:
                block = self._blocks.pop(old)
                self._held -= len(block.made.features) * self._layout.bytes
                for client in block.clients.tolist():
                    if self._home.get(client, (-1, 0))[0] == old:  # not replaced since
                        del self._home[client]
