"""A command's dataclass becomes options of the command line, and is passed to the command as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer

from simulator.cli.options import ScenarioOptions, spread


@dataclass(frozen=True)
class Shared:
    port: Annotated[int, typer.Option(help="A number.")] = 7
    names: Annotated[list[str], typer.Option("--name")] = field(default_factory=list)


def invoke(*arguments: str) -> tuple[str, Shared]:
    seen: list[tuple[str, Shared]] = []
    app = typer.Typer()

    def command(what: str, shared: Shared) -> None:
        seen.append((what, shared))

    app.command()(spread(command))
    typer.main.get_command(app).main(list(arguments), prog_name="test", standalone_mode=False)
    (call,) = seen
    return call


def test_dataclass_has_its_defaults_without_options() -> None:
    assert invoke("a") == ("a", Shared(7, []))


def test_dataclass_has_the_values_of_options() -> None:
    assert invoke("--name", "x", "a", "--port", "8", "--name", "y") == ("a", Shared(8, ["x", "y"]))


@pytest.mark.parametrize("scenario", [None, "digits-iid"])
def test_scenario_options_load_the_scenario_with_its_changes(scenario: str | None) -> None:
    loaded = ScenarioOptions(scenario, ["run.rounds=3"], seed=5).load()
    assert (loaded.name, loaded.run.rounds, loaded.run.seed) == (scenario or "digits-label-skew", 3, 5)
