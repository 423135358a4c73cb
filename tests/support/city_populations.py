"""Small populations of every generated source, and pooled data, for the contracts of the city."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from clients.core.arrays import Array
from clients.core.population import Population
from clients.federation.build import Federation, build_federation
from clients.federation.data_kinds import GENERATED
from clients.partition.options import DirichletOptions
from clients.sources.options import DigitsOptions
from clients.world.options import WorldOptions

WORLD = WorldOptions(days=30, storms_per_month=6.0, power_cuts_per_month=8.0)
PLACED = WorldOptions()
"""The world of data that take only places from it: other keys are refused there."""
CLIENTS = 9

OPTIONS: dict[str, dict[str, Any]] = {
    "traffic": {"kind": "traffic", "step_minutes": 60},
    "traffic, 15 minutes": {"kind": "traffic", "step_minutes": 15, "stride": 1, "window": 5, "horizon": 2},
    "traffic, congestion": {"kind": "traffic", "step_minutes": 60, "task": "congestion", "stride": 1},
    "meters": {"kind": "meters"},
    "meters, peak hour": {
        "kind": "meters",
        "task": "peak_hour",
        "window": 24,
        "horizon": 24,
        "stride": 24,
    },
    "air": {"kind": "air"},
    "air, ozone": {"kind": "air", "pollutant": "o3"},
    "intrusion": {"kind": "intrusion"},
    "activity": {"kind": "activity"},
    "bridge": {"kind": "bridge"},
    "bridge, autoencoder": {"kind": "bridge", "task": "reconstruct"},
}
"""Every generated source and every task of it."""


def options(name: str) -> Any:
    """Return the options of one entry of the list."""
    given = dict(OPTIONS[name])
    return GENERATED[given.pop("kind")].options(clients=CLIENTS, **given)


def federation(name: str, *, seed: int = 3, **more: Any) -> Federation:
    """Return one entry as a federation; `digits` stands for data that come pooled."""
    if name == "digits":
        partition = DirichletOptions(clients=CLIENTS, concentration=0.5)
        return Federation(data=DigitsOptions(), partition=partition, world=PLACED, seed=seed, **more)
    return Federation(data=options(name), world=WORLD, seed=seed, **more)


def population(name: str, *, seed: int = 3, **more: Any) -> Population:
    """Make one entry's population."""
    return build_federation(federation(name, seed=seed, **more))


@cache
def clean(name: str) -> Population:
    """Return one entry's population without faults; it is cached."""
    return population(name)


def examples(p: Population, clients: list[int]) -> tuple[Array, Array, list[int]]:
    """Return features, targets and sizes of some clients, in the given order."""
    data = p.cohort(np.array(clients, np.int64))
    parts = [data.client(j) for j in range(len(clients))]
    features = np.concatenate([e.features.numpy() for e in parts])
    targets = np.concatenate([e.targets.numpy() for e in parts])
    return features, targets, data.sizes.tolist()
