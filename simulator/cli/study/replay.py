"""The commands that play recorded runs again: branch, verify, bisect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.builtin_files import set_keys
from simulator.cli.exit_codes import EXIT_DIFFERENT, EXIT_INTERRUPTED, EXIT_NOT_HERE
from simulator.cli.looking import say_report
from simulator.cli.sinks import SinkOptions, sinks_of
from simulator.cli.study.interrupting import two_step_interrupt, without_collections

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)]


def branch(
    run: RunArgument,
    sinks: SinkOptions,
    round: Annotated[
        int, typer.Option("--round", metavar="R", help="The round after which the branch begins.", show_default=False)
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key from that round on, such as local.local_lr=0.01. Repeatable.",
            autocompletion=set_keys,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="The new run's folder, new or empty.", show_default="runs/SCENARIO-TIME-ID"
        ),
    ] = None,
) -> None:
    """Start a run from a round of another one, with changes.

    The round needs a kept checkpoint: run.keep_checkpoints_every = k keeps those of every k rounds.
    Random numbers are those of the run; without changes the branch has its bits.

    Examples:
    $ fedscape branch runs/A --round 20 --set local.local_lr=0.01
    $ fedscape branch runs/A --round 20 --set faults.gateways.schedule.stop=21 --out runs/repaired
    """
    with without_collections():
        from simulator.cli.console import ConsoleObserver
        from simulator.replay.branch import branch as start

    with two_step_interrupt() as stop_asked, sinks_of(sinks) as observers:
        done = start(
            run, round=round, sets=sets or (), out=out, observers=[ConsoleObserver(), *observers], stop_asked=stop_asked
        )
    say_report(done.path)
    if done.verdict.outcome == "interrupted":
        raise typer.Exit(EXIT_INTERRUPTED)


def verify(
    run: RunArgument,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds", metavar="N", help="The last round to play again.", show_default="all that were recorded"
        ),
    ] = None,
) -> None:
    """Play a recorded run again, in memory, and compare every round with the record.

    The exit code is 0 where all rounds have the same bits, and 1 where one differs.
    It is 3 where the environment differs and the numbers agree within a tolerance.

    Example:
    $ fedscape verify runs/digits-label-skew-1121-0714-7f3a --rounds 20
    """
    with without_collections():
        from simulator.replay.verify import verify as play_again

    found = play_again(run, rounds=rounds)
    print(found)
    if found.result != "equal":
        raise typer.Exit(EXIT_DIFFERENT if found.result == "different" else EXIT_NOT_HERE)


def bisect(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="The folder of a run.", show_default=False)],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The folder of another.", show_default=False)],
    replay: Annotated[
        bool, typer.Option("--replay/--no-replay", help="Play a round of both again where the records name no cause.")
    ] = True,
) -> None:
    """Find the first round in which two runs differ, with its tensors, its clients and the keys that differ.

    The exit code is 0 where all common rounds are equal, and 1 where one differs.

    Example:
    $ fedscape bisect runs/A runs/B
    """
    with without_collections():
        from simulator.replay.bisect import bisect as first_difference

    found = first_difference(run_a, run_b, replay=replay)
    print(found)
    if found.first is not None:
        raise typer.Exit(EXIT_DIFFERENT)
