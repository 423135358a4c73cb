"""Updates carry the fault counts of the data that clients trained on."""

from __future__ import annotations

import city_populations as city
import numpy as np
import pytest

from clients.core.population import Population
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.faults.sensor_options import NoiseOptions
from clients.models.build import build_model
from clients.models.options import MlpOptions
from clients.training.options import LocalOptions
from clients.training.task import LearningTask, make_task
from clients.training.work import CohortWork, concatenate

SOME = np.array([1, 4, 6])


def task_of(population: Population) -> LearningTask:
    model = build_model(MlpOptions(hidden=(4,)), population, 0)
    return make_task(model, population, LocalOptions(local_lr=0.1, batch_size=8, local_steps=1), seed=0)


@pytest.mark.parametrize("kind", [PlainEngine, StackedEngine])
def test_update_has_the_fault_counts_of_its_data(kind: type[PlainEngine] | type[StackedEngine]) -> None:
    population = city.population("digits", faults={"noisy": NoiseOptions(severity=0.6)})
    task = task_of(population)
    params, buffers = task.initial()
    parts = [
        kind(task).train(CohortWork(round_index=1, clients=clients, params=params, buffers=buffers), {})[0]
        for clients in (SOME[1:], SOME[:1])
    ]
    found, expected = concatenate(parts).fault_counts, population.cohort(SOME).fault_counts
    assert found is not None
    assert expected is not None
    assert found.changed["noisy"].tolist() == expected.changed["noisy"].tolist()
    assert found.effect["noisy"].tolist() == expected.effect["noisy"].tolist()


def test_update_without_faults_has_no_counts() -> None:
    task = task_of(city.clean("digits"))
    params, buffers = task.initial()
    update, _ = StackedEngine(task).train(CohortWork(round_index=1, clients=SOME, params=params, buffers=buffers), {})
    assert update.fault_counts is None
