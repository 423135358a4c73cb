"""The commands that show scenarios and the data of their clients: scenarios, show, data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.core.shown.text import printable
from simulator.cli.builtin_files import titles
from simulator.cli.options import DEFAULT_SCENARIO, ScenarioOptions


def scenarios() -> None:
    """List the built-in scenarios, one per line, the default first.

    Example:
    $ fedscape scenarios
    """
    found = titles()
    width = max(map(len, found))
    for name in sorted(found, key=lambda name: name != DEFAULT_SCENARIO):
        print(f"{name:<{width}}  {found[name]}")


def show(scenario: ScenarioOptions) -> None:
    """Print a scenario as TOML, with every default written out.

    Examples:
    $ fedscape show city-traffic
    $ fedscape show digits-iid --set algorithm.kind=fedprox > mine.toml
    """
    from simulator.scenario.sections import to_toml

    print(to_toml(scenario.load()), end="")


def data(
    scenario: ScenarioOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="The folder for data.png and data.html.", show_default="data-SCENARIO, a new one"
        ),
    ] = None,
    round_index: Annotated[
        int,
        typer.Option("--round", metavar="R", help="Show the data of this round, if they change over rounds."),
    ] = 0,
) -> None:
    """Measure and plot the data of a scenario's clients.

    Prints a table of how unequal clients are: sizes, labels, features,
    faults, places. Writes data.png and data.html into a new folder.

    Examples:
    $ fedscape data city-intrusion
    $ fedscape data digits-label-skew --seed 7 --out plots
    """
    from dashboards.data_page.page import check_folder
    from dashboards.data_page.text import table
    from server.record.files import folder_name, free_name
    from simulator.runs.describing import look_at

    if out is not None:
        check_folder(out)
    seen = look_at(scenario.load(), round_index=round_index)
    for notice in seen.notices:
        print(printable(f"  {notice}"))
    for line in table(seen.population, seen.measures):
        print(printable(line))
    if seen.changes:
        print(f"\n  as in round {round_index}: these data change over the rounds; choose one with --round")
    picture, page = seen.write(out or free_name(Path(f"data-{folder_name(seen.scenario.name)}")))
    print(f"\n  {printable(str(picture))}\n  {printable(str(page))}")
