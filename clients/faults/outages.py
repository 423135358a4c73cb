"""Computes when the gateway of a district is out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64, Bool
from clients.faults.packet_options import GatewayOutageOptions
from clients.faults.readings import purpose, uniform


class World(Protocol):
    """The part of the world that a fault needs."""

    @property
    def storm(self) -> F64:
        """Storm of each hour, 0..1, float64 (hours,)."""


@dataclass(frozen=True)
class Outage:
    """A stretch in which a district's gateway is out.

    Attributes:
        district: its index.
        start: hour of the world's clock at which it begins.
        hours: how long it lasts.
    """

    district: int
    start: float
    hours: float


def phases(name: str, options: GatewayOutageOptions, district: I64, seed: int) -> F64:
    """Return the hours by which a district's slots begin before the clock's, float64 of the shape of `district`."""
    return options.hours * uniform(streams.keys(seed, purpose(name, "phase"), district))


def out(name: str, options: GatewayOutageOptions, district: I64, slot: I64, seed: int, storm: F64 | None) -> Bool:
    """Return which slots of which districts are out.

    Args:
        name: of the fault.
        options: of the fault.
        district: indices, int64.
        slot: numbers of slots, int64, broadcastable with `district`: slot n of a district begins n x hours - phase.
        seed: of the run.
        storm: of the world by hour, or None.
    """
    rate = np.array(options.severity * options.share)
    if storm is not None:
        hour = slot * options.hours - phases(name, options, district, seed)
        storms = storm[np.clip(np.floor(hour).astype(np.int64), 0, len(storm) - 1)]
        rate = 1.0 - (1.0 - rate) ** (1.0 + options.storm_factor * storms)
    return np.asarray(uniform(streams.keys(seed, purpose(name, "out"), district, slot)) < rate)


def out_of(
    name: str, options: GatewayOutageOptions, districts: I64, which: I64, slot: I64, seed: int, storm: F64 | None
) -> Bool:
    """Return which slots of the clients' districts are out, bool (R, S).

    Args:
        name: of the fault.
        options: of the fault.
        districts: indices, each once, (D,).
        which: position of each client's district in `districts`, (R,).
        slot: numbers of slots, (R, S).
        seed: of the run.
        storm: of the world by hour, or None.
    """
    if not slot.size:
        return np.zeros(slot.shape, np.bool_)
    first, last = int(slot.min()), int(slot.max())
    if len(districts) * (last - first + 1) > slot.size:
        return out(name, options, districts[which, None], slot, seed, storm)
    table = out(name, options, districts[:, None], np.arange(first, last + 1), seed, storm)
    return np.asarray(table[which[:, None], slot - first])


def outages(
    name: str, options: GatewayOutageOptions, districts: int, hours: float, *, seed: int, world: World | None = None
) -> list[Outage]:
    """Return all outages of the first `hours` hours, by district, then time; neighbouring slots are one outage.

    Districts are all of `range(districts)`: leave out those that `options.districts` does not name. A schedule in hours
    cuts outages to its hours.

    Args:
        name: of the fault in the scenario.
        options: of the fault.
        districts: how many.
        hours: hours from the start.
        seed: of the run.
        world: its storms make outages likelier.
    """
    storm = None if world is None else world.storm
    clocked = options.schedule.unit == "hours"
    begin = options.schedule.start if clocked else 0.0
    end = min(hours, options.schedule.stop) if clocked and options.schedule.stop is not None else hours
    slots = np.arange(int(hours // options.hours) + 2, dtype=np.int64)
    index = np.arange(districts, dtype=np.int64)
    phase = phases(name, options, index, seed)
    found = []
    for district in range(districts if options.severity > 0 else 0):  # one by one: there may be a million slots
        row = out(name, options, index[district : district + 1], slots, seed, storm)
        edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False]))))
        for first, last in edges.reshape(-1, 2).tolist():
            start = max(first * options.hours - phase[district], begin)
            stop = min(last * options.hours - phase[district], end)
            if stop > start:
                found.append(Outage(district, float(start), float(stop - start)))
    return found
