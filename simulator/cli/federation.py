"""The commands for real federations: federate, certs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from clients.core.errors import UserError
from clients.core.shown.text import printable
from simulator.cli.exit_codes import EXIT_INTERRUPTED
from simulator.cli.looking import say_report
from simulator.cli.options import ScenarioOptions
from simulator.cli.sinks import SinkOptions, sinks_of
from simulator.cli.study.interrupting import two_step_interrupt, without_collections


@dataclass(frozen=True)
class FederateOptions:
    """The processes and the folder of a local federation."""

    nodes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="SuperNodes; the clients are dealt to them in even blocks.",
            show_default="3; with --resume as before",
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The run's folder, new or empty.", show_default="runs/SCENARIO-TIME-ID"),
    ] = None
    certs: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Certificates and keys of fedscape certs.", show_default="made for this run"
        ),
    ] = None
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Continue the federated run in this folder, instead of a scenario."),
    ] = None
    port: Annotated[int | None, typer.Option(metavar="N", help="The SuperLink's port.", show_default="a free one")] = (
        None
    )
    restarts: Annotated[
        int,
        typer.Option("--restart-nodes", metavar="N", help="How often each SuperNode that has ended is started again."),
    ] = 0


def federate(scenario: ScenarioOptions, options: FederateOptions, sinks: SinkOptions) -> None:
    """Run a scenario as a real federation on this machine.

    Starts a SuperLink and SuperNodes as processes on the loopback, with
    TLS and registered node keys, runs the scenario, and ends them all.
    Ctrl-C finishes the round and keeps a checkpoint; again stops at once.

    Examples:
    $ fedscape federate quadratic-two-clients --nodes 2
    $ fedscape federate my.toml --nodes 4 --out runs/real --certs certs
    """
    if options.resume is not None:
        for name, given in (("SCENARIO", scenario.scenario), ("--set", scenario.sets), ("--out", options.out)):
            if given:
                raise UserError("--resume", f"continues a run as it is, so {name} must be left out")
    chosen = scenario.load() if options.resume is None else None
    with without_collections():
        from simulator.cli.console import ConsoleObserver
        from simulator.federate.federation import federate as play
        from simulator.federate.wanted import Wanted

    wanted = Wanted(chosen, options.nodes, options.out, options.certs, options.resume, options.port,
                    options.restarts)  # fmt: skip
    console = ConsoleObserver()
    try:
        with _term_as_interrupt(), two_step_interrupt() as stop_asked, sinks_of(sinks) as observers:
            outcome, path = play(wanted, observers=[console, *observers], stop_asked=stop_asked, say=_say)
    finally:
        console.close()
    say_report(path)
    if outcome.get("outcome") == "interrupted":
        _say(f"to continue with these processes: fedscape federate --resume {path}")
        raise typer.Exit(EXIT_INTERRUPTED)


def certs(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="The folder, new or empty; or the one to check.", show_default=False),
    ],
    nodes: Annotated[
        int | None, typer.Option(metavar="N", help="Number of SuperNodes.", show_default="3; all with --check")
    ] = None,
    days: Annotated[int, typer.Option(metavar="D", help="Days until the certificates expire.")] = 90,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="A name or an address of the SuperLink. Repeatable."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the folder instead: dates, keys, permissions.")] = False,
) -> None:
    """Make certificates and keys for a federation, or check them.

    A test authority, the SuperLink's certificate, a key for each
    SuperNode. For production bring certificates of your own authority.

    Examples:
    $ fedscape certs certs --nodes 4 --host fl.example.org
    $ fedscape certs certs --check
    """
    from simulator.federate.cert_checks import check_certs

    if not check:
        from simulator.federate.certs import make_certs

        make_certs(folder, nodes=3 if nodes is None else nodes, days=days, hosts=hosts or ())
        _say("these are for tests: in production use certificates of your own authority, and keys made on each node")
    for host in hosts or ():
        check_certs(folder, nodes=nodes, host=host)
    found = check_certs(folder, nodes=nodes)
    words = f"{folder}: keys of {found.nodes} SuperNodes, valid until {found.expires:%Y-%m-%d %H:%M} UTC"
    print(printable(words))


def _say(line: str) -> None:
    print(f"fedscape: {printable(line)}", file=sys.stderr, flush=True)


@contextmanager
def _term_as_interrupt() -> Iterator[None]:
    """Make SIGTERM do what Ctrl-C does: the first finishes the round, the second stops at once."""

    def ended(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
