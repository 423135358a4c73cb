"""The command line: run, resume, scenarios, show; more in the `simulator.cli_*` beside it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from clients.core.errors import FedscapeError
from simulator.cli.data import add_data
from simulator.cli.observing import add_observing
from simulator.cli.pages import add_pages, say_report
from simulator.cli.sinks import add_export, add_sink_options, sinks_of
from simulator.scenario.sections import DEFAULT, builtin_names, load_scenario, to_toml

EXIT_OK, EXIT_MISTAKE, EXIT_INTERRUPTED = 0, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 for every honest outcome, 2 for a mistake, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
        return code
    except FedscapeError as error:
        print(f"fedscape: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print("fedscape: interrupted; what was recorded is kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedscape", description="Simulate federated training, and see whether it converges."
    )
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = verbs.add_parser("run", help="run a scenario", description="Run a scenario and say how it ended.")
    _scenario_arguments(run, f"a scenario file or a built-in's name (default: {DEFAULT})", optional=True)
    run.add_argument("--out", type=Path, metavar="FOLDER", help="the run's folder; new or empty (default: runs/...)")
    add_sink_options(run)
    run.set_defaults(command=_run)

    again = verbs.add_parser("resume", help="go on with a run", description="Go on with an interrupted or killed run.")
    again.add_argument("run", type=Path, help="the run's folder")
    add_sink_options(again)
    again.set_defaults(command=_resume)

    names = verbs.add_parser("scenarios", help="list the built-in scenarios")
    names.set_defaults(command=_scenarios)

    show = verbs.add_parser("show", help="print a scenario in full", description="Print a scenario with every default.")
    _scenario_arguments(show, "a scenario file or a built-in's name", optional=True)
    show.set_defaults(command=_show)

    add_data(verbs, _scenario_arguments)
    add_pages(verbs)
    add_export(verbs)
    add_observing(verbs)
    return parser


def _scenario_arguments(parser: argparse.ArgumentParser, what: str, *, optional: bool) -> None:
    parser.add_argument("scenario", nargs="?" if optional else None, default=DEFAULT, help=what)
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="SECTION.KEY=VALUE",
                        help="change one key of the scenario; an empty value removes it")  # fmt: skip
    parser.add_argument("--seed", type=int, help="instead of the scenario's run.seed")


def _run(options: argparse.Namespace) -> int:
    scenario = load_scenario(options.scenario, sets=options.sets, seed=options.seed)
    from simulator.cli.console import ConsoleObserver
    from simulator.runs.run import simulate

    with _two_step_interrupt() as stop_asked, sinks_of(options) as sinks:
        run = simulate(scenario, out=options.out, observers=[ConsoleObserver(), *sinks], stop_asked=stop_asked)
    say_report(run.path)
    return EXIT_INTERRUPTED if run.verdict.outcome == "interrupted" else EXIT_OK


def _resume(options: argparse.Namespace) -> int:
    from simulator.cli.console import ConsoleObserver
    from simulator.runs.run import resume

    with _two_step_interrupt() as stop_asked, sinks_of(options) as sinks:
        run = resume(options.run, observers=[ConsoleObserver(), *sinks], stop_asked=stop_asked)
    say_report(run.path)
    return EXIT_INTERRUPTED if run.verdict.outcome == "interrupted" else EXIT_OK


def _scenarios(options: argparse.Namespace) -> int:
    names = builtin_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}  {load_scenario(name).title}")
    return EXIT_OK


def _show(options: argparse.Namespace) -> int:
    print(to_toml(load_scenario(options.scenario, sets=options.sets, seed=options.seed)), end="")
    return EXIT_OK


@contextlib.contextmanager
def _two_step_interrupt() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C finish the round and keep the checkpoint, and the second stop at once."""
    asked = False

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nfedscape: finishing this round, then stopping; Ctrl-C again stops at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
