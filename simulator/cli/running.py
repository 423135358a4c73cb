"""The commands that train: run, resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.exit_codes import EXIT_INTERRUPTED
from simulator.cli.looking import say_report
from simulator.cli.options import ScenarioOptions
from simulator.cli.sinks import SinkOptions, sinks_of
from simulator.cli.study.interrupting import two_step_interrupt, without_collections
from simulator.workers.ranks import ranks_of_torchrun

if TYPE_CHECKING:
    from simulator.runs.run import Run


def run(
    scenario: ScenarioOptions,
    sinks: SinkOptions,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The run's folder, new or empty.", show_default="runs/SCENARIO-TIME-ID"),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N", help="Run the scenario with N seeds, or with those of a list such as 3,5,8."),
    ] = None,
) -> None:
    """Run a scenario and print its verdict.

    Ctrl-C finishes the round, keeps a checkpoint and exits with 130.
    A second Ctrl-C stops at once.

    Examples:
    $ fedscape run
    $ fedscape run digits-label-skew --set algorithm.kind=scaffold --seed 7
    $ fedscape run my.toml --out runs/mine --metrics-port 9464
    $ fedscape run digits-label-skew --seeds 10
    """
    if seeds is not None:
        from simulator.cli.study.playing import run_seeds

        run_seeds(scenario, sinks, out, seeds)
        return
    with without_collections():
        chosen = scenario.load()
        from simulator.cli.console import ConsoleObserver
        from simulator.runs.run import simulate

    if follows():
        simulate(chosen)
        return
    with two_step_interrupt() as stop_asked, sinks_of(sinks) as observers:
        done = simulate(chosen, out=out, observers=[ConsoleObserver(), *observers], stop_asked=stop_asked)
    _conclude(done)


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)],
    sinks: SinkOptions,
) -> None:
    """Continue an interrupted or killed run from its checkpoint.

    The result has the same bits as that of an uninterrupted run.

    Example:
    $ fedscape resume runs/digits-label-skew-1121-0714-7f3a
    """
    with without_collections():
        from simulator.cli.console import ConsoleObserver
        from simulator.runs.run import finished
        from simulator.runs.run import resume as go_on

    if follows():
        go_on(run)
        return
    if (report := finished(run)) is not None:
        print(f"fedscape: the run was over and had no report; it is written now\n  {'report':<13}   {report}")
        return
    with two_step_interrupt() as stop_asked, sinks_of(sinks) as observers:
        done = go_on(run, observers=[ConsoleObserver(), *observers], stop_asked=stop_asked)
    _conclude(done)


def follows() -> bool:
    """Return whether this process works for another one of torchrun, which shows and records the run."""
    ranks = ranks_of_torchrun()
    return ranks is not None and ranks.follows


def _conclude(done: Run) -> None:
    say_report(done.path)
    if done.verdict.outcome == "interrupted":
        raise typer.Exit(EXIT_INTERRUPTED)
