"""The commands that play studies: study, and run with several seeds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.core.errors import UserError
from simulator.cli.builtin_files import set_keys
from simulator.cli.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from simulator.cli.study.interrupting import two_step_interrupt, without_collections

if TYPE_CHECKING:
    from simulator.cli.options import ScenarioOptions
    from simulator.cli.sinks import SinkOptions


def study(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]",
            help="A study file, a study's folder, a built-in study, or a scenario.",
            show_default="digits-label-skew",
        ),
    ] = None,
    factors: Annotated[
        list[str],
        typer.Option(
            "--factor", metavar="KEY=A,B", help="Compare these values of a key. Repeatable: they are crossed."
        ),
    ] = [],  # noqa: B006  # typer makes a new one
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N", help="How many seeds, or a list such as 3,5,8.", show_default="the study's, or 10"),
    ] = None,
    sets: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one key of every arm; an empty value removes it. Repeatable.",
            autocompletion=set_keys,
        ),
    ] = [],  # noqa: B006
    measure: Annotated[
        str | None, typer.Option(metavar="KEY", help="Compare this measure, such as rounds_to_target.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="The study's folder: new, empty, or a study's.", show_default="studies/NAME-TIME-ID"
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", help="How many runs are played at once.", show_default="one a processor"),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="K/N", help="Play the K-th of N parts, with the same --out as the others.")
    ] = None,
) -> None:
    """Play arms of a scenario over seeds, and say how they differ.

    Finished runs are never played again: a study that was stopped goes on with its folder as STUDY.
    Ctrl-C finishes the rounds that are played, keeps checkpoints and exits with 130. A second Ctrl-C stops at once.
    The exit code is 1 where a run failed.

    Examples:
    $ fedscape study digits-label-skew --factor algorithm.kind=fedavg,scaffold --seeds 10
    $ fedscape study my-study.toml --out studies/mine
    $ fedscape study studies/mine
    """
    answer = None if measure is None else {"measure": measure}
    changes = {"factors": factors or None, "set": sets, "answer": answer}
    _play(study, _seeds(seeds), out=out, processes=processes, shard=shard, **changes)


def run_seeds(scenario: ScenarioOptions, sinks: SinkOptions, out: Path | None, seeds: str) -> None:
    """Run a scenario with several seeds: the smallest study.

    Raises:
        UserError: an option of one run is given too.
    """
    from simulator.cli.sinks import SinkOptions

    if scenario.seed is not None:
        raise UserError(
            "--seed", "cannot be used with --seeds", fix=f"Write --seeds {scenario.seed} for that one alone."
        )
    if sinks != SinkOptions():
        fix = "Export the runs afterwards with fedscape export."
        raise UserError("--seeds", "plays several runs at once, which have no sinks of their own", fix=fix)
    _play(scenario.scenario, _seeds(seeds), out=out, set=scenario.sets)


def _play(source: str | None, seeds: int | Sequence[int] | None, *, out: Path | None, **more: object) -> None:
    with without_collections():
        from simulator.cli.study.console import StudyConsole
        from simulator.tuning.tuned_study import study as play

    console = StudyConsole(sys.stdout)
    try:
        with two_step_interrupt() as stop_asked:
            watching = {"observer": console, "trial_ended": console.trial_ended, "stop_asked": stop_asked}
            done = play(source, seeds=seeds, out=out, **watching, **more)  # type: ignore[arg-type]
            interrupted = stop_asked() and not done.complete
    finally:
        console.close()
    console.study_ended(done)
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if done.failures:
        raise typer.Exit(EXIT_FAILED)


def _seeds(text: str | None) -> int | list[int] | None:
    """Return the seeds that an option names.

    Raises:
        UserError: it names none.

    Example:
        >>> _seeds("10"), _seeds("3,5"), _seeds("7,")
        (10, [3, 5], [7])
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    numbers = [part for part in parts if part]
    if not numbers or not all(part.isdecimal() and len(part) < 20 for part in numbers):
        fix = "--seeds 10 is ten seeds, --seeds 3,5,8 these three."
        raise UserError("--seeds", f"must be a number of seeds or a list of them, got {text!r:.40}", fix=fix)
    return int(numbers[0]) if len(parts) == 1 else [int(part) for part in numbers]
