"""What lasts of a run: client states become current, rows are recorded, checkpoints are written when due."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from clients.core.arrays import I64
from clients.training.client_states import ClientStates
from server.record.checkpoint import Checkpoint, CheckpointStore
from server.record.records import Recorder
from server.rounds.loop import RoundState
from server.rounds.round_metrics import LocalRound


@runtime_checkable
class Stateful(Protocol):
    """A strategy that can take part in a checkpoint."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what it remembers."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it up again."""


class RunKeeper:
    """Keeps a run's states, client rows and checkpoints.

    Args:
        states: what in-process clients remember; None where they live elsewhere.
        recorder: takes the clients' rows; None where nothing is recorded.
        store: the checkpoints; None where none are written.
        strategy: whose state is kept.
        foreign: whether the strategy is a user's: then the arrays are kept as it returned them, whose types need not be
            the model's (Flower's FedAdam goes on in float64).
        facts: written into every checkpoint: what a resumed run must agree with.
        every_seconds: wall seconds between checkpoints.
        every_rounds: rounds between checkpoints; None leaves it to the seconds.
    """

    def __init__(
        self,
        states: ClientStates | None,
        recorder: Recorder | None,
        store: CheckpointStore | None,
        *,
        strategy: object,
        foreign: bool = False,
        facts: Mapping[str, Any],
        every_seconds: float,
        every_rounds: int | None,
    ) -> None:
        self._states, self._recorder, self._store = states, recorder, store
        self._strategy, self._foreign, self._facts = strategy, foreign, dict(facts)
        self._seconds, self._rounds = every_seconds, every_rounds
        self._changed: dict[str, list[I64]] = {}
        # The first is due after a second at most: a run of seconds that is killed has something to go on from.
        self._saved_at, self._saved_round = time.monotonic() - max(0.0, every_seconds - 1.0), -1

    def commit(self, state: RoundState, local: LocalRound) -> None:
        """Make the round last; write a checkpoint when one is due."""
        if self._states is not None:
            for name, clients in self._states.commit().items():
                self._changed.setdefault(name, []).append(clients)
        if self._recorder is not None and local.columns:
            self._recorder.clients.add(state.round_index, local.columns)
        if self._rounds is not None:
            due = state.round_index % self._rounds == 0
        else:
            due = time.monotonic() - self._saved_at >= self._seconds
        if due:
            self.save(state)

    def rollback(self) -> None:
        """Forget what the clients of a broken round staged."""
        if self._states is not None:
            self._states.rollback()

    def save(self, state: RoundState) -> None:
        """Write a checkpoint of a finished round, unless it is there."""
        if self._store is None or self._saved_round == state.round_index:
            return
        if self._recorder is not None:
            self._recorder.sync()
        own = self._strategy.state_dict() if isinstance(self._strategy, Stateful) else {}
        tensors = {"parameters": state.params, "buffers": state.buffers, **{f"server/{n}": t for n, t in own.items()}}
        if self._foreign:
            tensors |= {f"arrays/{i:06d}/{n}": _tensor(array) for i, (n, array) in enumerate(state.arrays.items())}
        self._store.save(state.round_index, tensors, self._facts, self._take_changed())
        self._changed = {}
        self._saved_at, self._saved_round = time.monotonic(), state.round_index

    def _take_changed(self) -> dict[str, tuple[I64, Tensor]]:
        changed = {}
        for name, pieces in self._changed.items():
            clients = np.unique(np.concatenate(pieces))
            assert self._states is not None
            changed[name] = (clients, self._states.rows(name, clients))
        return changed

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the client states and the strategy's state of a checkpoint."""
        for name, (clients, rows) in checkpoint.client_states.items():
            assert self._states is not None, "a run without in-process clients has no client states"
            self._states.put(name, clients, rows)
        if self._states is not None:
            self._states.commit()
        if isinstance(self._strategy, Stateful):
            own = {n.removeprefix("server/"): t for n, t in checkpoint.tensors.items() if n.startswith("server/")}
            self._strategy.load_state_dict(own)
        self._saved_round = checkpoint.round_index


def kept_arrays(checkpoint: Checkpoint) -> ArrayRecord | None:
    """Return the arrays as a user's strategy had returned them, in its order; None for a strategy of ours."""
    names = sorted(n for n in checkpoint.tensors if n.startswith("arrays/"))
    found = {n.split("/", 2)[2]: Array(checkpoint.tensors[n].numpy()) for n in names}
    return ArrayRecord(found) if found else None


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array.numpy()))
