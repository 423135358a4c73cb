"""A scenario made ready to run: strategy, grid, engine and client states."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from flwr.app import ArrayRecord
from flwr.serverapp import Grid
from torch import Tensor, nn

from clients.core.errors import EngineError, StrategyError, UserError
from clients.core.parameters import write_vector
from clients.core.population import Population
from clients.core.user_code import naming
from clients.engines.base import Engine
from clients.engines.evaluation import Evaluator
from clients.engines.native.threads import set_threads
from clients.engines.plain import PlainEngine
from clients.engines.progress import Progress
from clients.engines.ranks.distributed import DistributedEngine
from clients.flower.codec import Codec
from clients.modules.copies import copy_module
from clients.processes.wire import Message
from clients.training.client_states import ClientStates
from clients.training.rules import PLAIN
from clients.training.task import LearningTask
from clients.training.work import LocalWork
from server.algorithms.state import ServerState
from server.convergence.monitor import require_measured
from server.nodes.node_map import NodeMap
from server.nodes.sending import Sender
from simulator.engines.devices import Processes, cards_here, choose_device, counted_cards, on_device
from simulator.engines.limits import checked_threads, processors
from simulator.engines.memory import check_memory, parts_of
from simulator.engines.plan import EnginePlan, engine_from_plan
from simulator.engines.planner import plan_engine
from simulator.engines.trial import obstacle
from simulator.engines.worker_count import threads_each
from simulator.grid.cohort_grid import CohortGrid
from simulator.grid.local_clients import LocalClients
from simulator.runs.baselines import JOBS
from simulator.runs.building import Overrides, make_task_of
from simulator.runs.measured import check_curves, measured_facts
from simulator.runs.nodes import check_own_data, is_local, node_map, sender_of, with_census
from simulator.runs.strategies import Played, check_client_app, choose_strategy
from simulator.scenario.data_files import data_digest
from simulator.scenario.sections import Scenario, to_toml
from simulator.workers.engine import PooledEvaluator, WorkersEngine
from simulator.workers.joining import start_ranks
from simulator.workers.pool import WorkerPool
from simulator.workers.preparing import shared_memory, workplace_of
from simulator.workers.ranks import Ranks
from simulator.workers.starting import start_forked


@dataclass(frozen=True)
class Session:
    """A scenario made ready.

    Attributes:
        scenario: the experiment.
        population: all clients.
        task: the model and the clients' data, with the options of local training.
        played: the strategy.
        grid: sends messages to the clients.
        nodes: which node of the grid holds which client.
        codec: writes models to messages and reads them.
        start: the server's state before the first round.
        evaluator: evaluates the model in this process.
        engine: trains our clients in this process; None if a user's ClientApp trains. If clients are on nodes, the
            server uses it only for baselines and gradients.
        plan: the chosen engine and the reason; None if clients are not in this process.
        states: client states; None if clients are not in this process.
        pool: the worker processes; None where this process trains alone.
        device_words: where clients train, for the header; empty for the CPU where nothing else was possible.
        sender: sends to real nodes; None where clients are in this process.
    """

    scenario: Scenario
    population: Population
    task: LearningTask
    played: Played
    grid: Grid
    nodes: NodeMap
    codec: Codec
    start: ServerState
    evaluator: Evaluator
    engine: Engine | None
    plan: EnginePlan | None
    states: ClientStates | None
    pool: WorkerPool | None = None
    device_words: str = ""
    sender: Sender | None = None

    def close(self, farewell: Message | None = None) -> None:
        """End the worker processes, with a last message to those of torchrun, and close the files of client states."""
        if self.pool is not None:
            self.pool.close(farewell)
        if isinstance(self.engine, DistributedEngine):
            self.engine.close()
        if self.states is not None:
            self.states.close()

    def module(self, params: Tensor, buffers: Tensor) -> nn.Module:
        """Return a copy of the task's module with these parameters [P] and buffers [Q], in evaluation mode."""
        module, task = copy_module(self.task.module), self.evaluator.task
        write_vector(module, task.parameters, params)
        write_vector(module, task.buffers, buffers)
        return module.eval()

    def count_progress(self, progress: Progress) -> None:
        """Have the engine, the evaluator and a grid that calls a ClientApp count their work."""
        self.evaluator.progress = progress
        if self.engine is not None:
            self.engine.progress = progress
        if isinstance(self.grid, CohortGrid):
            self.grid.progress = progress


def open_session(
    scenario: Scenario, given: Overrides, *, plan: EnginePlan | None = None, ranks: Ranks | None = None
) -> Session:
    """Make a scenario ready to run. Its clients are in this process, or on the nodes of a grid passed from Python.

    Args:
        scenario: the experiment.
        given: the parts passed from Python.
        plan: the recorded plan of a resumed run; None plans now.
        ranks: the processes of torchrun, in which the workers are; None forks the workers that the plan has.

    Raises:
        UserError: the scenario cannot run; the message names the key and the fix.
    """
    check_places(scenario, given)
    check_own_data(scenario, given)
    given = with_census(scenario, given)
    scenario = _in_ranks(scenario, given, ranks)
    forked = 1 if ranks is not None or _elsewhere(given) else _workers(scenario, plan)
    processes = Processes(forked, ranks.local if ranks is not None else None)
    recorded = plan.device if plan is not None else None
    find = cards_here if scenario.local.devices == 1 else counted_cards
    device = choose_device(scenario.engine, processes, recorded=recorded, find=find)
    task = on_device(make_task_of(scenario, given), scenario.engine, device.device)
    try:
        measured = measured_facts(scenario, task, our_clients=given.client_app is None)
        require_measured(scenario.convergence, measured, task.population.task)
    except UserError as error:
        raise error.inside("convergence") from error.__cause__
    check_curves(scenario, task.population, our_clients=given.client_app is None)
    clients = task.population.num_clients
    codec = _codec(task, given)
    nodes = node_map(scenario, given, task.population)
    offered = clients if _elsewhere(given) else task.population.federation.with_data
    played = choose_strategy(given.strategy, given.algorithm, scenario, task, codec, nodes, offered)
    task = _within_memory(task, scenario, given, played)
    nodes.admission.local = played.own.federation.local if played.own is not None else None
    evaluator: Evaluator | None = None
    nodes.one_each = played.own is not None and played.strategy is not played.own
    states: ClientStates | None = None
    sender: Sender | None = None
    engine: Engine | None = None
    pool: WorkerPool | None = None
    if _elsewhere(given) and scenario.engine.threads is not None:  # a plan sets them otherwise
        torch.set_num_threads(scenario.engine.threads)
    if given.client_app is not None:
        check_client_app(played, scenario)
        evaluator = Evaluator(replace(task, parameters=codec.parameters, buffers=codec.buffers))
        grid: Grid = CohortGrid(clients, client_app=given.client_app)
    elif given.grid is not None:
        engine, grid = PlainEngine(task), given.grid
        if not is_local(grid):
            sender = sender_of(scenario, grid)
        nodes.on(grid)
    else:
        cohort = played.cohort or offered
        if plan is None:
            with naming("model", "fails in a trial of the engines"):
                rule = played.own.algorithm.local_work.rule if played.own is not None else PLAIN
                here = ranks.here if ranks is not None else None
                engine, plan = plan_engine(scenario.engine, task, cohort, scenario.run.rounds, rule, here=here)
            plan = replace(plan, device=str(device.device))
        else:
            plan = _resumed(plan, scenario, task, ranks)
            engine = engine_from_plan(plan, task)
        if plan.workers > 1 and scenario.engine.threads is not None:  # of this process beside its work as worker 0
            set_threads(scenario.engine.threads)
        states = ClientStates()
        if plan.workers > 1 and not (ranks is not None and ranks.follows):
            pool = _start_workers(engine, plan, scenario, played, codec, cohort, ranks)
        if pool is not None:
            engine, evaluator = WorkersEngine(engine, pool), PooledEvaluator(task, pool)
        local = played.own.algorithm.local_work if played.own is not None else LocalWork()
        if isinstance(engine, DistributedEngine):
            engine.start(local)
        grid = CohortGrid(clients, LocalClients(engine, codec, states, scenario.engine.keep_bytes, local))
    start = _start(task, codec, given)
    evaluator = evaluator or Evaluator(task)
    return Session(scenario, task.population, task, played, grid, nodes, codec, start, evaluator, engine, plan, states,
                   pool, device.words, sender)  # fmt: skip


def _workers(scenario: Scenario, plan: EnginePlan | None) -> int:
    """Return how many processes of this machine train together, without torchrun."""
    if plan is not None:
        return plan.workers
    return 1 if scenario.engine.workers == "auto" else scenario.engine.workers


def _start_workers(
    engine: Engine,
    plan: EnginePlan,
    scenario: Scenario,
    played: Played,
    codec: Codec,
    cohort: int,
    ranks: Ranks | None,
) -> WorkerPool:
    """Fork the workers of a plan, or connect those that torchrun has started."""
    options = scenario.engine
    algorithm = played.own.algorithm if played.own is not None else None
    place = workplace_of(engine, algorithm, codec.layers, JOBS)
    threads = plan.threads or threads_each(options, plan.workers if ranks is None else ranks.here)
    stops = options.on_worker_loss == "stop"
    if ranks is not None:
        welcome = {"scenario": digest(scenario), "data": data_digest(scenario), "plan": plan.to_dict(),
                   "threads": threads}  # fmt: skip
        return start_ranks(place, ranks, threads=threads, welcome=welcome, stop_on_loss=stops)
    place = replace(place, arena=shared_memory(place, cohort=cohort, keep_bytes=options.keep_bytes))
    return start_forked(place, size=plan.workers, threads=threads, stop_on_loss=stops)


def _resumed(plan: EnginePlan, scenario: Scenario, task: LearningTask, ranks: Ranks | None) -> EnginePlan:
    """Return a recorded plan for the processes that there are now: torchrun's, or those that can be forked."""
    if ranks is not None:
        threads = plan.threads if plan.workers == ranks.size else threads_each(scenario.engine, ranks.here)
        return replace(plan, workers=ranks.size, threads=threads)
    if plan.workers > 1 and scenario.engine.workers == "auto" and (why := obstacle(task)):
        return replace(plan, workers=1, reason=f"{plan.reason}; resumed with one worker: {why}")
    return plan


def _in_ranks(scenario: Scenario, given: Overrides, ranks: Ranks | None) -> Scenario:
    """Return the scenario with as many workers as torchrun has processes.

    Raises:
        EngineError: it has another number, or its clients are trained elsewhere.
    """
    if ranks is None:
        return scenario
    if _elsewhere(given):
        problem = f"torchrun has started {ranks.size} processes, and clients are not trained by fedscape's engines"
        raise EngineError("engine.workers", problem, fix="Start the run without torchrun.")
    if scenario.engine.workers not in ("auto", ranks.size):
        problem = f"is {scenario.engine.workers}, and torchrun has started {ranks.size} processes"
        raise EngineError("engine.workers", problem, fix="Leave it out.")
    return replace(scenario, engine=replace(scenario.engine, workers=ranks.size))


def digest(scenario: Scenario) -> str:
    """Return a hash of a scenario, which all processes of a run must share."""
    return hashlib.sha256(to_toml(scenario).encode()).hexdigest()


def check_places(scenario: Scenario, given: Overrides) -> None:
    """Refuse a ClientApp together with a grid, and an engine for clients that are not in this process."""
    if given.client_app is not None and given.grid is not None:
        raise StrategyError("client_app", "cannot be used with grid, whose nodes run their own ClientApp")
    if given.client_app is not None and scenario.engine.kind != "auto":
        problem = f"is {scenario.engine.kind!r}, but your ClientApp trains"
        raise EngineError("engine.kind", problem, fix="Leave it out.")


def _elsewhere(given: Overrides) -> bool:
    """Return whether clients are trained outside our engines."""
    return given.client_app is not None or given.grid is not None


def _within_memory(task: LearningTask, scenario: Scenario, given: Overrides, played: Played) -> LearningTask:
    """Return the task, with a notice where the run comes near the memory that there is.

    Raises:
        UserError: the run needs more.
    """
    if _elsewhere(given):
        return task
    cohort = played.cohort or task.population.num_clients
    parts = parts_of(task, scenario.engine, cohort=cohort, rounds=scenario.run.rounds, states=played.client_states)
    notices = [check_memory(parts), checked_threads(scenario.engine.threads, processors())]
    return replace(task, notices=(*task.notices, *filter(None, notices)))


def _codec(task: LearningTask, given: Overrides) -> Codec:
    """Return the codec of messages; a user's ClientApp receives and returns state dicts."""
    if given.client_app is not None:
        return Codec.of_state_dict(ArrayRecord(task.module.state_dict()), task.module)
    return Codec.flat(task.parameters, task.buffers, task.dtype)


def _start(task: LearningTask, codec: Codec, given: Overrides) -> ServerState:
    """Return the server's state before the first round."""
    if given.client_app is not None:
        return ServerState(0, *codec.decode(ArrayRecord(task.module.state_dict())))
    return ServerState(0, *task.initial())
