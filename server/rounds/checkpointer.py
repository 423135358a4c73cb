"""Makes finished rounds permanent: commits client states, records client rows, writes checkpoints when due."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord
from torch import Tensor

from clients.core.arrays import I64, Array
from clients.core.errors import RunFolderError, StrategyError
from clients.training.client_states import ClientStates
from clients.training.kept.lazy_rows import LazyRows
from server.algorithms.state import ServerState
from server.record.checkpoint import Checkpoint, CheckpointStore
from server.record.jsonlines import Line
from server.record.kept.checkpoints import CheckpointFolder
from server.record.kept.parameters import ParameterFolder
from server.record.recorder import Recorder
from server.rounds.best_model import BestModel


@runtime_checkable
class Stateful(Protocol):
    """A strategy that can take part in a checkpoint."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return its state."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore its state."""


class _Saver:
    """Saves something of every few rounds; the first of several failures in a row is an event, and none ends the run.

    Args:
        every: rounds between them, at least 1.
        announce: receives the event.
    """

    what = ""
    """What is saved, in the plural: a part of the event's kind and message."""

    def __init__(self, every: int, announce: Callable[[dict[str, Any]], object]) -> None:
        self.every, self._announce, self._fails = every, announce, False

    def _try(self, round_index: int, save: Callable[[], object]) -> None:
        """Save what is due after a round."""
        try:
            save()
            self._fails = False
        except RunFolderError as error:
            if not self._fails:
                message = f"{self.what} are not kept from here on, while this lasts: {error.field} {error.problem}"
                self._announce({"round": round_index, "kind": f"{self.what}_not_kept", "message": message})
            self._fails = True


class ParameterSaver(_Saver):
    """Saves the model's parameters of every few rounds, of round 0 and of the last round.

    Args:
        folder: where they are kept.
        every: rounds between them, at least 1.
        tensors_of: state -> the model's state dict.
        announce: receives an event at the first of several failures in a row.
    """

    what = "parameters"

    def __init__(
        self,
        folder: ParameterFolder,
        every: int,
        tensors_of: Callable[[ServerState], Mapping[str, Tensor]],
        announce: Callable[[dict[str, Any]], object],
    ) -> None:
        super().__init__(every, announce)
        self.folder, self._tensors_of = folder, tensors_of

    def save(self, state: ServerState, *, is_last: bool = False) -> None:
        """Save the parameters of a finished round where they are due and not there yet."""
        round_index = state.round_index
        if (round_index % self.every and not is_last) or self.folder.entry(round_index).exists():
            return
        self._try(round_index, lambda: self.folder.write(round_index, self._tensors_of(state)))


class CheckpointSaver(_Saver):
    """Saves whole checkpoints of every few rounds and of round 0.

    Args:
        folder: where they are kept.
        every: rounds between them, at least 1.
        announce: receives an event at the first of several failures in a row.
    """

    what = "checkpoints"

    def __init__(self, folder: CheckpointFolder, every: int, announce: Callable[[dict[str, Any]], object]) -> None:
        super().__init__(every, announce)
        self.folder = folder

    def save(self, round_index: int, size: int, model: int, write: Callable[[], CheckpointStore]) -> None:
        """Save the checkpoint of a finished round where it is due and not there yet.

        Args:
            round_index: the round.
            size: bytes that the checkpoint adds.
            model: bytes of the model.
            write: writes the checkpoint of this round and returns its store.
        """
        if round_index % self.every or self.folder.entry(round_index).exists():
            return

        def saved() -> None:
            if not self.folder.has_room(size, model):
                raise RunFolderError(str(self.folder.path), "gets no more of the disk, which is left to the record")
            self.folder.keep(write())

        self._try(round_index, saved)


class RunCheckpointer:
    """Keeps a run's client states, client rows, checkpoints, and parameters and checkpoints of earlier rounds.

    Args:
        states: the states of in-process clients; None where clients run elsewhere.
        recorder: takes the clients' rows; None where nothing is recorded.
        store: the checkpoints; None where none are written.
        strategy: a user's strategy, whose own state is also saved; None for fedscape's.
        facts: written into every checkpoint; a resumed run must have the same.
        every_seconds: wall seconds between checkpoints.
        every_rounds: rounds between checkpoints; None uses `every_seconds`.
        parameters: saves the parameters of earlier rounds; None keeps none.
        checkpoints: saves the checkpoints of earlier rounds; None keeps none.

    Attributes:
        best: the best model so far by validation.
    """

    def __init__(
        self,
        states: ClientStates | None,
        recorder: Recorder | None,
        store: CheckpointStore | None,
        *,
        strategy: object = None,
        facts: Mapping[str, Any],
        every_seconds: float,
        every_rounds: int | None,
        parameters: ParameterSaver | None = None,
        checkpoints: CheckpointSaver | None = None,
    ) -> None:
        self._states, self._recorder, self._store = states, recorder, store
        self._strategy, self._facts = strategy, dict(facts)
        self._seconds, self._rounds = every_seconds, every_rounds
        self._parameters, self._checkpoints = parameters, checkpoints
        self._changed: dict[str, list[I64]] = {}
        self.best = BestModel()
        # The first checkpoint is due within a second, so that even a short run can be resumed after a kill.
        self._saved_at, self._saved_round = time.monotonic() - max(0.0, every_seconds - 1.0), -1
        self._saved_before = -1

    def commit(self, state: ServerState, line: Line, columns: dict[str, Array], scores: dict[str, Array]) -> None:
        """Make a finished round permanent; write a checkpoint when one is due."""
        self.best.observe(state, line)
        if self._states is not None:
            changed = self._states.commit()
            if self._store is not None:
                for name, clients in changed.items():
                    self._changed.setdefault(name, []).append(clients)
        if self._recorder is not None and columns:
            self._recorder.clients.add(state.round_index, columns)
        if self._recorder is not None and scores:
            self._recorder.add_scores(state.round_index, scores)
        self.keep(state)  # before the checkpoint: a resumed run does not play this round again
        if self._rounds is not None:
            due = state.round_index % self._rounds == 0
        else:
            due = time.monotonic() - self._saved_at >= self._seconds
        if due:
            self.save(state)

    def keep(self, state: ServerState, *, is_last: bool = False) -> None:
        """Keep parameters and checkpoint of a finished round where they are due; `is_last`: whether the run is over."""
        if self._parameters is not None:
            self._parameters.save(state, is_last=is_last)
        if self._checkpoints is not None and self._store is not None:
            model = state.params.nbytes + state.buffers.nbytes
            rows = max((len(part) for pieces in self._changed.values() for part in pieces), default=0)
            size = 2 * model + sum(v.nbytes for v in state.vectors.values()) + rows * len(self._changed) * model
            self._checkpoints.save(state.round_index, size, model, lambda: self._saved(state))

    def _saved(self, state: ServerState) -> CheckpointStore:
        """Write a checkpoint of a finished round, and return the store."""
        assert self._store is not None, "checkpoints are written"
        self.save(state)
        return self._store

    def rollback(self) -> None:
        """Drop the client states that a failed round staged."""
        if self._states is not None:
            self._states.rollback()

    def resumable_from(self, round_index: int) -> int:
        """Return the earliest round from which a run may go on that was killed after `round_index`."""
        return round_index if self._store is None else max(0, self._saved_before)

    def save(self, state: ServerState) -> None:
        """Write a checkpoint of a finished round, unless it exists already."""
        if self._store is None or self._saved_round == state.round_index:
            return
        if self._recorder is not None:
            self._recorder.sync()
        vectors = _vectors(self._strategy) if isinstance(self._strategy, Stateful) else state.vectors
        tensors = {"parameters": state.params, "buffers": state.buffers}
        tensors |= {f"server/{n}": t for n, t in vectors.items()}
        if state.arrays is not None:
            tensors |= {f"arrays/{i:06d}/{n}": _tensor(array) for i, (n, array) in enumerate(state.arrays.items())}
        tensors |= self.best.tensors(state)
        facts = self._facts | ({"record": self._recorder.heads()} if self._recorder is not None else {})
        facts |= {"best": self.best.facts} if self.best.facts else {}
        self._store.save(state.round_index, tensors, facts, self._take_changed())
        self._changed = {}
        self._saved_before = self._saved_round  # a checkpoint that is damaged falls back on the one before
        self._saved_at, self._saved_round = time.monotonic(), state.round_index

    def _take_changed(self) -> dict[str, tuple[I64, LazyRows]]:
        changed = {}
        for name, pieces in self._changed.items():
            clients = np.unique(np.concatenate(pieces))
            assert self._states is not None
            changed[name] = (clients, self._states.lazy_rows(name, clients))
        return changed

    def restore(self, checkpoint: Checkpoint) -> ServerState:
        """Restore client states and a user's strategy from a checkpoint; return the server's state."""
        for name, (clients, rows) in checkpoint.client_states.items():
            assert self._states is not None, "a run without in-process clients has no client states"
            for part, block in rows.parts():
                self._states.put(name, clients[part], block)
        if self._states is not None:
            self._states.commit()
        vectors = {n.removeprefix("server/"): t for n, t in checkpoint.tensors.items() if n.startswith("server/")}
        if isinstance(self._strategy, Stateful):
            self._strategy.load_state_dict(vectors)
        self._saved_round = checkpoint.round_index
        self.best.restore(checkpoint, checkpoint.facts.get("best"))
        params, buffers = checkpoint.tensors["parameters"], checkpoint.tensors["buffers"]
        return ServerState(checkpoint.round_index, params, buffers, vectors, _arrays(checkpoint))


def _arrays(checkpoint: Checkpoint) -> ArrayRecord | None:
    """Return the arrays that a user's strategy returned, in its order; None for fedscape's strategy."""
    names = sorted(n for n in checkpoint.tensors if n.startswith("arrays/"))
    found = {n.split("/", 2)[2]: FlowerArray(checkpoint.tensors[n].numpy()) for n in names}
    return ArrayRecord(found) if found else None


def _tensor(array: FlowerArray) -> Tensor:
    return torch.from_numpy(np.array(array.numpy()))


def _vectors(strategy: Stateful) -> Mapping[str, Tensor]:
    """Return the state of a user's strategy.

    Raises:
        StrategyError: it is no dictionary of tensors.
    """
    found: object = strategy.state_dict()
    name = f"{type(strategy).__name__}.state_dict"
    fix = 'Return one tensor for each name: {"m/weight": torch.as_tensor(self.m["weight"])}.'
    if not isinstance(found, Mapping):
        problem = f"{name} must return a dictionary of tensors, returned {type(found).__name__}"
        raise StrategyError("strategy", problem, fix=fix)
    wrong = [key for key, value in found.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if wrong:
        problem = f"{name} must return a dictionary of tensors, and {wrong[0]!r} is a {type(found[wrong[0]]).__name__}"
        raise StrategyError("strategy", problem, fix=fix)
    return found
