"""Both Flower apps of fedscape. The server runs the same round loop as in one process; each node is one client.

`[tool.flwr.app.components]` names `server_app` and `client_app`. Their scenario is in the run's config:

    flwr run . --run-config 'scenario="digits-label-skew" sets="run.rounds=20; algorithm.cohort=10"'

Start as many SuperNodes (or simulated ones) as the scenario has clients. From Python, for Flower's own simulation,
`apps(scenario)` returns both apps.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from clients.engines.plain import PlainEngine
from clients.flower.app import ClientTask, make_client_app
from clients.flower.codec import Codec
from server.algorithms.build import build_algorithm
from server.rounds.app import make_server_app
from simulator.cli.console import ConsoleObserver
from simulator.cli.sinks import options_of, sinks_of
from simulator.engines.devices import choose_device, on_device
from simulator.runs.building import Overrides, make_task_of
from simulator.runs.run import simulate
from simulator.scenario.sections import DEFAULT, Scenario, ScenarioSource, load_scenario, parse_scenario, to_toml


def apps(
    scenario: ScenarioSource = None,
    *,
    out: Path | str | None = None,
    observers: Sequence[object] | None = None,
) -> tuple[ServerApp, ClientApp]:
    """Return a ServerApp and the ClientApp that belongs to it.

    Args:
        scenario: a `Scenario`, a table, a file, or a built-in's name; None takes it from the run's config when the apps
            run: `scenario` (file or name), `sets` (changes as after `--set`, with `;` between them), `out`.
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
    return make_server_app(partial(_export, text, notices, folder, listeners)), make_client_app(partial(_load, text))


def _export(
    text: str, notices: tuple[str, ...], out: str, observers: Sequence[object], grid: Grid, context: Context
) -> dict[str, str]:
    """Play with the exports that environment variables name: a ServerApp has no command line."""
    with sinks_of(options_of()) as sinks:
        return _play(text, notices, out, [*observers, *sinks], grid, context)


def _play(
    text: str, notices: tuple[str, ...], out: str, observers: Sequence[object], grid: Grid, context: Context
) -> dict[str, str]:
    folder = out or str(context.run_config.get("out") or "")
    scenario = _scenario(text, context)
    scenario = replace(scenario, notices=(*scenario.notices, *notices))
    run = simulate(scenario, grid=grid, out=folder or None, observers=observers)
    return {"verdict": str(run.verdict), "record": str(run.path)}


def _load(text: str, context: Context) -> ClientTask:
    return _client_task(text or to_toml(_scenario("", context)))


@lru_cache(maxsize=1)
def _client_task(text: str) -> ClientTask:
    """Make the task once a process: a worker of Flower's simulation runs many nodes."""
    scenario = parse_scenario(tomllib.loads(text), source="the app's scenario")
    if scenario.engine.threads is not None:
        torch.set_num_threads(scenario.engine.threads)
    task = make_task_of(scenario, Overrides())
    task = on_device(task, scenario.engine, choose_device(scenario.engine).device)
    codec = Codec.flat(task.parameters, task.buffers, task.dtype)
    return ClientTask(PlainEngine(task), codec, build_algorithm(scenario.algorithm, task.local).local_work)


def _scenario(text: str, context: Context) -> Scenario:
    if text:
        return parse_scenario(tomllib.loads(text), source="the app's scenario")
    config = context.run_config
    sets = [change.strip() for change in str(config.get("sets") or "").split(";")]
    return load_scenario(str(config.get("scenario") or DEFAULT), sets=[change for change in sets if change])


_both = apps()
server_app = _both[0]  # Flower's build looks for plain assignments of one name
client_app = _both[1]
