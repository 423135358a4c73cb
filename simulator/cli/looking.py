"""The commands that show what there is: scenarios, show, data, report, watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.core.errors import UserError
from clients.core.shown.text import printable
from simulator.cli.builtin_files import titles
from simulator.cli.options import DEFAULT_SCENARIO, ScenarioOptions

PORT = 8600


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


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="The folder of a run, or of a study.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to write.",
            show_default="RUN/report.html; of several, compare.html; STUDY/study.html",
        ),
    ] = None,
) -> None:
    """Write the report of one run, of several runs side by side, or the page of a study.

    The page is one HTML file that opens from disk without a network.

    Examples:
    $ fedscape report runs/first
    $ fedscape report runs/first runs/second --out both.html
    $ fedscape report studies/scaffold
    """
    from dashboards.report.report import write_report
    from dashboards.study.page import write_study_page
    from dashboards.study.study_data import is_study

    studies = [path for path in runs if is_study(path)]
    if studies and len(runs) > 1:
        fix = f"Write the page of the study alone: fedscape report {studies[0]}. Its runs are in {studies[0]}/runs."
        raise UserError("runs", f"must be runs' folders or one study's, got the study {str(studies[0])!r}", fix=fix)
    print(printable(str(write_study_page(studies[0], out) if studies else write_report(runs, out))))


def watch(
    runs: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUNS_FOLDER]", help="The folder of runs, one run's, or a study's.", show_default="runs"
        ),
    ] = None,
    port: Annotated[int, typer.Option(metavar="N", help="The port to listen on; 0 takes a free one.")] = PORT,
) -> None:
    """Serve a page that shows runs while they are recorded.

    Only this machine can reach it. Ctrl-C stops the page, not the runs.

    Example:
    $ fedscape watch runs --port 8601
    """
    from dashboards.watch.server import watch as serve

    serve(runs, port, lambda words: print(printable(f"fedscape: {words}"), flush=True))


def say_report(path: Path | None) -> None:
    """Print the path of a finished run's report as a row of the results; print nothing if there is no report."""
    file = path / "report.html" if path is not None else None
    if file is not None and file.is_file():
        print(printable(f"  {'report':<13}   {file}"))
