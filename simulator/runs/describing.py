"""The clients of a scenario before anything is trained: the population itself, and what describes its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clients.core import streams
from clients.core.arrays import I64
from clients.core.errors import require
from clients.core.examples import CohortData
from clients.core.population import Population
from clients.core.ragged import offsets_of, positions
from clients.engines.plain import PlainEngine
from clients.heterogeneity.table import HeterogeneityMeasures, Holdings, measure_clients
from clients.training.task import LearningTask
from clients.training.work import CohortWork
from dashboards.data_page.page import check_folder, write_data
from server.dispersion.measures import Dissimilarity, gradient_dissimilarity
from simulator.runs.announcement import log_notices
from simulator.runs.arguments.checks import check_out, check_parts
from simulator.runs.building import DataLike, ModelLike, Overrides, make_task_of, population_of, replacing, scenario_of
from simulator.scenario.sections import Scenario, ScenarioSource
from simulator.scenario.unread import unread_keys

GRADIENT_CLIENTS = 64
"""The most clients whose gradients are measured."""
GRADIENT_EXAMPLES = 2000
"""The most examples of each of them: the gradient of its first examples is an estimate of its full gradient."""
OF_DATA = ("data", "partition", "world", "faults", "drifts", "features")
"""The sections of a scenario that describe its data."""
_NUMBERS = 2e7  # in all gradients together


@dataclass(frozen=True)
class DataSeen:
    """A scenario's population and its measures.

    Attributes:
        scenario: the experiment.
        population: the clients in round `round_index`.
        measures: how unequal the clients are.
        held: the data of the clients that were measured.
        round_index: the round whose data are described; 0 is before the first.
        changes: whether the data change over rounds.
    """

    scenario: Scenario
    population: Population
    measures: HeterogeneityMeasures
    held: Holdings
    round_index: int = 0
    changes: bool = False

    @property
    def notices(self) -> list[str]:
        """Sentences on the scenario: what was dropped when it was loaded, and keys of its data without an effect."""
        unread = (words for words in unread_keys(self.scenario) if words.split(".")[0] in OF_DATA)
        return [*self.scenario.notices, *unread]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write data.png and data.html into a folder, and return them."""
        title = self.scenario.title or self.scenario.name
        title += f" (round {self.round_index})" if self.round_index else ""
        return write_data(folder, self.population, self.measures, self.held, title=title, seed=self.scenario.run.seed)


def describe_data(
    scenario: ScenarioSource = None,
    *,
    sets: Sequence[str] | Mapping[str, Any] = (),
    seed: int | None = None,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    out: Path | str | None = None,
    round_index: int = 0,
) -> HeterogeneityMeasures:
    """Measure how unequal the clients of a scenario are, and plot their data.

    Args:
        scenario: a `Scenario`, a table, a file, or a built-in's name; the default scenario without one.
        sets: changes such as "partition.concentration=0.1", as for `load_scenario`.
        seed: replaces the scenario's seed.
        model: any torch module, or a function that makes one, instead of [model]; without either, gradients are not
            measured.
        data: a population instead of [data] and [partition], or pooled arrays instead of [data].
        out: the folder for data.png and data.html; None writes nothing.
        round_index: the round whose data are described, for faults and drifts that begin later; 0 is before the first.

    Returns:
        The measures.

    Raises:
        UserError: the scenario is not valid, or `out` is a file.

    Example:
        >>> measures = describe_data(sets=["partition.kind=requested", "label_js=0.3", "partition.clients=10"])
        >>> measures.clients, round(measures.label_js, 2)
        (10, 0.3)
    """
    check_parts(model=model, data=data)
    check_out(out)
    scenario = scenario_of(scenario, sets, seed)
    scenario, given = replacing(scenario, Overrides(model=model, population=data))
    if out is not None:
        check_folder(Path(out))
    seen = look_at(scenario, given, round_index)
    log_notices([*seen.notices, *seen.population.federation.notices])
    if out is not None:
        seen.write(Path(out))
    return seen.measures


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


def look_at(scenario: Scenario, given: Overrides | None = None, round_index: int = 0) -> DataSeen:
    """Build a scenario's population and measure it; with a model, also the gradients at the initial parameters.

    Raises:
        UserError: the scenario is not valid, or the run has no round `round_index`.
    """
    is_round = isinstance(round_index, int | np.integer) and not isinstance(round_index, bool) and round_index >= 0
    require(is_round, "round", f"must be a whole number >= 0, got {round_index!r:.40}")
    rounds = scenario.run.rounds
    longer = f"Runs are longer with --set run.rounds={round_index}."
    require(round_index <= rounds, "round", f"must be at most the last round, {rounds}, got {round_index}", fix=longer)
    given = given or Overrides()
    whole = population_of(scenario, given)
    has_model = given.model is not None or scenario.model is not None
    task = make_task_of(scenario, given, whole) if has_model else None
    population = whole.during(round_index)
    measures, held = measure_clients(population, scenario.run.seed)
    found = initial_dissimilarity(task, scenario.run.seed, round_index) if task is not None else None
    if found is not None:
        dissimilarity, clients = found
        measures = replace(
            measures,
            gradient_dissimilarity=dissimilarity.gradient_dissimilarity,
            b_squared=dissimilarity.b_squared,
            estimated_from={**measures.estimated_from, "gradients": clients},
        )
    return DataSeen(scenario, population, measures, held, round_index, changes=whole.history.schedule is not None)


def initial_dissimilarity(task: LearningTask, seed: int, round_index: int = 0) -> tuple[Dissimilarity, int] | None:
    """Measure how much clients' gradients differ at the initial model (`gradient_dissimilarity`).

    Args:
        task: what is learnt.
        seed: root seed, which chooses the clients if there are many.
        round_index: the round whose data are used.

    Returns:
        The dissimilarity and the number of measured clients; None if no client has an example.
    """
    population = task.population.during(round_index)
    able = np.flatnonzero(population.sizes).astype(np.int64)
    most = min(GRADIENT_CLIENTS, max(2, int(_NUMBERS / max(1, task.parameters.size))), len(able))
    if not most:
        return None
    clients = able[streams.choose(streams.keys(seed, "measures/gradients"), len(able), most)]

    def first_examples(chosen: I64) -> CohortData:
        data = population.cohort(chosen)
        sizes = np.minimum(data.sizes, GRADIENT_EXAMPLES)
        rows = data.rows[positions(data.offsets[:-1], sizes)]
        return CohortData(data.features, data.targets, rows, offsets_of(sizes))

    engine = PlainEngine(
        replace(task, population=replace(population, clients=replace(population.clients, cohort=first_examples)))
    )
    params, buffers = task.initial()
    gradients = engine.gradients(CohortWork(round_index=0, clients=clients, params=params, buffers=buffers))
    return gradient_dissimilarity(
        gradients, population.federation.weights_of(clients, population.sizes[clients].astype(np.int64))
    ), most
