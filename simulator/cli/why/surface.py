"""The command that measures the error surface of a run and shows it in the run's report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simulator.cli.study.interrupting import without_collections

STATES = "a round, first, best, last, or another run's folder"


def surface(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)],
    plane: Annotated[
        str, typer.Option(metavar="PLANE", help=f"path, clients, random, or three states A,B,C: each {STATES}.")
    ] = "path",
    size: Annotated[int, typer.Option(metavar="N", help="Models along each axis, 3 to 201.")] = 41,
    of: Annotated[str, typer.Option(metavar="LOSS", help="The loss: objective or validation.")] = "objective",
    round: Annotated[
        int | None,
        typer.Option(
            "--round",
            metavar="R",
            help="The round whose data count and whose clients' ends are shown.",
            show_default="the last",
        ),
    ] = None,
    line: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Measure the loss between two states too, as first,last or last,runs/B.",
            show_default=False,
        ),
    ] = None,
    hessian: Annotated[
        int, typer.Option(metavar="N", help="Find the largest eigenvalues of the Hessian in N rounds of the path.")
    ] = 0,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="How long rounds that were not kept may be played again.")
    ] = 60.0,
    examples: Annotated[
        int, typer.Option(metavar="N", help="So many examples are drawn where the loss has more.")
    ] = 10_000,
) -> None:
    """Measure the loss over a plane of parameters, with the server's path and the clients' ends.

    It writes surface.json into the run's folder, and the report anew, which then shows the surface.

    Examples:
    $ fedscape surface runs/A
    $ fedscape surface runs/A --plane clients --round 20
    $ fedscape surface runs/A --line last,runs/B --hessian 5
    """
    with without_collections():
        from simulator.surface.measuring import surface as measure

    states: Any = _split(plane) if "," in plane else plane
    found = measure(
        run,
        states,
        size=size,
        of=of,
        round=round,
        line=_split(line) if line is not None else (),
        hessian=hessian,
        seconds=seconds,
        examples=examples,
    )
    print(found)
    print(f"report: {found.write()}")


def _split(states: str) -> list[str]:
    return [state.strip() for state in states.split(",")]
