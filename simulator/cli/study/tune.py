"""The command that tunes keys of a scenario."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.core.errors import UserError
from simulator.cli.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from simulator.cli.options import ScenarioOptions
from simulator.cli.study.interrupting import two_step_interrupt, without_collections

if TYPE_CHECKING:
    from simulator.tuning.tune import Tuning

STORAGE_VARIABLE = "FEDSCAPE_TUNING_STORAGE"
SAMPLERS = "tpe, random, gp, qmc or grid"
PRUNERS = "none, median, halving or hyperband"


@dataclass(frozen=True)
class SearchOptions:
    """How values are sought."""

    params: Annotated[
        list[str],
        typer.Option(
            "--param",
            metavar="KEY=RANGE",
            help="Tune this key: LOW:HIGH, log:LOW:HIGH, LOW:HIGH:STEP, or choices A,B,C. Repeatable.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    trials: Annotated[int, typer.Option(metavar="N", help="Trials in all, those of an earlier call included.")] = 30
    seeds: Annotated[
        str, typer.Option(metavar="N|LIST", help="Runs of a trial: a number of seeds, or a list such as 11,12,13.")
    ] = "3"
    measure: Annotated[
        str, typer.Option(metavar="KEY", help="The measure whose median over the seeds is the score of a trial.")
    ] = "validation_loss"
    sampler: Annotated[str, typer.Option(metavar="NAME", help=f"Optuna's sampler: {SAMPLERS}.")] = "tpe"
    pruner: Annotated[str, typer.Option(metavar="NAME", help=f"End hopeless trials early: {PRUNERS}.")] = "none"
    sampler_seed: Annotated[int, typer.Option(metavar="N", help="The seed of the sampler.")] = 0
    within: Annotated[
        float, typer.Option(metavar="SHARE", help="Show the range of values within this share of the best score.")
    ] = 0.05


def tune(
    scenario: ScenarioOptions,
    search: SearchOptions,
    processes: Annotated[int, typer.Option(metavar="N", help="Play this many trials at once.")] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar=STORAGE_VARIABLE,
            help="A database for Optuna's study, such as sqlite:///tuning.db.",
            show_default="a journal in the folder",
        ),
    ] = None,
    study_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The study's name there.", show_default="the folder's")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The folder: new, or of a tuning that goes on.",
            show_default="studies/SCENARIO-tuning-TIME-ID",
        ),
    ] = None,
) -> None:
    """Tune keys of a scenario with Optuna.

    A trial is one recorded run for each seed. Ctrl-C stops after the round; the same command with --out goes on.
    The exit code is 1 where no trial has a score.

    Examples:
    $ fedscape tune digits-label-skew --param local_lr=log:0.001:1
    $ fedscape tune my.toml --param local_epochs=1:8 --sampler grid
    $ fedscape tune --param algorithm.kind=fedavg,fedprox --param mu=log:0.01:1
    """
    with without_collections():
        chosen = scenario.load()
        from simulator.tuning.findings import TrialRow, Tuned
        from simulator.tuning.tune import tune as tuned_by
        from simulator.tuning.words import summary, trial_line, value_text

    _warn_of_login(storage)

    def trial_ended(row: TrialRow, so_far: Tuned) -> None:
        best = "" if so_far.value is None else f"   (best {value_text(so_far, so_far.value, so_far.at_least)})"
        print(trial_line(row, so_far) + best, flush=True)

    with two_step_interrupt() as stop_asked:
        done = tuned_by(
            chosen,
            search.params,
            trials=search.trials,
            seeds=_seeds(search.seeds),
            measure=search.measure,
            sampler=search.sampler,
            pruner=search.pruner,
            sampler_seed=search.sampler_seed,
            processes=processes,
            storage=storage,
            study_name=study_name,
            within=search.within,
            out=out,
            trial_ended=trial_ended,
            stop_asked=stop_asked,
        )
    print("\n".join(summary(done.found)))
    _conclude(done)


def _warn_of_login(storage: str | None) -> None:
    """Say that a login in a URL on the command line is no secret on this machine."""
    if storage is not None and "@" in storage and storage != os.environ.get(STORAGE_VARIABLE):
        words = "--storage has a login, and every user of this machine can read it"
        print(f"fedscape: {words}. Put the URL into {STORAGE_VARIABLE}.", file=sys.stderr)


def _conclude(done: Tuning) -> None:
    if done.interrupted:
        print(f"fedscape: interrupted; the same command with --out {done.path} goes on", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED)
    if done.best:
        print(f"the scenario with the best values: {done.path / 'best.toml'}")
    print(f"trials and runs: {done.path}")
    if not done.best:
        raise typer.Exit(EXIT_FAILED)


def _seeds(text: str) -> int | list[int]:
    """Return the seeds in an option's text: a number of them, or a list.

    Raises:
        UserError: it is neither.
    """
    parts = text.split(",")
    try:
        numbers = [int(part) for part in parts if part.strip()]
    except ValueError:
        numbers = []
    if not numbers:
        problem = f"must be a number of seeds or a list of them, got {text!r:.60}"
        raise UserError("seeds", problem, fix="Such as --seeds 3, or --seeds 11,12,13.")
    return numbers[0] if len(parts) == 1 else numbers
