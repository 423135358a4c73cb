"""Parts of a cohort that are made in threads: the same numbers, and no thread is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

import clients.core.on_demand as on_demand
import clients.federation.faulty_examples as faulty_examples
from clients.city.intrusion import intrusion_source
from clients.city.window_options import IntrusionOptions
from clients.core.population import CohortData, Population
from clients.engines.native.threads import set_threads, threads_restored
from clients.faults.sensor_options import NoiseOptions
from clients.federation.faulty_examples import with_faults
from clients.federation.side_by_side import side_by_side
from clients.federation.window_examples import window_population
from clients.sources.custom import custom_population
from clients.world.options import WorldOptions
from clients.world.world import make_world

FAULTS = {"noisy": NoiseOptions(severity=0.5, clients=0.5)}


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Have one thread, or three."""
    with threads_restored():
        set_threads(torch.get_num_threads(), of_kernels=request.param)
        yield request.param


def test_every_part_is_done_once_and_no_thread_is_left(threads: int) -> None:
    before, done = threading.active_count(), np.zeros(20, np.int64)

    def work(part: int) -> None:
        done[part] += 1

    side_by_side(range(20), work)
    assert done.tolist() == [1] * 20
    assert threading.active_count() == before


def test_error_of_a_part_is_raised_and_no_thread_is_left(threads: int) -> None:
    before = threading.active_count()

    def work(part: int) -> None:
        if part == 2:
            raise ValueError("the third part")

    with pytest.raises(ValueError, match="the third part"):
        side_by_side(range(20), work)
    assert threading.active_count() == before


def test_warnings_that_the_caller_ignores_are_ignored_in_every_thread(threads: int) -> None:
    with np.errstate(divide="ignore"):
        side_by_side(range(4), lambda part: np.ones(3) / np.zeros(3))


def devices(count: int) -> Population:
    return window_population(
        intrusion_source(IntrusionOptions(clients=count), make_world(WorldOptions(), 0), 0), seed=0
    )


def bits(data: CohortData) -> tuple[bytes, bytes]:
    rows = torch.from_numpy(data.rows)
    return data.features[rows].numpy().tobytes(), data.targets[rows].numpy().tobytes()


def test_windows_and_their_faults_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((faulty_examples, "_CHANGED"), (faulty_examples, "_AT_ONCE"), (on_demand, "RESIDENT_CLIENTS")):
        monkeypatch.setattr(module, name, 1 if name != "_CHANGED" else 1 << 12)
    cohort, found = np.array([3, 5, 8, 40, 41, 90]), []
    for count in (1, 3):
        with threads_restored():
            set_threads(torch.get_num_threads(), of_kernels=count)
            data = with_faults(devices(100), FAULTS, seed=2).cohort(cohort)
            assert data.fault_counts is not None
            found.append((*bits(data), data.fault_counts.changed["noisy"].tobytes()))
    assert found[0] == found[1]


def test_intrusion_makes_a_device_alike_alone_and_after_others() -> None:
    world = make_world(WorldOptions(), 0)
    source, other = (intrusion_source(IntrusionOptions(clients=60), world, 0) for _ in range(2))
    source.make(np.arange(60), "train")
    for part in (np.array([20, 21]), np.array([59]), np.array([4, 9]), np.array([5, 4])):
        for made, expected in zip(source.make(part, "train"), other.make(part, "train"), strict=True):
            assert made.tobytes() == expected.tobytes()
        other.make(np.array([0]), "test")  # forgets the devices
        source.make(np.arange(60), "train")


def test_users_function_is_called_by_one_thread(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(faulty_examples, "_AT_ONCE", 1)
    monkeypatch.setattr(faulty_examples, "_CHANGED", 1)
    called: set[int] = set()

    def client(k: int) -> tuple[torch.Tensor, torch.Tensor]:
        called.add(threading.get_ident())
        return torch.full((4, 2), float(k)), torch.zeros(4, dtype=torch.int64)

    population = custom_population(client, [4] * 12, outputs=2)
    fresh = population.clients.cohort
    assert not isinstance(fresh, on_demand.Recent)
    apart = on_demand.Recent(fresh, fresh)
    population = replace(population, clients=replace(population.clients, cohort=apart))
    with_faults(population, FAULTS, seed=2).cohort(np.arange(12))
    assert called == {threading.get_ident()}
