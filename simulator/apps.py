"""Both Flower apps of fedscape. The server runs the same round loop as in one process; nodes hold its clients.

`[tool.flwr.app.components]` names `server_app` and `client_app`. The scenario is in the run's config, and the server
sends its text to the nodes:

    flwr run . --run-config 'scenario="digits-label-skew" sets="run.rounds=20; algorithm.cohort=10"'

Each SuperNode names its clients: `--node-config 'clients="0-9"'`. From Python, for Flower's own simulation,
`apps(scenario)` returns both apps.

This module imports no torch: Flower starts a process for each message, and a local service answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from clients.flower.app import make_client_app
from server.rounds.app import make_server_app
from simulator.cli.console import ConsoleObserver
from simulator.scenario.sections import ScenarioSource, load_scenario, to_toml

if TYPE_CHECKING:
    from clients.flower.answering import ClientTask, OwnData


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
    service = "" if text else "simulator.node:answered"
    server = make_server_app(partial(_play, text, notices, folder, listeners))
    return server, make_client_app(partial(_load, text), service)


def _play(
    text: str, notices: tuple[str, ...], out: str, observers: Sequence[object], grid: Grid, context: Context
) -> dict[str, str]:
    if feed := context.run_config.get("feed"):  # `fedscape federate` shows the run
        from simulator.federate.feed import FeedWriter
        from simulator.federate.short_waits import shorten_retries

        shorten_retries()
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
    from simulator.cli.sinks import options_of, sinks_of
    from simulator.node import scenario_of
    from simulator.runs.run import resume, simulate

    with sinks_of(options_of()) as sinks:
        everyone = [*observers, *sinks]
        if back := str(context.run_config.get("resume") or ""):
            run = resume(back, grid=grid, observers=everyone, stop_asked=stop_asked)
        else:
            folder = out or str(context.run_config.get("out") or "")
            scenario = scenario_of(text, context.run_config)
            scenario = replace(scenario, notices=(*scenario.notices, *notices))
            run = simulate(scenario, grid=grid, out=folder or None, observers=everyone, stop_asked=stop_asked)
    return {"verdict": str(run.verdict), "record": str(run.path)}


def _load(text: str, sent: str, own: OwnData | None, context: Context) -> ClientTask:
    from simulator.node import load_task

    return load_task(text, sent, own, context.run_config)


_both = apps()
server_app = _both[0]  # Flower's build looks for plain assignments of one name
client_app = _both[1]
