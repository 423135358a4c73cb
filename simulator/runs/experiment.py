"""Builds the experiment that the round loop runs from a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from clients.core.arrays import F64
from clients.core.errors import StrategyError
from clients.core.user_code import naming
from clients.engines.base import Engine
from clients.training.work import CohortWork
from server.algorithms.objective import objective_weights
from server.convergence.monitor import ConvergenceMonitor
from server.convergence.outcome import Trend
from server.rounds.experiment import Checkpointer, Experiment
from server.rounds.judgement import Judge
from server.rounds.model_metrics import Curve, ModelMetrics, curve_of_objective, curve_on_test
from server.rounds.observers import Observers
from simulator.grid.clock import SlowestClientClock
from simulator.runs.measured import has_central
from simulator.runs.session import Session
from simulator.runs.strategies import evaluated_clients

NODES_TIMEOUT = 3600.0
"""Seconds that a round waits for nodes, as in Flower's own strategies; nodes without a reply are left out."""


def experiment_of(
    session: Session, observers: Observers, checkpointer: Checkpointer, stop_requested: Callable[[], bool]
) -> Experiment:
    """Return the experiment of a session with its observers and checkpointer."""
    scenario, population, played = session.scenario, session.population, session.played
    return Experiment(
        strategy=played.strategy,
        own=played.own,
        grid=session.grid,
        nodes=session.nodes,
        codec=session.codec,
        population=population,
        clock=SlowestClientClock(scenario.fleet),
        model_metrics=ModelMetrics(
            population,
            session.evaluator if has_central(population) else None,
            gradients=_gradients(session, session.engine) if session.engine is not None else None,
            gradient_every=scenario.evaluation.gradient_every,
            curves=_curves(session),
        ),
        judge=Judge(ConvergenceMonitor(scenario.convergence), population.task, trend_of(session)),
        observers=observers,
        checkpointer=checkpointer,
        rounds=scenario.run.rounds,
        seed=scenario.run.seed,
        module=session.module,
        timeout=NODES_TIMEOUT if session.states is None else None,
        stop_requested=stop_requested,
    )


def trend_of(session: Session) -> Trend:
    """Return the fit of the rate: cross-entropy and squared errors are at least 0, an objective has no bound."""
    least = None if session.population.task == "objective" else 0.0
    return Trend(session.scenario.convergence, least=least)


def _curves(session: Session) -> list[Curve]:
    """Return what `evaluation.objective_every` and `test_every` measure; `measured.check_curves` has checked them."""
    evaluation, population, own = session.scenario.evaluation, session.population, session.played.own
    curves = []
    if evaluation.objective_every:
        with naming("algorithm", "fails when all clients are weighed", kind=StrategyError):
            weights = objective_weights(
                own.algorithm.aggregation if own is not None else None,
                population.federation,
                local_lr=session.task.local.lr(1),
                drawn_by_examples=own is not None and session.scenario.algorithm.sampling == "by_examples",
            )
        curves.append(curve_of_objective(session.evaluator, weights, evaluation.objective_every))
    if evaluation.test_every:
        curves.append(curve_on_test(session.evaluator, population, evaluation.test_every))
    return curves


def _gradients(session: Session, engine: Engine) -> Callable[[int, Tensor, Tensor], tuple[Tensor, F64]]:
    """Return (round, params, buffers) -> full-batch gradients of the evaluating clients, and their weights."""
    scenario, sizes, facts = session.scenario, session.population.sizes, session.population.federation
    fits = scenario.engine.keep_bytes // (session.task.parameters.size * session.task.dtype.itemsize)
    most = max(1, min(scenario.evaluation.federated_clients, fits))
    clients = evaluated_clients(replace(scenario.evaluation, federated_clients=most), sizes, session.task.seed)
    weights = facts.weights_of(clients, sizes[clients].astype(np.int64))

    def gradients(round_index: int, params: Tensor, buffers: Tensor) -> tuple[Tensor, F64]:
        work = CohortWork(round_index=round_index, clients=clients, params=params, buffers=buffers)
        return engine.gradients(work), weights

    return gradients
