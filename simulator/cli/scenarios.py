"""The commands that print scenarios: scenarios, show."""

from __future__ import annotations

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
