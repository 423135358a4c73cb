"""The command line: joins the commands into `fedscape` and returns an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer
from click.exceptions import Exit, NoArgsIsHelpError, UsageError

from clients.core.errors import FedscapeError
from clients.core.shown.text import presentable
from simulator.cli import federation, looking, observing, running, sinks
from simulator.cli.exit_codes import EXIT_INTERRUPTED, EXIT_MISTAKE, EXIT_OK
from simulator.cli.help_pages import HelpCommand, HelpGroup
from simulator.cli.options import spread
from simulator.cli.study import lessons as learn
from simulator.cli.study import playing, replay
from simulator.cli.study.tune import tune
from simulator.cli.usage import usage_line
from simulator.cli.why.explain import explain
from simulator.cli.why.probe import probe
from simulator.cli.why.surface import surface

__all__ = ["EXIT_INTERRUPTED", "EXIT_MISTAKE", "EXIT_OK", "app", "main"]

PROGRAM = "fedscape"
COMPLETION = "_FEDSCAPE_COMPLETE"
"""The environment variable with which a shell requests completions."""
LAST_PANEL = "Export and observe"

COMMANDS: Mapping[str, Sequence[Callable[..., None]]] = {
    "Run": (running.run, running.resume, federation.federate, federation.certs),
    "Look": (looking.scenarios, looking.show, looking.data, looking.report, looking.watch),
    "Explain": (explain, probe, surface),
    "Learn": (learn.lessons, learn.lesson),
    "Compare": (playing.study, tune, replay.branch, replay.verify, replay.bisect),
    LAST_PANEL: (sinks.export, observing.observe),
}
"""The commands by panel of the help; a command has the name of its function."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 for a complete run, 1 for a study in which a run failed or a lesson whose claim does not hold, 2 for a mistake,
    130 for Ctrl-C.
    """
    try:
        return _dispatch(sys.argv[1:] if arguments is None else list(arguments))
    except FedscapeError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; the record is kept", file=sys.stderr)
        return EXIT_INTERRUPTED


def _dispatch(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    if COMPLETION in os.environ:
        command.main(prog_name=PROGRAM)  # answers the shell, and exits
    try:
        # command.main would use its own exit codes and messages for Ctrl-C and mistakes.
        with command.make_context(PROGRAM, arguments) as context:
            command.invoke(context)
    except NoArgsIsHelpError:  # creating this error has printed the help
        return EXIT_OK
    except Exit as end:
        return end.exit_code
    except UsageError as error:
        print(f"{PROGRAM}: {presentable(usage_line(error))}", file=sys.stderr)
        return EXIT_MISTAKE
    return EXIT_OK


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(PROGRAM, version(PROGRAM))
        raise typer.Exit


def _fedscape(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Simulate federated training, and see whether it converges.

    Examples:
    $ fedscape run
    $ fedscape run digits-label-skew --set algorithm.kind=scaffold
    $ fedscape COMMAND --help
    """


def _group(*, add_completion: bool) -> typer.Typer:
    return typer.Typer(
        cls=HelpGroup,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=add_completion,
    )


def _make_app() -> typer.Typer:
    made = _group(add_completion=True)
    made.callback()(_fedscape)
    for panel, functions in COMMANDS.items():
        for function in functions:
            made.command(cls=HelpCommand, rich_help_panel=panel)(spread(function))
    dashboards = _group(add_completion=False)
    for name, function in (("list", observing.list_dashboards), ("write", observing.write), ("push", observing.push)):
        dashboards.command(name, cls=HelpCommand)(spread(function))
    about = "List, write or push the Grafana dashboards."
    example = "Example:\n$ fedscape dashboards push --url http://127.0.0.1:3000"
    made.add_typer(dashboards, name="dashboards", rich_help_panel=LAST_PANEL, help=f"{about}\n\n{example}")
    return made


app = _make_app()
