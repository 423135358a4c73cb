"""The types of a round's local work: the work, facts for weights, the update, and its sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.examples import FaultCounts, join_fault_counts
from clients.training.rules import PLAIN, LocalRule
from clients.training.uplink import IDENTITY, Uplink


@dataclass(frozen=True)
class LocalWork:
    """The client half of an algorithm.

    Attributes:
        rule: the local rule.
        uplink: how clients send their updates.
    """

    rule: LocalRule = PLAIN
    uplink: Uplink = IDENTITY

    @property
    def remembers(self) -> bool:
        """Whether clients keep a state between rounds."""
        return bool(self.rule.client_state or self.uplink.client_state)


@dataclass(frozen=True, kw_only=True)
class CohortWork:
    """One round's work for a cohort.

    Attributes:
        round_index: the round, from 1.
        clients: client indices, increasing, int64 (K,).
        params: broadcast parameters [P].
        buffers: broadcast floating-point buffers [Q]; empty where the model has none.
        rule: the local rule.
        uplink: how clients send their updates.
        broadcast: the other broadcast vectors that the rule reads, each [P].
    """

    round_index: int
    clients: I64
    params: Tensor
    buffers: Tensor
    rule: LocalRule = PLAIN
    uplink: Uplink = IDENTITY
    broadcast: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_clients(self) -> int:
        """Number of clients in the cohort."""
        return len(self.clients)

    def on(self, device: torch.device) -> CohortWork:
        """Return the work with its vectors on a device, where the updates of its clients then stay."""
        if self.params.device == device:
            return self
        broadcast = {name: vector.to(device) for name, vector in self.broadcast.items()}
        return replace(self, params=self.params.to(device), buffers=self.buffers.to(device), broadcast=broadcast)

    @property
    def client_state(self) -> tuple[str, ...]:
        """Names of the vectors that clients keep for the rule and the uplink."""
        return (*self.rule.client_state, *self.uplink.client_state)


@dataclass(frozen=True)
class CohortFacts:
    """Facts of a cohort's updates from which their weights follow.

    Attributes:
        clients: client indices, increasing, int64 (K,).
        num_examples: training examples of each client, int64 (K,).
        local_steps: optimiser steps, int64 (K,).
    """

    clients: I64
    num_examples: I64
    local_steps: I64


@dataclass(frozen=True, kw_only=True)
class CohortUpdate:
    """The updates of clients, one row for each client.

    Attributes:
        clients: int64 (K,).
        params: local parameters after training [K, P]; `anchor - params` are the pseudo-gradients.
        buffers: local buffers [K, Q].
        num_examples: training examples of each client, int64 (K,).
        local_steps: optimiser steps taken, int64 (K,).
        train_loss: mean loss over the examples of all local steps, float64 (K,).
        train_errors: wrongly classified examples of all local steps, int64 (K,); -1 where not counted.
        client_drift: mean over local steps of the squared distance from the broadcast parameters, float64 (K,);
            exact up to 16 steps, interpolated beyond (`clients.training.path_measures`).
        gradient_norm: largest gradient norm at steps 1, 2, 4, 8, ..., before correction and clipping, float64 (K,).
        extras: further vectors the rule returns, each [K, P].
        fault_counts: what faults changed in the clients' training data; None where unknown, or without faults.
        seconds: wall time of the training of all clients together.
        hashes: a hash of what each client sent, (K,), made before its rows are added up; None where none is wanted.
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
    fault_counts: FaultCounts | None = None
    seconds: float = 0.0
    hashes: I64 | None = None

    @property
    def facts(self) -> CohortFacts:
        """The facts from which weights follow."""
        return CohortFacts(self.clients, self.num_examples, self.local_steps)

    def without_rows(self) -> CohortUpdate:
        """Return the update without parameters, buffers and extras: one number for each client and column."""
        empty = self.params.new_zeros(len(self.clients), 0)
        return replace(self, params=empty, buffers=empty, extras={})


class UpdateSum(Protocol):
    """A sum of a cohort's updates that a grid fills tile by tile without knowing its contents."""

    def add(self, tile: CohortUpdate) -> None:
        """Add the updates of some clients of the cohort."""

    def result(self) -> SummedUpdates:
        """Return the sum, after every client was added."""


class SummedUpdates(Protocol):
    """The result of an `UpdateSum`, as far as grids read it."""

    @property
    def update(self) -> CohortUpdate:
        """One row for each client, in order of client; without parameters where they were not kept."""


BeginSum = Callable[[CohortFacts, bool], UpdateSum]
"""(facts of the cohort, whether its rows are kept) -> an empty sum for it."""


def concatenate(parts: Sequence[CohortUpdate]) -> CohortUpdate:
    """Join the updates of disjoint sets of clients, in increasing order of client."""
    if len(parts) == 1 and (np.diff(parts[0].clients) > 0).all():
        return parts[0]
    clients = np.concatenate([p.clients for p in parts])
    order = np.argsort(clients, kind="stable")
    ends = np.cumsum([len(p.clients) for p in parts])[:-1]
    places = [torch.from_numpy(place) for place in np.split(np.argsort(order), ends)]

    def arrays(name: str) -> npt.NDArray[np.generic]:
        joined: npt.NDArray[np.generic] = np.concatenate([getattr(p, name) for p in parts])[order]
        return joined

    def tensors(get: Callable[[CohortUpdate], Tensor]) -> Tensor:
        rows = [get(p) for p in parts]
        if (order[:-1] < order[1:]).all():
            return torch.cat(rows)
        joined = rows[0].new_empty(len(order), *rows[0].shape[1:])
        for place, some in zip(places, rows, strict=True):
            joined.index_copy_(0, place, some)
        return joined

    counts = join_fault_counts([p.fault_counts for p in parts])
    names = ("num_examples", "local_steps", "train_loss", "train_errors", "client_drift", "gradient_norm")
    return CohortUpdate(
        clients=clients[order],
        params=tensors(lambda p: p.params),
        buffers=tensors(lambda p: p.buffers),
        extras={name: tensors(lambda p, n=name: p.extras[n]) for name in parts[0].extras},  # type: ignore[misc]
        fault_counts=None if counts is None else counts.take(order),
        seconds=sum(p.seconds for p in parts),
        hashes=arrays("hashes").astype(np.int64) if all(p.hashes is not None for p in parts) else None,
        **{name: arrays(name) for name in names},  # type: ignore[arg-type]
    )
