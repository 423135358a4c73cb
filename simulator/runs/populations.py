"""The clients of a scenario for inspection: their data, places, faults and drifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clients.core.population import Population
from simulator.runs.argument_checks import check_parts
from simulator.runs.building import DataLike, Overrides, population_of, replacing, scenario_of
from simulator.scenario.sections import ScenarioSource


def population(
    scenario: ScenarioSource = None,
    *,
    sets: Sequence[str] | Mapping[str, Any] = (),
    seed: int | None = None,
    data: DataLike | None = None,
) -> Population:
    """Return the clients of a scenario as they are before the first round of a run.

    Args:
        scenario: a `Scenario`, a table, a file, or a built-in's name; the default scenario without one.
        sets: changes such as "faults.stuck.severity=0", as for `load_scenario`.
        seed: replaces the scenario's seed.
        data: a population instead of [data] and [partition], or pooled arrays instead of [data].

    Returns:
        The population. `cohort(clients)` returns training examples, `masks(clients)` the values that each fault
        changed, `fault_counts(clients)` their number, and `places(clients)` where clients are. `during(round)` returns
        the population of a round.

    Raises:
        UserError: the scenario is not valid; the message names the key and the fix.

    Example:
        >>> import numpy as np
        >>> people = population("digits-iid", sets=["faults.bad={kind='label_symmetric', severity=0.5}"])
        >>> wrong = people.masks(np.array([0]))["bad"][0]
        >>> wrong.dtype, wrong.shape == (people.sizes[0],), bool(wrong.any())
        (dtype('bool'), True, True)
    """
    check_parts(data=data)
    return population_of(*replacing(scenario_of(scenario, sets, seed), Overrides(population=data)))
