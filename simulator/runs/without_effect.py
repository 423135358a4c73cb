"""Keys of a scenario that have no effect with these data, this model or these parts from Python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clients.federation.effects import rounds_notices
from clients.training.task import LearningTask
from simulator.scenario.sections import Scenario
from simulator.scenario.unread import Path, is_set, late_keys, option_tables, unread_keys, without_effect


def idle_keys(scenario: Scenario, task: LearningTask) -> list[str]:
    """Return a sentence for each key that was set and has no effect in a run, or acts after its last round.

    Args:
        scenario: the experiment.
        task: its model and its clients' data.
    """
    tables = dict(option_tables(scenario))
    of_data = [
        without_effect(path, getattr(tables[path[:-1]], path[-1]), reason)
        for path, reason in _with_these_data(task)
        if is_set(tables[path[:-1]], path[-1])
    ]
    late = [*rounds_notices(scenario.faults, scenario.drifts, scenario.run.rounds), *late_keys(scenario)]
    return [*unread_keys(scenario), *of_data, *late]


def _with_these_data(task: LearningTask) -> Iterator[tuple[Path, str]]:
    """Yield keys that the data or the model leave without an effect, and why."""
    if not task.buffers.size:
        yield ("local", "buffers"), "the model has no buffers"
    if int(np.max(task.population.sizes, initial=0)) <= 1:
        keys = ("drop_last",) if task.local.batch_size == "full" else ("batch_size", "drop_last")
        for key in keys:
            yield ("local", key), "no client has more than one example"
