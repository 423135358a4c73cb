"""Builds the experiment that the round loop runs from a session."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.errors import StrategyError
from clients.core.user_code import naming
from clients.engines.base import Engine
from clients.engines.personal.adapted import AdaptedEvaluator
from clients.flower.codec import PARAMETERS
from clients.training.optimizers import penalties, penalty_gradient
from clients.training.work import CohortWork
from server.algorithms.objective import objective_weights
from server.algorithms.state import ServerState
from server.certificate.certifier import Certified, Certifier
from server.convergence.monitor import ConvergenceMonitor
from server.convergence.outcome import Trend
from server.record.jsonlines import Line
from server.rounds.evaluation_metrics import measure_adapted
from server.rounds.experiment import Checkpointer, Experiment
from server.rounds.judgement import Judge
from server.rounds.model_metrics import Curve, ModelMetrics, curve_of_objective, curve_on_test
from server.rounds.observers import Observers
from simulator.grid.clock import SlowestClientClock
from simulator.runs.measured import has_central
from simulator.runs.session import Session
from simulator.runs.strategies import evaluated_clients


def experiment_of(
    session: Session,
    observers: Observers,
    checkpointer: Checkpointer,
    stop_requested: Callable[[], bool],
    certifier: Certifier | None = None,
) -> Experiment:
    """Return the experiment of a session with its observers, its checkpointer and what certifies its rounds."""
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
        sender=session.sender,
        min_respondents=scenario.nodes.min_respondents,
        machinery=session.pool,
        stop_requested=stop_requested,
        certifier=certifier,
    )


def certifier_of(
    session: Session, certified: Certified, keep: Callable[[Line], object] | None = None
) -> Certifier | None:
    """Return what certifies the rounds of a session; None where nothing is certified.

    Args:
        session: what is run.
        certified: what the certificate has.
        keep: receives its lines; None keeps none.
    """
    if certified == "off":
        return None
    task, codec = session.task, session.codec
    is_flat = codec.parameters.names == (PARAMETERS,)
    named = (task.parameters, task.buffers) if is_flat else (codec.parameters, codec.buffers)
    return Certifier(*named, session.states, each_client=certified == "clients", keep=keep)


def trend_of(session: Session) -> Trend:
    """Return the fit of the rate: cross-entropy and squared errors are at least 0, an objective has no bound."""
    least = None if session.population.task == "objective" else 0.0
    return Trend(session.scenario.convergence, least=least)


def objective_notices(session: Session) -> list[str]:
    """Return a sentence where the run minimises another objective than that of the data, and measures both."""
    population = session.population
    gap, gradient = population.objective is not None, session.scenario.evaluation.gradient_every > 0
    if not gap and not gradient:
        return []
    clients = np.flatnonzero(population.sizes).astype(np.int64)
    differ = ["weighs clients otherwise than the data do"] if _own_weights(session, clients) is not None else []
    differ += ["has a penalty"] if any(penalties(session.task.local)) else []
    if not differ:
        return []
    whole = "sum p_k F_k of the data, without penalties"
    parts = [f"optimality_gap and distance_to_optimum are of f = {whole}"] if gap else []
    ours = "gradient_norm and gradient_dissimilarity are of the objective that the run minimises"
    parts += [ours] if gradient else []
    return [f"The run {' and '.join(differ)}: {'; '.join(parts)}."]


def _data_weights(session: Session, clients: I64) -> F64:
    """Return p_k of some clients, up to a factor."""
    return session.population.federation.weights_of(clients, session.population.sizes[clients].astype(np.int64))


def _own_weights(session: Session, clients: I64) -> F64 | None:
    """Return the weights of some clients in the objective that the algorithm minimises; None where they are p_k.

    A user's strategy counts as minimising the objective of the data, and so does an aggregation whose weights are no
    weights of an objective.
    """
    own = session.played.own
    if own is None or session.played.strategy is not own:
        return None
    try:
        ours = objective_shares(session)[clients]
    except StrategyError:
        return None
    given = _data_weights(session, clients)
    if ours.min() < 0 or not ours.sum() > 0 or np.allclose(ours / ours.sum(), given / given.sum(), rtol=1e-9, atol=0):
        return None
    return ours


def objective_shares(session: Session) -> F64:
    """Return p_k of all clients in the objective that the algorithm minimises; see `objective_weights`."""
    algorithm = session.played.own.algorithm if session.played.own is not None else None
    by_examples = algorithm is not None and session.scenario.algorithm.sampling == "by_examples"
    return objective_weights(
        algorithm, session.population.federation, local_lr=session.task.local.lr(1), drawn_by_examples=by_examples
    )


def _curves(session: Session) -> list[Curve]:
    """Return what `evaluation.objective_every` and `test_every` measure; `measured.check_curves` has checked them."""
    evaluation, population = session.scenario.evaluation, session.population
    curves = []
    if evaluation.objective_every:
        with naming("algorithm", "fails when all clients are weighed", kind=StrategyError):
            weights = objective_shares(session)
        curves.append(curve_of_objective(session.evaluator, weights, evaluation.objective_every))
    if evaluation.test_every:
        curves.append(curve_on_test(session.evaluator, population, evaluation.test_every))
    if evaluation.adapt_every:
        curves.append(_curve_after_adapting(session))
    return curves


def _curve_after_adapting(session: Session) -> Curve:
    """Return the curve of the scores that clients have after they adapted the model to their own data."""
    task, evaluation, population = session.task, session.scenario.evaluation, session.population
    assert session.engine is not None, "check_curves has refused nodes"
    adapted = AdaptedEvaluator(task, session.engine, evaluation.adapt_steps)
    clients = evaluated_clients(evaluation, population.sizes, task.seed)

    def measure(now: ServerState) -> Line:
        with naming("model", f"fails when clients adapt it in round {now.round_index}"):
            found = adapted.evaluate(now.params, now.buffers, clients, now.round_index)
        return measure_adapted(found, population)

    return Curve(evaluation.adapt_every, measure)


def _gradients(session: Session, engine: Engine) -> Callable[[int, Tensor, Tensor], tuple[Tensor, F64]]:
    """Return (round, params, buffers) -> full-batch gradients of the evaluating clients, and their weights.

    They are gradients of the objective that the run minimises: with the penalties of [local], which every client has.
    """
    scenario, task = session.scenario, session.task
    fits = scenario.engine.keep_bytes // (task.parameters.size * task.dtype.itemsize)
    most = max(1, min(scenario.evaluation.federated_clients, fits))
    options = replace(scenario.evaluation, federated_clients=most)
    clients = evaluated_clients(options, session.population.sizes, task.seed)
    weights = _own_weights(session, clients)
    weights = _data_weights(session, clients) if weights is None else weights
    shares = torch.from_numpy(weights / weights.sum())
    free = [task.parameters.names.index(name) for name in task.passes.unused]  # no step moves or shrinks these

    def gradients(round_index: int, params: Tensor, buffers: Tensor) -> tuple[Tensor, F64]:
        work = CohortWork(round_index=round_index, clients=clients, params=params, buffers=buffers)
        rows = engine.gradients(work)
        penalty = penalty_gradient(task.local, params, shares.to(rows) @ rows)
        if penalty is None:
            return rows, weights
        for i in free:
            start = task.parameters.starts[i]
            penalty[start : start + math.prod(task.parameters.shapes[i])] = 0.0
        return rows + penalty, weights

    return gradients
