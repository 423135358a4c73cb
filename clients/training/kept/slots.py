"""Slots: which row of a table holds which client's vector, now and once a round is committed."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import I32, I64, Bool


class Slots:
    """Gives clients places in a table, in the order in which they first need one.

    A staged row has a slot of its own, so the current row lasts until `commit`. Slots that a commit or a rollback sets
    free are used again: there are at most as many as clients that have a row and clients that are staged together.

    Attributes:
        needed: slots that were ever given.

    Example:
        >>> slots = Slots()
        >>> slots.stage(np.array([7, 3])), slots.commit(), slots.of(np.array([3, 5, 7]))
        (array([0, 1]), array([3, 7]), array([ 1, -1,  0]))
        >>> slots.stage(np.array([7])), slots.of(np.array([7])), slots.commit(), slots.of(np.array([7]))
        (array([2]), array([0]), array([7]), array([2]))
    """

    def __init__(self) -> None:
        self.needed = 0
        # By client, slot + 1: zeros take no memory until they are written.
        self._current: I32 = np.zeros(0, np.int32)
        self._staged: I32 = np.zeros(0, np.int32)
        self._pending: list[I64] = []
        self._free: list[I64] = []

    def of(self, clients: I64) -> I64:
        """Return the current slot of each client, int64 (K,); -1 for a client without a row."""
        slots = np.full(len(clients), -1, np.int64)
        within = clients < len(self._current)
        slots[within] = self._current[clients[within]].astype(np.int64) - 1
        return slots

    def has(self, clients: I64) -> Bool:
        """Return for each client whether it has a current row, bool (K,)."""
        return self.of(clients) >= 0

    def stage(self, clients: I64) -> I64:
        """Return slots for new rows of clients, int64 (K,). A client that was staged before has the same slot.

        Args:
            clients: each once, (K,).
        """
        self._cover(int(clients.max(initial=-1)) + 1)
        slots = self._staged[clients].astype(np.int64) - 1
        new = slots < 0
        slots[new] = self._take(int(np.count_nonzero(new)))
        self._staged[clients] = slots + 1
        self._pending.append(clients)
        return slots

    def staged(self) -> tuple[I64, I64]:
        """Return the staged clients in increasing order, and their slots."""
        clients = np.unique(np.concatenate(self._pending)) if self._pending else np.zeros(0, np.int64)
        return clients, self._staged[clients].astype(np.int64) - 1

    def commit(self) -> I64:
        """Make the staged slots current; return their clients in increasing order."""
        changed = self._taken()
        before = self._current[changed].astype(np.int64) - 1
        self._current[changed] = self._staged[changed]
        self._staged[changed] = 0
        self._release(before[before >= 0])
        return changed

    def rollback(self) -> None:
        """Set the staged slots free."""
        dropped = self._taken()
        slots = self._staged[dropped].astype(np.int64) - 1
        self._staged[dropped] = 0
        self._release(slots[slots >= 0])

    def _taken(self) -> I64:
        """Return the staged clients, each once, and forget them."""
        clients = np.unique(np.concatenate(self._pending)) if self._pending else np.zeros(0, np.int64)
        self._pending = []
        return clients

    def _cover(self, clients: int) -> None:
        """Make both maps long enough for these clients."""
        have = len(self._current)
        if clients <= have:
            return
        more = np.zeros(max(clients, 2 * have) - have, np.int32)
        self._current, self._staged = np.concatenate((self._current, more)), np.concatenate((self._staged, more))

    def _take(self, count: int) -> I64:
        """Return free slots, then new ones, in increasing order."""
        parts: list[I64] = []
        while count and self._free:
            last = self._free.pop()
            used, left = last[:count], last[count:]
            if len(left):
                self._free.append(left)
            parts.append(used)
            count -= len(used)
        parts.append(np.arange(self.needed, self.needed + count, dtype=np.int64))
        self.needed += count
        return np.sort(np.concatenate(parts))

    def _release(self, slots: I64) -> None:
        if len(slots):
            self._free.append(slots)
