"""From a scenario to everything the round loop plays with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from clients import streams
from clients.codec import Codec
from clients.errors import ScenarioError, StrategyError, UserError
from clients.evaluation import Evaluator
from clients.flower_shim import FIRST_NODE
from clients.models import MlpOptions, build_model
from clients.plain import PlainEngine
from clients.population import Population
from clients.sources import build_population
from clients.stacked import StackedEngine
from clients.task import LearningTask, make_task
from clients.work import F64, I64, ClientStates, CohortWork
from server.algorithms import build_algorithm, local_for
from server.cohorts import CohortSampler
from server.convergence import ConvergenceMonitor, require_measured
from server.criteria_options import FACTS
from server.loop import Experiment, Keeper, RoundState
from server.meter import RoundMeter
from server.observers import Observers
from server.outcome import Trend
from server.strategy import FederatedStrategy
from simulator.clock import SlowestClientClock
from simulator.grid import CohortGrid
from simulator.local_clients import LocalClients
from simulator.planner import EnginePlan, engine_from_plan, plan_engine
from simulator.scenario import EvaluationOptions, Scenario


@dataclass(frozen=True)
class Overrides:
    """What Python brings instead of the scenario's own.

    Attributes:
        model: a module instead of [model].
        population: a population instead of [data] and [partition].
        strategy: any Flower strategy instead of [algorithm].
        client_app: any Flower ClientApp instead of our clients.
    """

    model: nn.Module | None = None
    population: Population | None = None
    strategy: Strategy | None = None
    client_app: ClientApp | None = None


@dataclass(frozen=True)
class Session:
    """A scenario made ready.

    Attributes:
        scenario: as given, with the local work the algorithm runs.
        population: all clients.
        task: what is learnt; its local training is what runs.
        strategy: plays the algorithm.
        grid: holds the clients.
        codec: how models travel.
        start: the initial model.
        local: trains in this process; None where a ClientApp does.
        plan: which engine and why; None where a ClientApp trains.
        states: what in-process clients remember.
        cohort: clients asked a round; None where a foreign strategy decides.
    """

    scenario: Scenario
    population: Population
    task: LearningTask
    strategy: Strategy
    grid: Grid
    codec: Codec
    start: RoundState
    local: LocalClients | None
    plan: EnginePlan | None
    states: ClientStates | None
    cohort: int | None


def make_task_of(scenario: Scenario, given: Overrides) -> LearningTask:
    """Build the population, the model and the task of a scenario.

    Raises:
        UserError: naming the key at fault.
    """
    seed, dtype = scenario.run.seed, getattr(torch, scenario.run.dtype)
    population = given.population
    if population is None:
        if scenario.data is None:
            raise ScenarioError("data", "is missing", fix="Add a [data] section, or pass data= from Python.")
        with_section = "partition" if scenario.partition is not None else "data"
        try:
            population = build_population(scenario.data, scenario.partition, seed=seed, dtype=dtype)
        except UserError as error:
            raise error if "." in error.field or "/" in error.field else error.inside(with_section) from None
    module = given.model
    if module is None:
        if scenario.model is None:
            raise ScenarioError("model", "is missing", fix="Add a [model] section, or pass model= from Python.")
        try:
            module = build_model(scenario.model, population, int(streams.keys(seed, "model") >> np.uint64(2)))
        except UserError as error:
            raise error.inside("model") from None
    count_errors = population.task == "classification" and scenario.convergence.error_free is not None
    try:
        return make_task(module, population, local_for(scenario.algorithm, scenario.local), seed=seed, dtype=dtype,
                         count_errors=count_errors)  # fmt: skip
    except UserError as error:
        raise error.inside("local") if error.field in ("batch_size", "local_steps") else error from None


def open_session(scenario: Scenario, given: Overrides, *, plan: EnginePlan | None = None) -> Session:
    """Make a scenario ready to run in this process.

    Args:
        scenario: the experiment.
        given: what Python brings.
        plan: the engine chosen before, for a resumed run; None plans now.

    Raises:
        UserError: the scenario cannot run; naming the key and the fix.
    """
    task = make_task_of(scenario, given)
    population, seed = task.population, scenario.run.seed
    foreign_client = given.client_app is not None
    params, buffers = task.initial()
    if foreign_client:
        arrays = ArrayRecord(task.module.state_dict())
        codec = Codec.of_state_dict(arrays, task.module)
        start = RoundState(0, *codec.decode(arrays), arrays)
    else:
        codec = Codec.flat(task.parameters, task.buffers, task.dtype)
        start = RoundState(0, params, buffers, codec.encode(params, buffers))
    sampler = CohortSampler(scenario.algorithm, population.sizes, seed) if given.strategy is None else None
    strategy = given.strategy or _own_strategy(scenario, task, codec, sampler)
    states = None if foreign_client else ClientStates()
    local = None
    if states is not None:
        cohort = sampler.size if sampler is not None else population.num_clients
        if plan is None:
            engine, plan = plan_engine(scenario.engine, task, cohort, scenario.run.rounds)
        else:
            engine = engine_from_plan(plan, task)
        local = LocalClients(engine, Evaluator(task), codec, states, scenario.engine.keep_bytes)
    grid = CohortGrid(population.num_clients, local, client_app=given.client_app)
    _check_minimums(given.strategy, population.num_clients)
    cohort_size = sampler.size if sampler is not None else None
    return Session(scenario, population, task, strategy, grid, codec, start, local, plan, states, cohort_size)


def experiment(session: Session, observers: Observers, keeper: Keeper, stop_asked: Callable[[], bool]) -> Experiment:
    """Join a session with its observers and keeper.

    Raises:
        UserError: a criterion looks at what this run does not measure.
    """
    scenario, population = session.scenario, session.population
    own = session.strategy if isinstance(session.strategy, FederatedStrategy) else None
    central = population.task == "objective" or population.validation is not None
    meter = RoundMeter(
        session.codec,
        population,
        SlowestClientClock(scenario.fleet),
        client_of=lambda node: node - FIRST_NODE,
        evaluator=_central_evaluator(session) if central else None,
        gradients=_gradients(session) if session.local is not None else None,
        gradient_every=scenario.evaluation.gradient_every,
    )
    try:
        require_measured(scenario.convergence, _measured(session, central))
    except UserError as error:
        raise error.inside("convergence") from None
    return Experiment(
        strategy=session.strategy,
        grid=session.grid,
        codec=session.codec,
        meter=meter,
        monitor=ConvergenceMonitor(scenario.convergence),
        observers=observers,
        keeper=keeper,
        rounds=scenario.run.rounds,
        seed=scenario.run.seed,
        timeout=None,
        coefficients=own.coefficients if own is not None else None,
        foreign=own is None,
        stop_asked=stop_asked,
        trend=Trend(scenario.convergence),
    )


def evaluated_clients(options: EvaluationOptions, sizes: np.ndarray[Any, np.dtype[np.int32]], seed: int) -> I64:
    """Return the clients that evaluate, or pass over their gradients: all that have data, or a seeded choice."""
    busy = np.flatnonzero(sizes).astype(np.int64)
    if len(busy) <= options.federated_clients:
        return busy
    return busy[streams.choose(streams.keys(seed, "federated_evaluation"), len(busy), options.federated_clients)]


def _own_strategy(
    scenario: Scenario, task: LearningTask, codec: Codec, sampler: CohortSampler | None
) -> FederatedStrategy:
    assert sampler is not None
    sizes, every = task.population.sizes, scenario.evaluation.federated_every
    evaluators = evaluated_clients(scenario.evaluation, sizes, task.seed)

    def evaluated(round_index: int) -> I64:
        return evaluators if every and round_index % every == 0 else evaluators[:0]

    return FederatedStrategy(
        build_algorithm(scenario.algorithm, task.local),
        task.local,
        codec,
        sampler,
        sizes,
        seed=task.seed,
        drop_partial_work=scenario.algorithm.partial_work == "drop",
        evaluated=evaluated,
    )


def _central_evaluator(session: Session) -> Evaluator | None:
    """Return the evaluator; a ClientApp's arrays are those of the same module, laid out by their own codec."""
    if session.local is not None:
        return session.local.evaluator
    task = session.task
    return Evaluator(replace(task, parameters=session.codec.parameters, buffers=session.codec.buffers))


def _gradients(session: Session) -> Callable[[Tensor, Tensor], tuple[Tensor, F64]]:
    """Return (params, buffers) -> full-batch gradients of the evaluating clients, and their weights."""
    clients = evaluated_clients(session.scenario.evaluation, session.population.sizes, session.task.seed)
    weights = session.population.sizes[clients].astype(np.float64)
    assert session.local is not None
    engine = session.local.engine
    assert isinstance(engine, PlainEngine | StackedEngine)

    def gradients(params: Tensor, buffers: Tensor) -> tuple[Tensor, F64]:
        return engine.gradients(CohortWork(round_index=0, clients=clients, params=params, buffers=buffers)), weights

    return gradients


def _measured(session: Session, central: bool) -> frozenset[str]:
    """Return the facts this run will measure."""
    population, evaluation = session.population, session.scenario.evaluation
    kinds = {
        "classification": ("loss", "accuracy", "error"),
        "regression": ("loss", "error", "mae"),
        "objective": ("loss",),
    }
    names = {"train_loss", "relative_change", "pseudo_gradient_norm", "largest_gradient_norm"}
    if central:
        names |= {f"validation_{k}" for k in kinds[population.task]}
        names |= {"agreement"} if population.task != "objective" else set()
    if evaluation.federated_every:
        names |= {f"federated_{k}" for k in kinds[population.task]}
    if evaluation.gradient_every and session.local is not None:
        names.add("gradient_norm")
    if population.optimal_value is not None:
        names.add("optimality_gap")
    if session.task.count_errors and session.local is not None:
        names.add("train_errors")
    return frozenset(names) & frozenset(FACTS)


def _check_minimums(strategy: Strategy | None, nodes: int) -> None:
    """Refuse a Flower strategy that would wait for nodes for ever."""
    inner: Any = strategy
    while hasattr(inner, "strategy"):
        inner = inner.strategy
    if isinstance(inner, FederatedStrategy) and inner is not strategy and inner.algorithm.rule.shared:
        raise StrategyError(
            "strategy",
            f"wraps {inner.algorithm.name!r}, whose clients return more than parameters: a wrapper would spoil it",
            fix="Wrap fedavg, fedprox, fedadam or another row whose clients return parameters only.",
        )
    for name in ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes"):
        least = getattr(inner, name, 0)
        if isinstance(least, int) and least > nodes:
            raise StrategyError(
                "strategy",
                f"{name} = {least} is more than the {nodes} clients: Flower would wait for ever",
                fix=f"Set {name} to at most {nodes}.",
            )


def describe(session: Session, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is announced at the start of a run."""
    scenario, task, plan = session.scenario, session.task, session.plan
    model = scenario.model
    kind = type(task.module).__name__ if model is None else model.kind
    widths = "-".join(map(str, model.hidden)) if isinstance(model, MlpOptions) else ""
    own = isinstance(session.strategy, FederatedStrategy)
    return {
        "scenario": scenario.name or "scenario",
        "title": scenario.title,
        "seed": scenario.run.seed,
        "rounds": scenario.run.rounds,
        "clients": session.population.num_clients,
        "examples": session.population.num_examples,
        "cohort": session.cohort,
        "model": f"{kind} {widths}".strip(),
        "parameters": task.parameters.size,
        "algorithm": scenario.algorithm.kind if own else type(session.strategy).__name__,
        "engine": plan.engine if plan else "ClientApp",
        "engine_reason": plan.reason if plan else "a user's ClientApp, one message a client",
        "engine_plan": plan.to_dict() if plan else None,
        **facts,
    }
