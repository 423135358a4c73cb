"""The commands that print scenarios: scenarios, show."""

from __future__ import annotations

from simulator.cli.options import ScenarioOptions


def scenarios() -> None:
    """List the built-in scenarios, a line each.

    Example:
    $ fedscape scenarios
    """
    from simulator.scenario.sections import builtin_names, load_scenario

    names = builtin_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}  {load_scenario(name).title}")


def show(scenario: ScenarioOptions) -> None:
    """Print a scenario as TOML, with every default written out.

    Examples:
    $ fedscape show city-traffic
    $ fedscape show digits-iid --set algorithm.kind=fedprox > mine.toml
    """
    from simulator.scenario.sections import to_toml

    print(to_toml(scenario.load()), end="")
