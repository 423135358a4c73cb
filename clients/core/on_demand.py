"""Clients whose examples are made when they are first asked for, and kept only as far as memory allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I32, I64
from clients.core.population import CohortData
from clients.core.ragged import Cohort, offsets_of, positions

RESIDENT_BYTES = 512 * 2**20
"""Populations up to this size stay in memory once made."""
RESIDENT_CLIENTS = 100_000
"""Only if they have at most so many clients: keeping the books of who is there takes 9 bytes a client."""
CACHE_BYTES = 256 * 2**20
"""Of larger populations the most recent clients stay, up to this size."""
MOSTLY = 0.8
"""Of larger populations, a cohort of which more than this share is missing is made as a whole: all of it in one piece,
which costs less than copying the pieces together."""

Make = Callable[[I64], tuple[Tensor, Tensor]]
"""Clients -> the features and targets of all of them, one client after the other."""


@dataclass(frozen=True)
class Recent:
    """A cohort function that keeps recent cohorts; `fresh` makes clients and keeps nothing.

    Attributes:
        kept: the cohort function.
        fresh: the same, for who makes something else of the examples at once.
    """

    kept: Cohort
    fresh: Cohort

    def __call__(self, clients: I64) -> CohortData:
        """Return a cohort's data."""
        return self.kept(clients)


@dataclass(frozen=True)
class Layout:
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
        """Return uninitialised features and targets; pages never written to take no memory."""
        features = torch.empty((examples, *self.feature_shape), dtype=self.dtype)
        return features, torch.empty((examples, *self.target_shape), dtype=self.target_dtype)


def lazy_cohort(
    make: Make,
    sizes: I32,
    layout: Layout,
    *,
    resident_bytes: int = RESIDENT_BYTES,
    cache_bytes: int = CACHE_BYTES,
) -> Cohort:
    """Return a `Population.cohort` that makes clients on demand.

    A population of at most `resident_bytes` (and `RESIDENT_CLIENTS`) is laid out in two tensors and filled client by
    client, so that a cohort seen before costs no copy and no Python a client. A larger one keeps only recent cohorts,
    `cache_bytes` of them.

    Args:
        make: makes the examples of given clients; what it makes for a client must not depend on the others.
        sizes: examples of each client, (N,).
        layout: of one example.
        resident_bytes: see above.
        cache_bytes: see above.
    """
    if stays_resident(sizes, layout, resident_bytes):
        return _resident(make, sizes, layout)

    def fresh(clients: I64) -> CohortData:
        features, targets = make(clients)
        return CohortData(features, targets, np.arange(len(features), dtype=np.int64), offsets_of(sizes[clients]))

    return Recent(_recent(make, sizes, layout, cache_bytes), fresh)


def stays_resident(sizes: I32, layout: Layout, resident_bytes: int = RESIDENT_BYTES) -> bool:
    """Say whether a population of these sizes stays in memory once made."""
    return len(sizes) <= RESIDENT_CLIENTS and int(sizes.sum(dtype=np.int64)) * layout.bytes <= resident_bytes


def _resident(make: Make, sizes: I32, layout: Layout) -> Cohort:
    offsets = offsets_of(sizes)
    features, targets = layout.empty(int(offsets[-1]))
    made = np.zeros(len(sizes), np.bool_)

    def cohort(clients: I64) -> CohortData:
        if not made[clients].all():
            missing = np.unique(clients[~made[clients]])
            where = torch.from_numpy(positions(offsets[missing], sizes[missing].astype(np.int64)))
            features[where], targets[where] = make(missing)
            made[missing] = True
        own = sizes[clients].astype(np.int64)
        return CohortData(features, targets, positions(offsets[clients], own), offsets_of(own))

    return cohort


def _recent(make: Make, sizes: I32, layout: Layout, cache_bytes: int) -> Cohort:
    """Cache whole calls of `make`, least recently used out first: nothing is copied to keep them."""
    blocks: OrderedDict[int, tuple[I64, I64, Tensor, Tensor]] = OrderedDict()  # number -> clients, offsets, tensors
    home: dict[int, tuple[int, int]] = {}  # client -> number of its block, place in it
    held = 0
    number = 0

    def remember(clients: I64) -> None:
        nonlocal held, number
        features, targets = make(clients)
        blocks[number] = clients, offsets_of(sizes[clients]), features, targets
        home.update((int(c), (number, place)) for place, c in enumerate(clients))
        held += len(features) * layout.bytes
        number += 1

    def forget(keep: set[int]) -> None:
        nonlocal held
        for old in list(blocks):
            if held <= cache_bytes:
                return
            if old not in keep:
                clients, _, features, _ = blocks.pop(old)
                held -= len(features) * layout.bytes
                for client in clients.tolist():
                    if home.get(client, (-1, 0))[0] == old:  # not made anew since
                        del home[client]

    def cohort(clients: I64) -> CohortData:
        asked = list(dict.fromkeys(clients.tolist()))
        missing = [c for c in asked if c not in home]
        if len(missing) > MOSTLY * len(asked):
            remember(np.asarray(asked, np.int64))
        elif missing:
            remember(np.asarray(missing, np.int64))
        places = [home[c] for c in clients.tolist()]
        used = sorted({block for block, _ in places})
        for block in used:
            blocks.move_to_end(block)
        forget(set(used))
        if not used:
            features, targets = layout.empty(0)
            return CohortData(features, targets, np.zeros(0, np.int64), np.zeros(1, np.int64))
        if len(used) == 1:
            _, offsets, features, targets = blocks[used[0]]
            slot = np.asarray([place for _, place in places], np.int64)
            own = sizes[clients].astype(np.int64)
            return CohortData(features, targets, positions(offsets[slot], own), offsets_of(own))
        pieces = [(blocks[b], int(p)) for b, p in places]
        features = torch.cat([f[o[p] : o[p + 1]] for (_, o, f, _), p in pieces])
        targets = torch.cat([t[o[p] : o[p + 1]] for (_, o, _, t), p in pieces])
        return CohortData(features, targets, np.arange(len(features), dtype=np.int64), offsets_of(sizes[clients]))

    return cohort
