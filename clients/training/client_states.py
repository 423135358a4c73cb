"""Client states: named vectors that clients keep between rounds, staged until their round is finished."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64, Bool

BUFFERS = "buffers"
"""The name of the state in which clients keep their own buffers, where `local.buffers` is "local"."""


class ClientStates:
    """The vectors that clients keep between rounds: name -> client -> [P].

    `put` stages rows; `commit` makes them current; `rollback` drops them. `gather` always returns copies, so the
    current rows never change during a round.
    """

    def __init__(self) -> None:
        self._slots: dict[str, dict[int, int]] = {}
        self._rows: dict[str, Tensor] = {}
        self._staged: dict[str, list[tuple[I64, Tensor]]] = {}

    def gather(self, name: str, clients: I64, width: int, dtype: torch.dtype) -> Tensor:
        """Return the clients' vectors [K, width]; zeros for a client that has none yet."""
        out = torch.zeros(len(clients), width, dtype=dtype)
        slots = self._slots.get(name)
        if slots:
            where = np.fromiter((slots.get(c, -1) for c in clients.tolist()), np.int64, len(clients))
            known = torch.from_numpy(np.nonzero(where >= 0)[0])
            out[known] = self._rows[name][torch.from_numpy(where[where >= 0])]
        return out

    def has(self, name: str, clients: I64) -> Bool:
        """Return for each client whether it has a vector of that name, bool (K,)."""
        slots = self._slots.get(name, {})
        return np.fromiter((c in slots for c in clients.tolist()), np.bool_, len(clients))

    def put(self, name: str, clients: I64, rows: Tensor) -> None:
        """Stage new vectors [K, width] for clients."""
        self._staged.setdefault(name, []).append((clients, rows))

    def commit(self) -> dict[str, I64]:
        """Make the staged vectors current; return the changed clients by name."""
        changed: dict[str, I64] = {}
        for name, pieces in self._staged.items():
            slots = self._slots.setdefault(name, {})
            for clients, rows in pieces:
                index = torch.tensor([slots.setdefault(c, len(slots)) for c in clients.tolist()], dtype=torch.int64)
                self._grow(name, len(slots), rows)
                self._rows[name][index] = rows
            changed[name] = np.unique(np.concatenate([c for c, _ in pieces]))
        self._staged = {}
        return changed

    def rollback(self) -> None:
        """Drop the staged vectors."""
        self._staged = {}

    def names(self) -> list[str]:
        """Return the names of the vectors."""
        return list(self._slots)

    def rows(self, name: str, clients: I64) -> Tensor:
        """Return the current vectors of clients that have one, [K, width]."""
        slots = self._slots[name]
        return self._rows[name][torch.tensor([slots[c] for c in clients.tolist()], dtype=torch.int64)]

    def _grow(self, name: str, needed: int, like: Tensor) -> None:
        have = self._rows.get(name)
        if have is not None and len(have) >= needed:
            return
        rows = like.new_zeros(max(needed, 2 * (len(have) if have is not None else 0)), like.shape[1])
        if have is not None:
            rows[: len(have)] = have
        self._rows[name] = rows
