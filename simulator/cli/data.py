"""The command that shows what clients hold: data."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_data(verbs: Any, scenario_arguments: Callable[..., None]) -> None:
    """Add the command to the parser's.

    Args:
        verbs: what `ArgumentParser.add_subparsers` returned.
        scenario_arguments: adds what names a scenario, and its changes.
    """
    data = verbs.add_parser(
        "data", help="print and plot what each client of a scenario holds",
        description="Measure how unequal a scenario's clients are: sizes, labels, features, faults, places. Prints a "
        "table, and writes data.png and data.html.",
    )  # fmt: skip
    scenario_arguments(data, "a scenario file or a built-in's name", optional=True)
    data.add_argument("--out", type=Path, default=Path("."), metavar="FOLDER",
                      help="where data.png and data.html go (default: here)")  # fmt: skip
    data.add_argument("--round", type=int, default=0, metavar="R",
                      help="the round looked at, where data change with them (default: before the first)")  # fmt: skip
    data.set_defaults(command=_data)


def _data(options: argparse.Namespace) -> int:
    from dashboards.data_page.page import check_folder
    from dashboards.data_page.text import table
    from simulator.runs.describing import look_at
    from simulator.scenario.sections import load_scenario

    check_folder(options.out)
    scenario = load_scenario(options.scenario, sets=options.sets, seed=options.seed)
    seen = look_at(scenario, round_index=options.round)
    for line in table(seen.population, seen.measures):
        print(line)
    if seen.changes:
        print(f"\n  as in round {options.round}: these data change over the rounds, which --round shows")
    picture, page = seen.write(options.out)
    print(f"\n  {picture}\n  {page}")
    return 0
