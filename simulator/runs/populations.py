"""The clients of a scenario, to look at: their data, places, faults and drifts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clients.core.errors import ScenarioError
from clients.core.population import Population
from clients.federation.build import build_federation
from simulator.runs.building import federation_of
from simulator.scenario.sections import Scenario, load_scenario


def population(
    scenario: Scenario | str | Path | None = None, *, sets: Sequence[str] = (), seed: int | None = None
) -> Population:
    """Return the clients of a scenario, as a run of it has them before the first round.

    Args:
        scenario: a `Scenario`, a file, or a built-in's name; the default scenario without one.
        sets: changes such as "faults.stuck.severity=0", of a file or a built-in.
        seed: instead of the scenario's, of a file or a built-in.

    Returns:
        The population: `cohort(clients)` their training examples, `masks(clients)` what each fault changed of them,
        `fault_counts(clients)` how much, `places(clients)` where they are, `during(round)` all of it as it is in
        a round.

    Raises:
        UserError: the scenario cannot be made; it names the key and the fix.

    Example:
        >>> import numpy as np
        >>> people = population("digits-iid", sets=["faults.bad={kind='label_symmetric', severity=0.5}"])
        >>> wrong = people.masks(np.array([0]))["bad"][0]
        >>> wrong.dtype, wrong.shape == (people.sizes[0],), bool(wrong.any())
        (dtype('bool'), True, True)
    """
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario, sets=sets, seed=seed)
    if scenario.data is None:
        raise ScenarioError("data", "is missing", fix="Add a [data] section.")
    return build_federation(federation_of(scenario, scenario.data))
