"""Plays rounds of a recorded run again and yields the server's states; trains a cohort from one of them.

The states have the bits of the run, as `simulator.replay.verify` shows. Nothing is evaluated and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import RunFolderError, StrategyError
from clients.core.numbers.spacing import evenly_spaced
from clients.training.work import CohortWork
from server.algorithms.state import ServerState
from server.rounds.checkpointer import RunCheckpointer
from server.rounds.experiment import Experiment
from server.rounds.model_metrics import ModelMetrics
from server.rounds.observers import Observers
from server.rounds.play import play_round
from server.rounds.strategy import nobody
from simulator.grid.local_clients import LocalClients
from simulator.replay.branch import checkpoint_of
from simulator.replay.replaying import NEVER, Replayable
from simulator.runs.experiment import experiment_of
from simulator.runs.session import Session

ENDS_BYTES = 2**30
"""What the parameters of a cohort may take."""
MOST_ENDS = 200
"""The most clients whose ends are kept."""


@dataclass(frozen=True)
class ClientEnds:
    """Where the clients of a round end: their parameters after local training, as they send them.

    Attributes:
        round_index: the round.
        start: the server's state before it.
        clients: int64 (K,), those whose ends are finite.
        params: [K, P].
        buffers: [K, Q].
        cohort: how many clients the round has; more than K where some are left out.
        lost: how many clients were trained and are left out, as their ends are not finite.
    """

    round_index: int
    start: ServerState
    clients: I64
    params: Tensor
    buffers: Tensor
    cohort: int
    lost: int = 0


def walk(session: Session, run: Replayable, *, after: int, last: int) -> Iterator[ServerState]:
    """Yield the server's state after each round of a run, beginning with the state to start from.

    Client states in `session` are those of the same round.

    Args:
        session: of the run, fresh.
        run: the run.
        after: the round of the checkpoint to begin from; -1 for the initial model.
        last: the last round.

    Raises:
        RunFolderError: the checkpoint is of another model.
    """
    own = session.played.own
    if own is not None:
        own.federation = replace(own.federation, evaluated=nobody)
    foreign = session.played.strategy if session.played.strategy is not own else None
    checkpointer = RunCheckpointer(
        session.states, None, None, strategy=foreign, facts={}, every_seconds=NEVER, every_rounds=None
    )
    experiment = replace(
        experiment_of(session, Observers([]), checkpointer, lambda: False),
        model_metrics=ModelMetrics(session.population),
    )
    state = session.start
    if after >= 0:
        checkpoint = checkpoint_of(run.folder, after)
        if checkpoint.tensors["parameters"].shape != state.params.shape:
            problem = "has a checkpoint of another model"
            raise RunFolderError(str(run.folder.path), problem, fix="Pass the model= of the run.")
        state = checkpointer.restore(checkpoint)
    yield state
    while state.round_index < last:
        state = _next(experiment, checkpointer, state)
        yield state


def _next(experiment: Experiment, checkpointer: RunCheckpointer, state: ServerState) -> ServerState:
    """Play one round and make its client states permanent."""
    state, result = play_round(experiment, state)
    checkpointer.commit(state, result.line, result.columns, result.scores)
    return state


def client_ends(session: Session, state: ServerState) -> ClientEnds:
    """Train the cohort of the round after `state` as the run does; client states stay those before the round.

    Raises:
        StrategyError: the clients or their cohort are a user's own, or no end is finite.
    """
    own, engine = session.played.own, session.engine
    if own is None or session.played.strategy is not own or engine is None or session.states is None:
        problem = "of clients cannot be found: the run has a strategy, a ClientApp or a grid of the user's"
        raise StrategyError("ends", problem, fix="Use plane='path'.")
    round_index, algorithm = state.round_index + 1, own.algorithm
    vectors = state.vectors or algorithm.server.init(state.params)
    cohort = own.federation.sampler.draw(round_index).clients
    fits = ENDS_BYTES // max(1, state.params.nbytes + state.buffers.nbytes)
    clients = cohort[evenly_spaced(len(cohort), max(1, min(MOST_ENDS, fits)))]
    work = CohortWork(
        round_index=round_index,
        clients=clients,
        params=state.params,
        buffers=state.buffers,
        rule=algorithm.local,
        uplink=algorithm.uplink,
        broadcast={name: vectors[name] for name in algorithm.local.broadcast},
    )
    trains = LocalClients(engine, session.codec, session.states, session.scenario.engine.keep_bytes)
    try:
        update = trains.train([], work).update
    finally:
        session.states.rollback()
    params, buffers = update.params.cpu(), update.buffers.cpu()
    finite = (torch.isfinite(params).all(1) & torch.isfinite(buffers).all(1)).numpy()
    if not finite.any():
        problem = f"of the clients of round {round_index} are not finite: their training diverges"
        raise StrategyError("ends", problem, fix="Name an earlier round.")
    lost = int((~finite).sum())
    return ClientEnds(round_index, state, update.clients[finite], params[finite], buffers[finite], len(cohort), lost)
