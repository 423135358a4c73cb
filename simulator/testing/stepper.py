"""A federation played one round at a time, in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from clients.core.arrays import Array
from clients.engines.native.threads import threads_restored
from clients.flower.shim import quiet
from clients.training.client_states import ClientStates
from clients.training.work import CohortUpdate
from server.algorithms.algorithm import Algorithm
from server.algorithms.state import ServerState
from server.record.jsonlines import Line
from server.rounds.cohort_sum import CohortResult
from server.rounds.experiment import Experiment
from server.rounds.observers import Observers
from server.rounds.play import RoundResult, play_round
from simulator.engines.devices import device_restored, on_device
from simulator.engines.plan import use_threads
from simulator.runs.arguments.checks import check_parts
from simulator.runs.building import DataLike, ModelLike, Overrides, scenario_of
from simulator.runs.experiment import experiment_of
from simulator.runs.session import Session, open_session
from simulator.runs.strategies import StrategyChoice
from simulator.scenario.sections import ScenarioSource


class _Staged:
    """Keeps client states in memory: no rows, no checkpoint."""

    def __init__(self, states: ClientStates | None) -> None:
        self._states = states

    def commit(self, state: ServerState, line: Line, columns: dict[str, Array], scores: dict[str, Array]) -> None:
        if self._states is not None:
            self._states.commit()

    def rollback(self) -> None:
        if self._states is not None:
            self._states.rollback()

    def resumable_from(self, round_index: int) -> int:
        return round_index


class Stepper:
    """Plays a scenario round by round. Rounds have the same bits as those of `fedscape.simulate` with the same engine.

    One process plays them unless the scenario has a number in `engine.workers`.

    Args:
        scenario: a `Scenario`, a table, a file, or a built-in's name; the default scenario without one.
        model: a torch module, or a function that makes one, instead of [model].
        data: clients instead of [data] and [partition], or pooled arrays instead of [data].
        algorithm: an algorithm of your own.
        strategy: a Flower strategy, or a function that wraps ours.

    Attributes:
        session: the session that is played.
        state: the server's current state.
        result: the measurements of the last round; None before the first.

    Raises:
        UserError: the scenario cannot run; the message names the key and the fix.

    Example:
        >>> stepper = Stepper("quadratic-two-clients")
        >>> stepper.step(3)[-1].item() == stepper.params.item()
        True
        >>> stepper.state.round_index
        3
    """

    @threads_restored()
    @device_restored()
    def __init__(
        self,
        scenario: ScenarioSource = None,
        *,
        model: ModelLike | None = None,
        data: DataLike | None = None,
        algorithm: Algorithm | None = None,
        strategy: StrategyChoice | None = None,
    ) -> None:
        quiet()
        check_parts(model=model, data=data, algorithm=algorithm, strategy=strategy)
        scenario = scenario_of(scenario)
        if scenario.engine.workers == "auto":  # no process outlives a stepper that is not closed
            scenario = replace(scenario, engine=replace(scenario.engine, workers=1))
        self.session: Session = open_session(scenario, Overrides(model, data, algorithm, strategy))
        self.experiment: Experiment = experiment_of(
            self.session, Observers([]), _Staged(self.session.states), lambda: False
        )
        self.state: ServerState = self.session.start
        self.result: RoundResult | None = None

    def close(self) -> None:
        """End the worker processes, where the scenario has some; `with Stepper(...) as stepper:` does it at its end."""
        self.session.close()

    def __enter__(self) -> Self:
        """Return the stepper."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the stepper."""
        self.close()

    @property
    def params(self) -> Tensor:
        """The server's current parameters, flat [P]."""
        return self.state.params

    @property
    def update(self) -> CohortUpdate:
        """The update of the last round's cohort; without parameters if they were not kept."""
        return self.total.update

    @property
    def total(self) -> CohortResult:
        """The sum of the last round's updates.

        Raises:
            AssertionError: no round was played, or the round had no update.
        """
        assert self.result is not None, "no round was played yet"
        assert self.result.total is not None, "the round had no update"
        return self.result.total

    def step(self, rounds: int = 1) -> Tensor:
        """Play rounds; return the server's parameters after each, [rounds, P]."""
        after = []
        for _ in range(rounds):
            self.state, self.result = self._play(self.state)
            self.experiment.checkpointer.commit(self.state, self.result.line, self.result.columns, self.result.scores)
            after.append(self.state.params)
        return torch.stack(after)

    def probe(self, params: Tensor, round_index: int = 1) -> Tensor:
        """Return the parameters after round `round_index` from other parameters [P]; the stepper does not change."""
        start = ServerState(round_index - 1, params, self.state.buffers, self.state.vectors)
        new, self.result = self._play(start)
        self.experiment.checkpointer.rollback()
        return new.params

    @threads_restored()
    @device_restored()
    def _play(self, state: ServerState) -> tuple[ServerState, RoundResult]:
        """Play a round with the threads that the scenario's engine was planned for."""
        plan, task = self.session.plan, self.session.task
        if plan is not None:
            use_threads(plan, task)
        on_device(task, self.session.scenario.engine, task.device)
        return play_round(self.experiment, state)

    def client_state(self, name: str, clients: Any) -> Tensor:
        """Return a state vector of clients (int64 (K,)) by its name, [K, P]; zeros for clients without one."""
        assert self.session.states is not None
        return self.session.states.gather(name, clients, self.params.numel(), self.params.dtype)
