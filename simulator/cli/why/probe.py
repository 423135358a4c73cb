"""The command that measures from a state of a run why it moves as it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.study.interrupting import without_collections


def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)],
    round: Annotated[
        int | None,
        typer.Option(
            "--round",
            metavar="R",
            help="The round after which to probe.",
            show_default="the last one with a checkpoint",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="PART", help="Measure one part: trials, drift_by_cause or curvature. Repeatable."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", help="Draws of batches and cohorts.")] = 4,
    clients: Annotated[
        int, typer.Option("--clients", metavar="N", help="The most clients that are measured one by one.")
    ] = 200,
    replay_seconds: Annotated[
        float, typer.Option("--replay-seconds", metavar="S", help="The most seconds of rounds that are played again.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the probe as in probes.json.")] = False,
) -> None:
    """Measure from a state of a run why it moves as it does; the run does not change.

    Plays rounds with one change, splits the error of a round by cause, and compares the local rate with the curvature.
    A round without a checkpoint is reached by playing rounds again. The result is also in the run's probes.json, and
    the run's report, written anew, draws it.

    Examples:
    $ fedscape probe runs/digits-label-skew-1121-0714-7f3a
    $ fedscape probe runs/A --round 20 --only drift_by_cause
    """
    with without_collections():
        from dashboards.report.report import write_report
        from server.record.jsonlines import to_json
        from simulator.probes.probe import PARTS
        from simulator.probes.probe import probe as measure

    parts = tuple(only) if only else PARTS
    found = measure(run, round=round, parts=parts, repeats=repeats, clients=clients, replay_seconds=replay_seconds)
    print(to_json(found.to_dict(), indent=True) if as_json else found)
    report = write_report([run])
    if not as_json:
        print(f"report: {report}")
