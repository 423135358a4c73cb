"""What a cohort is asked to do, what it returns, and what clients remember between rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.rules import PLAIN, LocalRule

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CohortWork:
    """One round's work for a cohort.

    Attributes:
        round_index: the round, from 1.
        clients: client indices, increasing, int64 (K,).
        params: broadcast parameters [P].
        buffers: broadcast floating-point buffers [Q]; empty where the model has none.
        rule: the local rule.
        shared: other broadcast vectors the rule reads, each [P].
    """

    round_index: int
    clients: I64
    params: Tensor
    buffers: Tensor
    rule: LocalRule = PLAIN
    shared: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_clients(self) -> int:
        """Clients asked."""
        return len(self.clients)


@dataclass(frozen=True, kw_only=True)
class CohortUpdate:
    """What clients return, one row a client.

    Attributes:
        clients: int64 (K,).
        params: local parameters after training [K, P]; `anchor - params` are the pseudo-gradients.
        buffers: local buffers [K, Q].
        num_examples: training examples held, int64 (K,).
        local_steps: optimiser steps taken, int64 (K,).
        train_loss: mean loss over the examples seen in local training, float64 (K,).
        train_errors: wrongly classified examples seen in local training, int64 (K,); -1 where not counted.
        client_drift: mean over local steps of the squared distance from the broadcast parameters, float64 (K,);
            trapezoid over steps 0, 1, 2, 4, 8, ... and the last.
        gradient_norm: largest gradient norm seen at those steps, before correction and clipping, float64 (K,).
        extras: further vectors the rule returns, each [K, P].
        seconds: wall time spent training, for the whole update.
    """

    clients: I64
    params: Tensor
    buffers: Tensor
    num_examples: I64
    local_steps: I64
    train_loss: F64
    train_errors: I64
    client_drift: F64
    gradient_norm: F64
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


def concatenate(parts: Sequence[CohortUpdate]) -> CohortUpdate:
    """Join the updates of disjoint sets of clients, in increasing order of client."""
    if len(parts) == 1 and (np.diff(parts[0].clients) > 0).all():
        return parts[0]
    clients = np.concatenate([p.clients for p in parts])
    order = np.argsort(clients, kind="stable")
    index = torch.from_numpy(order)

    def arrays(name: str) -> npt.NDArray[np.generic]:
        joined: npt.NDArray[np.generic] = np.concatenate([getattr(p, name) for p in parts])[order]
        return joined

    def tensors(get: Callable[[CohortUpdate], Tensor]) -> Tensor:
        joined = torch.cat([get(p) for p in parts])
        return joined if (order[:-1] < order[1:]).all() else joined[index]

    names = ("num_examples", "local_steps", "train_loss", "train_errors", "client_drift", "gradient_norm")
    return CohortUpdate(
        clients=clients[order],
        params=tensors(lambda p: p.params),
        buffers=tensors(lambda p: p.buffers),
        extras={name: tensors(lambda p, n=name: p.extras[n]) for name in parts[0].extras},  # type: ignore[misc]
        seconds=sum(p.seconds for p in parts),
        **{name: arrays(name) for name in names},  # type: ignore[arg-type]
    )


class Engine(Protocol):
    """Runs a cohort's work. Every engine runs the same local rule on the same batches."""

    @property
    def name(self) -> str:
        """Its name in scenarios and records."""

    def tiles(self, work: CohortWork) -> Sequence[I64]:
        """Cut a cohort into the sets of clients that are trained together, as positions in `work.clients`."""

    def train(self, work: CohortWork, own: Mapping[str, Tensor]) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Train all clients of `work` (one tile): own vectors [K, P] in, the update and new own vectors out."""


class ClientStates:
    """Vectors that clients remember, for those that have any: name -> client -> [P].

    `put` stages rows; `commit` makes them the current version; `rollback` forgets them. `gather` always
    returns copies, so the current version is never changed while a round runs.
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

    def has(self, name: str, clients: I64) -> npt.NDArray[np.bool_]:
        """Say for each client whether it has a vector of that name, bool (K,)."""
        slots = self._slots.get(name, {})
        return np.fromiter((c in slots for c in clients.tolist()), np.bool_, len(clients))

    def put(self, name: str, clients: I64, rows: Tensor) -> None:
        """Stage new vectors [K, width] for clients."""
        self._staged.setdefault(name, []).append((clients, rows))

    def commit(self) -> dict[str, I64]:
        """Make the staged vectors current. Returns which clients changed, by name."""
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
        """Forget what was staged."""
        self._staged = {}

    def names(self) -> list[str]:
        """Names of the vectors remembered."""
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
