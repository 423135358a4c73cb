"""The clients of a scenario for inspection: their data, places, faults and drifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clients.core.errors import ScenarioError
from clients.core.population import Population
from clients.federation.build import build_federation
from simulator.runs.building import federation_of
from simulator.scenario.sections import ScenarioSource, load_scenario


def population(
    scenario: ScenarioSource = None, *, sets: Sequence[str] | Mapping[str, Any] = (), seed: int | None = None
) -> Population:
    """Return the clients of a scenario as they are before the first round of a run.

    Args:
        scenario: a `Scenario`, a table, a file, or a built-in's name; the default scenario without one.
        sets: changes such as "faults.stuck.severity=0", as for `load_scenario`.
        seed: replaces the scenario's seed.

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
    scenario = load_scenario(scenario, sets=sets, seed=seed)
    if scenario.data is None:
        raise ScenarioError("data", "is missing", fix="Such as --set data.kind=digits.")
    return build_federation(federation_of(scenario, scenario.data))
