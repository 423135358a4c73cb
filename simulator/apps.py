"""Both Flower apps of fedscape. The server runs the same round loop as in one process; nodes hold its clients.

`[tool.flwr.app.components]` names `server_app` and `client_app`. The scenario is in the run's config, and the server
sends its text to the nodes:

    flwr run . --run-config 'scenario="digits-label-skew" sets="run.rounds=20; algorithm.cohort=10"'

Each SuperNode names its clients: `--node-config 'clients="0-9"'`. From Python, for Flower's own simulation,
`apps(scenario)` returns both apps.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from clients.core.errors import ScenarioError, StrategyError
from clients.engines.base import Engine
from clients.engines.native.choice import has_kernel
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.flower.answering import ClientTask, OwnData
from clients.flower.app import make_client_app
from clients.flower.codec import Codec
from clients.training.task import LearningTask
from server.algorithms.build import build_algorithm
from server.record.environment import installed_version
from server.rounds.app import make_server_app
from simulator.cli.console import ConsoleObserver
from simulator.cli.sinks import options_of, sinks_of
from simulator.engines.devices import choose_device, on_device
from simulator.federate.feed import FeedWriter
from simulator.runs.building import Overrides, make_task_of
from simulator.runs.nodes import own_population
from simulator.runs.run import resume, simulate
from simulator.scenario.sections import DEFAULT, Scenario, ScenarioSource, load_scenario, parse_scenario, to_toml

_OF_CLIENTS = ("data", "partition", "world", "faults", "drifts", "features", "model", "local", "algorithm", "run.seed",
               "run.dtype")  # fmt: skip
"""The sections and keys of a scenario that say what a client does."""


def apps(
    scenario: ScenarioSource = None,
    *,
    out: Path | str | None = None,
    observers: Sequence[object] | None = None,
) -> tuple[ServerApp, ClientApp]:
    """Return a ServerApp and the ClientApp that belongs to it.

    Args:
        scenario: a `Scenario`, a table, a file, or a built-in's name; None takes it from the run's config when the apps
            run: `scenario` (file or name), `sets` (changes as after `--set`, with `;` between them), `out`; or
            `resume`, the folder of a run to go on with.
        out: the run's folder, on the machine of the ServerApp; None takes a new one in `runs/`.
        observers: objects with any of the methods of `Observer`; the console by default.

    Raises:
        UserError: the scenario is not valid.

    Example:
        >>> server_app, client_app = apps("quadratic-two-clients")
        >>> # flwr.simulation.run_simulation(server_app, client_app, num_supernodes=2)
    """
    made = load_scenario(scenario) if scenario is not None else None
    text, notices = (to_toml(made), made.notices) if made is not None else ("", ())
    folder = str(out) if out is not None else ""
    listeners = observers if observers is not None else [ConsoleObserver()]
    return make_server_app(partial(_play, text, notices, folder, listeners)), make_client_app(partial(_load, text))


def _play(
    text: str, notices: tuple[str, ...], out: str, observers: Sequence[object], grid: Grid, context: Context
) -> dict[str, str]:
    if feed := context.run_config.get("feed"):  # `fedscape federate` shows the run
        watched = FeedWriter(Path(str(feed)))
        with watched.closing():
            return _run(text, notices, out, [watched], grid, context, watched.stop_asked)
    return _run(text, notices, out, observers, grid, context, lambda: False)


def _run(
    text: str,
    notices: tuple[str, ...],
    out: str,
    observers: Sequence[object],
    grid: Grid,
    context: Context,
    stop_asked: Callable[[], bool],
) -> dict[str, str]:
    with sinks_of(options_of()) as sinks:
        everyone = [*observers, *sinks]
        if back := str(context.run_config.get("resume") or ""):
            run = resume(back, grid=grid, observers=everyone, stop_asked=stop_asked)
        else:
            folder = out or str(context.run_config.get("out") or "")
            scenario = _scenario(text, context)
            scenario = replace(scenario, notices=(*scenario.notices, *notices))
            run = simulate(scenario, grid=grid, out=folder or None, observers=everyone, stop_asked=stop_asked)
    return {"verdict": str(run.verdict), "record": str(run.path)}


def _load(text: str, sent: str, own: OwnData | None, context: Context) -> ClientTask:
    """Make the task of a message: of the scenario that the server sent, which must be the app's own if it has one."""
    if text and sent and text != sent and (difference := _difference(text, sent)):
        raise StrategyError("scenario", f"of the server is another than this node's: {difference}",
                            fix="Start server and nodes from the same scenario.")  # fmt: skip
    return client_task(sent or text or to_toml(_scenario("", context)), own)


@lru_cache(maxsize=1)
def client_task(text: str, own: OwnData | None = None) -> ClientTask:
    """Make the task of a scenario's text, maybe on the node's own data.

    It is made once a process: one process answers many messages, or runs many nodes.

    Raises:
        UserError: the scenario is not valid on this machine.
    """
    scenario = _parsed(text)
    if scenario.engine.threads is not None:
        torch.set_num_threads(scenario.engine.threads)
    task = make_task_of(scenario, Overrides(), None if own is None else own_population(scenario, own))
    task = on_device(task, scenario.engine, choose_device(scenario.engine).device)
    codec = Codec.flat(task.parameters, task.buffers, task.dtype)
    local = build_algorithm(scenario.algorithm, task.local).local_work
    return ClientTask(_engine(scenario, task), codec, local, installed_version())


def _engine(scenario: Scenario, task: LearningTask) -> Engine:
    """Return the engine of a node: a kernel where there is one, else plain, unless the scenario names one."""
    if scenario.engine.kind == "plain":
        return PlainEngine(task)
    stacked = StackedEngine(task, tile=scenario.engine.tile)
    return stacked if scenario.engine.kind == "stacked" or has_kernel(stacked.program) else PlainEngine(task)


def _scenario(text: str, context: Context) -> Scenario:
    if text:
        return _parsed(text)
    config = context.run_config
    sets = [change.strip() for change in str(config.get("sets") or "").split(";")]
    return load_scenario(str(config.get("scenario") or DEFAULT), sets=[change for change in sets if change])


def _parsed(text: str) -> Scenario:
    return parse_scenario(_table(text), source="the app's scenario")


def _table(text: str) -> dict[str, Any]:
    """Return the table of a scenario's text, which comes from another machine.

    Raises:
        ScenarioError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError("scenario", f"that the server sent is no TOML: {error}") from error


def _difference(one: str, other: str) -> str:
    """Return the first key of a client's work that differs between two scenarios, with both values; empty if none."""
    ours, theirs = _flat(_table(one)), _flat(_table(other))
    keys = [
        k for k in sorted(ours.keys() | theirs.keys()) if k.startswith(_OF_CLIENTS) and ours.get(k) != theirs.get(k)
    ]
    return f"{keys[0]} is {theirs.get(keys[0])!r:.60} there and {ours.get(keys[0])!r:.60} here" if keys else ""


def _flat(table: Mapping[str, Any], path: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in table.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return found


_both = apps()
server_app = _both[0]  # Flower's build looks for plain assignments of one name
client_app = _both[1]
