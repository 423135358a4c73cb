"""What the arms of a study share for a seed: digests of the parts of their runs, taken before the first run.

Random numbers are addressed by (seed, purpose, round, client), so arms share what their scenarios do not change. The
digests show it for the study at hand: two arms share a part where its digests are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xxhash
from torch import Tensor

from clients.core.arrays import I64
from clients.core.population import Population
from clients.federation.options import FeatureOptions
from clients.training.class_balance import draw_batches
from clients.training.local import batches_per_epoch
from simulator.runs.building import Overrides, population_of
from simulator.runs.session import Session
from simulator.scenario.sections import Scenario
from simulator.studies.plan import PARTS

CLIENTS, ROUNDS = 8, 20
"""How many clients and rounds are looked at."""
LEVEL_ROUNDS = (1, 5, 20, 80)
"""Rounds whose levels of drift are looked at."""


def parts_of(session: Session) -> dict[str, str | None]:
    """Return a digest of each part of a run that is about to begin; None of a part that it does not have."""
    scenario, population = session.scenario, session.population
    touched = scenario.faults or scenario.drifts or scenario.features != FeatureOptions()
    clean = _clean(scenario) if touched else population
    clients = np.flatnonzero(population.sizes)[:CLIENTS].astype(np.int64)
    found: dict[str, Callable[[], Any]] = {
        "data": lambda: _central(clean),
        "partition": lambda: [clean.sizes, *_examples(clean, clients)],
        "faults": lambda: _masks(population, clients) if scenario.faults else None,
        "drifts": lambda: _levels(population, clients) if scenario.drifts else None,
        "cohorts": lambda: _cohorts(session),
        "model": lambda: [session.start.params, session.start.buffers],
        "batches": lambda: _batches(session, clean, clients),
    }
    return {part: _digest(found[part]()) for part in PARTS}


def _clean(scenario: Scenario) -> Population:
    """Return the population without faults, drifts and processed features: which client holds what is then seen."""
    return population_of(replace(scenario, faults={}, drifts={}, features=FeatureOptions()), Overrides())


def _central(population: Population) -> list[Any]:
    parts = [examples for examples in (population.validation, population.test) if examples is not None]
    return [population.num_examples, population.outputs, *(t for part in parts for t in (part.features, part.targets))]


def _examples(population: Population, clients: I64) -> list[Any]:
    if not len(clients):
        return []
    data = population.cohort(clients)
    return [data.features[data.rows], data.targets[data.rows]]


def _masks(population: Population, clients: I64) -> list[Any]:
    return [item for name, masks in population.masks(clients).items() for item in (name, *masks)]


def _levels(population: Population, clients: I64) -> list[Any]:
    found: list[Any] = []
    for index in LEVEL_ROUNDS:
        levels = population.during(index).history.drift_levels
        found += [index, *(levels(clients).values() if levels is not None else ())]
    return found


def _cohorts(session: Session) -> list[Any] | None:
    own = session.played.own
    if own is None:
        return None
    return [own.federation.sampler.draw(index).clients for index in range(1, ROUNDS + 1)]


def _batches(session: Session, population: Population, clients: I64) -> list[Any] | None:
    if not len(clients) or session.population.task == "objective":
        return None
    data, task = population.cohort(clients), session.task
    steps = batches_per_epoch(task.local, data.sizes.astype(np.int64)) * np.minimum(data.sizes, 1)
    drawn = draw_batches(task.local, data, steps, clients, seed=task.seed, round_index=1)
    return [drawn.rows - data.rows.min(), drawn.counts]


def _digest(values: Sequence[Any] | None) -> str | None:
    if values is None:
        return None
    state = xxhash.xxh3_64()
    for value in values:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        state.update(f"{array.dtype}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
