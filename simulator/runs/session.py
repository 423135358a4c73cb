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
from torch import Tensor, nn

from clients.core import streams
from clients.core.arrays import F64
from clients.core.errors import EngineError, ScenarioError, StrategyError, UserError
from clients.core.population import Population
from clients.engines.base import Engine
from clients.engines.evaluation import Evaluator
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.federation.build import Federation, build_federation
from clients.flower.codec import Codec
from clients.models.table import MlpOptions, build_model
from clients.training.class_metrics import CLASS_SCORES
from clients.training.client_states import ClientStates
from clients.training.rules import PLAIN
from clients.training.task import LearningTask, make_task
from clients.training.work import CohortWork
from server.algorithms.table import local_for
from server.convergence.facts import FACTS
from server.convergence.monitor import ConvergenceMonitor, require_measured, required_facts
from server.convergence.outcome import Trend
from server.rounds.loop import Experiment, Keeper, RoundState
from server.rounds.node_map import NodeMap
from server.rounds.observers import Observers
from server.rounds.round_metrics import RoundMeter
from simulator.engines.planner import EnginePlan, engine_from_plan, plan_engine
from simulator.grid.clock import SlowestClientClock
from simulator.grid.cohort_grid import CohortGrid
from simulator.grid.local_clients import LocalClients
from simulator.runs.strategies import Played, StrategyChoice, check_client_app, choose_strategy, evaluated_clients
from simulator.scenario.sections import Scenario

NODES_TIMEOUT = 3600.0
"""Seconds that a round waits for nodes, as Flower's own strategies do; those that did not reply are left out."""


@dataclass(frozen=True)
class Overrides:
    """What Python brings instead of the scenario's own.

    Attributes:
        model: a module instead of [model].
        population: a population instead of [data] and [partition].
        strategy: any Flower strategy instead of [algorithm], or a function that wraps ours.
        client_app: any Flower ClientApp instead of our clients.
        grid: a Flower grid whose nodes run `clients.flower.app`, instead of clients in this process.
    """

    model: nn.Module | None = None
    population: Population | None = None
    strategy: StrategyChoice | None = None
    client_app: ClientApp | None = None
    grid: Grid | None = None


@dataclass(frozen=True)
class Session:
    """A scenario made ready.

    Attributes:
        scenario: as given, with the local work the algorithm runs.
        population: all clients.
        task: what is learnt; its local training is what runs.
        played: the strategy.
        grid: holds the clients.
        nodes: which node of the grid holds which client.
        codec: how models travel.
        start: the initial model.
        evaluator: evaluates the model in this process.
        engine: runs our clients' training in this process; None where a user's ClientApp trains. Where clients are on
            nodes, it serves what the server computes for comparison.
        plan: which engine and why; None where clients are not in this process.
        states: what in-process clients remember.
    """

    scenario: Scenario
    population: Population
    task: LearningTask
    played: Played
    grid: Grid
    nodes: NodeMap
    codec: Codec
    start: RoundState
    evaluator: Evaluator
    engine: Engine | None
    plan: EnginePlan | None
    states: ClientStates | None


def federation_of(scenario: Scenario, data: Any) -> Federation:
    """Return what a scenario says of its clients' data; `data` are its own, or a population from Python."""
    return Federation(
        data=data,
        partition=scenario.partition,
        world=scenario.world,
        faults=scenario.faults,
        drifts=scenario.drifts,
        features=scenario.features,
        seed=scenario.run.seed,
        dtype=getattr(torch, scenario.run.dtype),
    )


def population_of(scenario: Scenario, given: Overrides) -> Population:
    """Build the population of a scenario.

    Raises:
        UserError: naming the key at fault.
    """
    data = given.population or scenario.data
    if data is None:
        raise ScenarioError("data", "is missing", fix="Add a [data] section, or pass data= from Python.")
    return build_federation(federation_of(scenario, data))


def make_task_of(scenario: Scenario, given: Overrides, population: Population | None = None) -> LearningTask:
    """Build the population, the model and the task of a scenario.

    Args:
        scenario: the experiment.
        given: what Python brings.
        population: as `population_of` built it, where that was done before.

    Raises:
        UserError: naming the key at fault.
    """
    seed, dtype = scenario.run.seed, getattr(torch, scenario.run.dtype)
    population = population_of(scenario, given) if population is None else population
    module = given.model
    if module is None:
        if scenario.model is None:
            raise ScenarioError("model", "is missing", fix="Add a [model] section, or pass model= from Python.")
        try:
            module = build_model(scenario.model, population, int(streams.keys(seed, "model") >> np.uint64(2)))
        except UserError as error:
            raise error.inside("model") from error.__cause__
    count_errors = population.task == "classification" and "train_errors" in required_facts(scenario.convergence)
    try:
        return make_task(module, population, local_for(scenario.algorithm, scenario.local), seed=seed, dtype=dtype,
                         count_errors=count_errors, trained_elsewhere=given.client_app is not None)  # fmt: skip
    except UserError as error:
        raise error.inside("local") if error.field in ("batch_size", "local_steps") else error from error.__cause__


def open_session(scenario: Scenario, given: Overrides, *, plan: EnginePlan | None = None) -> Session:
    """Make a scenario ready to run: its clients in this process, or on the nodes of the grid that is given.

    Args:
        scenario: the experiment.
        given: what Python brings.
        plan: the engine chosen before, for a resumed run; None plans now.

    Raises:
        UserError: the scenario cannot run; naming the key and the fix.
    """
    _check_places(scenario, given)
    task = make_task_of(scenario, given)
    try:
        require_measured(scenario.convergence, _measured(scenario, task, our_clients=given.client_app is None))
    except UserError as error:
        raise error.inside("convergence") from error.__cause__
    clients = task.population.num_clients
    codec, start = _start(task, given)
    nodes = NodeMap(clients)
    played = choose_strategy(given.strategy, scenario, task, codec, nodes)
    evaluator = Evaluator(task)
    states: ClientStates | None = None
    engine: Engine | None = None
    if _elsewhere(given) and scenario.engine.threads is not None:  # a plan sets them otherwise
        torch.set_num_threads(scenario.engine.threads)
    if given.client_app is not None:
        check_client_app(played, scenario)
        evaluator = Evaluator(replace(task, parameters=codec.parameters, buffers=codec.buffers))
        grid: Grid = CohortGrid(clients, client_app=given.client_app)
    elif given.grid is not None:
        engine, grid = PlainEngine(task), given.grid
        nodes.on(grid)
    else:
        cohort = played.cohort or clients
        if plan is None:
            engine, plan = plan_engine(scenario.engine, task, cohort, scenario.run.rounds)
        else:
            engine = engine_from_plan(plan, task)
        states = ClientStates()
        rule = played.own.algorithm.rule if played.own is not None else PLAIN
        grid = CohortGrid(
            clients, LocalClients(engine, evaluator, codec, states, scenario.engine.keep_bytes, rule=rule)
        )
    return Session(scenario, task.population, task, played, grid, nodes, codec, start, evaluator, engine, plan, states)


def _check_places(scenario: Scenario, given: Overrides) -> None:
    """Refuse to be told twice where clients are, or which engine runs clients that are not in this process."""
    if given.client_app is not None and given.grid is not None:
        raise StrategyError("client_app", "cannot stand beside grid, whose nodes run their own ClientApp")
    who = "your ClientApp trains" if given.client_app is not None else "the grid's nodes train with plain"
    fits = ("auto",) if given.client_app is not None else ("auto", "plain")
    if _elsewhere(given) and scenario.engine.kind not in fits:
        raise EngineError("engine.kind", f"is {scenario.engine.kind!r}, but {who}", fix="Leave it out.")


def _elsewhere(given: Overrides) -> bool:
    """Return whether something else than our engines trains the clients."""
    return given.client_app is not None or given.grid is not None


def _start(task: LearningTask, given: Overrides) -> tuple[Codec, RoundState]:
    """Return how models travel, and the initial one; a user's ClientApp gets and returns state dicts."""
    if given.client_app is not None:
        arrays = ArrayRecord(task.module.state_dict())
        codec = Codec.of_state_dict(arrays, task.module)
        return codec, RoundState(0, *codec.decode(arrays), arrays)
    codec = Codec.flat(task.parameters, task.buffers, task.dtype)
    params, buffers = task.initial()
    return codec, RoundState(0, params, buffers, codec.encode(params, buffers))


def experiment(session: Session, observers: Observers, keeper: Keeper, stop_asked: Callable[[], bool]) -> Experiment:
    """Join a session with its observers and keeper."""
    scenario, population, played = session.scenario, session.population, session.played
    meter = RoundMeter(
        session.codec,
        population,
        SlowestClientClock(scenario.fleet),
        client_of=session.nodes.client_of,
        evaluator=session.evaluator if _has_central(population) else None,
        gradients=_gradients(session, session.engine) if session.engine is not None else None,
        gradient_every=scenario.evaluation.gradient_every,
    )
    return Experiment(
        strategy=played.strategy,
        grid=session.grid,
        codec=session.codec,
        meter=meter,
        monitor=ConvergenceMonitor(scenario.convergence),
        observers=observers,
        keeper=keeper,
        rounds=scenario.run.rounds,
        seed=scenario.run.seed,
        timeout=NODES_TIMEOUT if session.states is None else None,
        coefficients=played.own.coefficients if played.own is not None else None,
        foreign=played.strategy is not played.own,
        stop_asked=stop_asked,
        trend=trend_of(session),
    )


def trend_of(session: Session) -> Trend:
    """Return what fits the rate: cross-entropy and squared errors are at least 0, an objective may be anything."""
    least = None if session.population.task == "objective" else 0.0
    return Trend(session.scenario.convergence, least=least)


def _gradients(session: Session, engine: Engine) -> Callable[[int, Tensor, Tensor], tuple[Tensor, F64]]:
    """Return (round, params, buffers) -> full-batch gradients of the evaluating clients, and their weights."""
    assert isinstance(engine, PlainEngine | StackedEngine)
    scenario, sizes = session.scenario, session.population.sizes
    fits = scenario.engine.keep_bytes // (session.task.parameters.size * session.task.dtype.itemsize)
    most = max(1, min(scenario.evaluation.federated_clients, fits))
    clients = evaluated_clients(replace(scenario.evaluation, federated_clients=most), sizes, session.task.seed)
    weights = sizes[clients].astype(np.float64)

    def gradients(round_index: int, params: Tensor, buffers: Tensor) -> tuple[Tensor, F64]:
        work = CohortWork(round_index=round_index, clients=clients, params=params, buffers=buffers)
        return engine.gradients(work), weights

    return gradients


def _has_central(population: Population) -> bool:
    """Return whether there is something to evaluate the model on centrally."""
    return population.task == "objective" or population.validation is not None


def _measured(scenario: Scenario, task: LearningTask, *, our_clients: bool) -> frozenset[str]:
    """Return the facts this run will measure."""
    population, evaluation = task.population, scenario.evaluation
    kinds = {
        "classification": ("loss", "accuracy", "error", *CLASS_SCORES),
        "regression": ("loss", "error", "mae"),
        "objective": ("loss",),
    }
    names = {"train_loss", "relative_change", "pseudo_gradient_norm", "largest_gradient_norm"}
    if _has_central(population):
        names |= {f"validation_{k}" for k in kinds[population.task]}
        names |= {"agreement"} if population.task != "objective" else set()
    if evaluation.federated_every:
        names |= {f"federated_{k}" for k in kinds[population.task] if our_clients or k not in CLASS_SCORES}
    if evaluation.gradient_every and our_clients:
        names.add("gradient_norm")
    if population.optimal_value is not None:
        names.add("optimality_gap")
    if task.count_errors and our_clients:
        names.add("train_errors")
    return frozenset(names) & frozenset(FACTS)


def describe(session: Session, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is announced at the start of a run."""
    scenario, task, plan = session.scenario, session.task, session.plan
    model = scenario.model
    kind = type(task.module).__name__ if model is None else model.kind
    widths = "-".join(map(str, model.hidden)) if isinstance(model, MlpOptions) else ""
    strategy, own = session.played.strategy, session.played.own
    if strategy is own:
        algorithm: str = scenario.algorithm.kind
    else:
        around = f" around {scenario.algorithm.kind}" if own is not None else ""
        algorithm = type(strategy).__name__ + around
    if session.engine is None:
        engine, reason = "ClientApp", "a user's ClientApp, one message a client"
    else:
        engine, reason = (plan.engine, plan.reason) if plan else ("plain", "one client on each node of Flower's grid")
    return {
        "scenario": scenario.name or "scenario",
        "title": scenario.title,
        "seed": scenario.run.seed,
        "rounds": scenario.run.rounds,
        "clients": session.population.num_clients,
        "examples": session.population.num_examples,
        "cohort": session.played.cohort,
        "model": f"{kind} {widths}".strip(),
        "parameters": task.parameters.size,
        "algorithm": algorithm,
        "engine": engine,
        "engine_reason": reason,
        "engine_plan": plan.to_dict() if plan else None,
        **facts,
    }
