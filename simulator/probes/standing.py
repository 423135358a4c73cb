"""The state of a recorded run after a round: of a checkpoint, or of rounds played again from the last one before it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from clients.core.errors import RunFolderError, StrategyError, UserError, listed
from clients.engines.base import Engine
from clients.engines.plain import PlainEngine
from clients.engines.ranks.distributed import DistributedEngine
from clients.training.task import LearningTask
from server.algorithms.state import ServerState
from server.record.records import RunFolder
from server.rounds.experiment import Experiment
from server.rounds.strategy import FederatedStrategy
from simulator.replay.branch import kept_rounds
from simulator.replay.replaying import Replayable, nearest_checkpoint, open_again, state_of
from simulator.runs.session import Session
from simulator.workers.engine import WorkersEngine


@dataclass(frozen=True)
class Standing:
    """A run at the end of a round, in memory.

    Attributes:
        run: the recorded run.
        session: its scenario, made ready; the client states are those after the round.
        experiment: what plays a round.
        state: the server's state after the round.
        source: where the state comes from, in words.
        reasons: why bits may differ from the run's here, as clauses.
        seconds: what it took.
    """

    run: Replayable
    session: Session
    experiment: Experiment
    state: ServerState
    source: str
    reasons: tuple[str, ...]
    seconds: float

    @property
    def own(self) -> FederatedStrategy:
        """Our strategy."""
        assert self.session.played.own is not None, "runs of a user's strategy are refused"
        return self.session.played.own

    @property
    def next_round(self) -> int:
        """The round that probes play."""
        return self.state.round_index + 1

    def engine(self, task: LearningTask) -> Engine:
        """Return an engine of this process for a task: that of the run, with one worker and one device."""
        engine = self.session.engine
        assert engine is not None, "the clients are in this process"
        if isinstance(engine, WorkersEngine):
            engine = engine.inner
        if isinstance(engine, DistributedEngine):
            return PlainEngine(replace(task, local=replace(task.local, devices=1)))
        return engine.with_task(task)


def check_probed(folder: RunFolder) -> None:
    """Refuse a run whose clients or strategy cannot be had here.

    Raises:
        RunFolderError: its clients were on nodes or in a ClientApp, or the folder cannot be read.
        StrategyError: a strategy from Python played it.
    """
    made = ((folder.read_environment() or {}).get("run") or {}).get("from_python") or ()
    for part, where in (("grid", "on nodes"), ("client_app", "in a ClientApp")):
        if part in made or (part == "grid" and folder.federation.exists()):
            problem = f"had its clients {where}, and a probe trains them in this process"
            raise RunFolderError(str(folder.path), problem, fix="Probe a run of fedscape's own clients.")
    if "strategy" in made:
        problem = "is your own, and probes change the cohort and the local work of fedscape's"
        raise StrategyError("strategy", problem, fix="Probe a run with [algorithm], or with algorithm= from Python.")


def chosen_round(run: Replayable, round_index: int | None) -> int:
    """Return the round after which to probe: the one given, or the last with a checkpoint.

    Raises:
        UserError: it is no recorded round.
    """
    last = int(max(line["round"] for line in run.lines))
    if round_index is None:
        return max([0, *(r for r in kept_rounds(run.folder) if r <= last)])
    if isinstance(round_index, bool) or not isinstance(round_index, int) or not 0 <= round_index <= last:
        raise UserError("round", f"must be a recorded round, 0 to {last}, got {round_index!r:.40}")
    if round_index < run.first:
        raise UserError("round", f"must be at least {run.first}, where the branch begins, got {round_index}",
                        fix="Probe the run that it was branched from.")  # fmt: skip
    return round_index


def check_replay(run: Replayable, round_index: int, most: float) -> int:
    """Return how many rounds must be played again to stand after a round.

    Raises:
        UserError: by the record they took longer than `most` seconds.
    """
    after = nearest_checkpoint(run, round_index + 1)
    rounds = [line for line in run.lines if after < line["round"] <= round_index]
    foreseen = sum(float(line.get("wall_seconds") or 0.0) for line in rounds)
    if foreseen > most:
        kept = [r for r in kept_rounds(run.folder) if r <= round_index]
        near = f"the nearest checkpoint before it is of round {kept[-1]}" if kept else "no checkpoint lies before it"
        problem = f"{round_index} has no checkpoint, and {near}: the rounds between took {foreseen:.3g} s"
        there = listed(map(str, kept_rounds(run.folder)), 12)
        fix = f"Allow more than replay_seconds = {most:g}"
        fix += f", or probe a round that has one: {there}." if there else "."
        more = " run.keep_checkpoints_every = k keeps those of every k rounds."
        raise UserError("round", problem, fix=fix + more)
    return len([line for line in rounds if line["round"] > 0])


@contextmanager
def standing_after(run: Replayable, round_index: int, *, replay_seconds: float) -> Iterator[Standing]:
    """Stand at the end of a round of a run; nothing of its folder changes.

    Raises:
        UserError: the run cannot be probed here, or the replay would take too long.
    """
    started = time.perf_counter()
    again = check_replay(run, round_index, replay_seconds)
    session, reasons = open_again(run, round_index + 1)
    try:
        experiment, state = state_of(run, session, round_index)
        # A run ends at the state before a round that leaves parameters that are not finite.
        if state.round_index != round_index or not torch.isfinite(state.params).all():
            problem = f"{round_index} left parameters that are not finite"
            raise UserError("round", problem, fix="Probe an earlier round.")
        words = (
            f"{again} round{'s' * (again > 1)} played again"
            if again
            else "a checkpoint"
            if round_index
            else "the initial model"
        )
        yield Standing(run, session, experiment, state, words, tuple(reasons), time.perf_counter() - started)
    finally:
        session.close()
