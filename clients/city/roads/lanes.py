"""Smooth random fields along carriageways, made every half kilometre and interpolated in between.

Sensors of one carriageway lie on a line, so a field is needed on a few hundred points of a city and not at every
sensor. Between two points of correlation c = exp(-step^2 / (2 length^2)) the interpolated value is rescaled to unit
variance, as `clients.world.fields` does between hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clients.city.roads.network import Sensors, lines
from clients.core.arrays import F32, F64, I64
from clients.core.population_parts import Places
from clients.world.world import World

STEP_KM = 0.5
_KEPT = 1 << 23  # the most numbers of a cached table: 32 MiB


@dataclass(frozen=True)
class Between:
    """Where K sensors lie between points of a table: `table[left] * before + table[left + 1] * after`.

    Attributes:
        table: the field at points and times, float32 (P, T).
        left: rows, int64 (K,).
        before: float32 (K, 1); so is the following.
        after: of the next point.
    """

    table: F32
    left: I64
    before: F32
    after: F32

    def of(self, rows: slice) -> F32:
        """Return the field at some of the sensors, float32 (k, T)."""
        result: F32 = self.table[self.left[rows]]
        result *= self.before[rows]
        following = self.table[self.left[rows] + 1]
        following *= self.after[rows]
        result += following
        return result


def field_along(
    name: str, world: World, roads: int, sensors: Sensors, times: F64, *, length_km: float, hours: float
) -> Between:
    """Return a field of unit variance at sensors and times; the two directions of a road are independent.

    Args:
        name: of the field; `World.field` gets it with the direction added.
        world: of the field.
        roads: of the city.
        sensors: K of them; the values of one depend on no other.
        times: hours, (T,).
        length_km: as in `World.field`.
        hours: as in `World.field`.
    """
    _, _, half = lines(world, roads)
    starts, end = _starts(world, roads)
    position = (sensors.along + half[sensors.road]) / STEP_KM
    part = position - np.floor(position)
    near = np.exp(-0.5 * (STEP_KM / length_km) ** 2)
    scale = np.sqrt(part**2 + (1.0 - part) ** 2 + 2.0 * part * (1.0 - part) * near)
    left = starts[sensors.road] + position.astype(np.int64) + sensors.direction * end
    if 2 * end * len(times) <= _KEPT:
        table = _table(name, world, roads, times.tobytes(), length_km, hours)
    else:
        needed, left = _only(left)
        table = _values(name, world, roads, needed, times, length_km, hours)
    before, after = ((1.0 - part) / scale).astype(np.float32), (part / scale).astype(np.float32)
    return Between(table, left, before[:, None], after[:, None])


@lru_cache(maxsize=8)
def _starts(world: World, roads: int) -> tuple[I64, int]:
    """Return the first point of each road in one direction, int64 (roads,), and how many points there are."""
    _, _, half = lines(world, roads)
    ends = np.cumsum(np.floor(2.0 * half / STEP_KM).astype(np.int64) + 2)
    return np.concatenate(([0], ends[:-1])), int(ends[-1])


def _only(left: I64) -> tuple[I64, I64]:
    """Return the points at and after `left`, rising, and where each `left` is among them."""
    needed = np.unique(np.concatenate((left, left + 1)))
    return needed, np.searchsorted(needed, left)


@lru_cache(maxsize=2)
def _table(name: str, world: World, roads: int, times: bytes, length_km: float, hours: float) -> F32:
    _, end = _starts(world, roads)
    return _values(name, world, roads, np.arange(2 * end), np.frombuffer(times), length_km, hours)


def _values(name: str, world: World, roads: int, points: I64, times: F64, length_km: float, hours: float) -> F32:
    """Return the field at rising points of both directions, (P, T)."""
    turn, offset, half = lines(world, roads)
    starts, end = _starts(world, roads)
    road = np.searchsorted(starts, points % end, side="right") - 1
    along = (points % end - starts[road]) * STEP_KM - half[road]
    cos, sin = np.cos(turn[road]), np.sin(turn[road])
    x, y = along * cos - offset[road] * sin, along * sin + offset[road] * cos
    values = []
    for direction in (0, 1):
        here = points // end == direction
        places = Places(x[here], y[here], np.zeros(int(here.sum()), np.int64))
        values.append(world.field(f"{name} {direction}", places, times, length_km=length_km, hours=hours))
    return np.concatenate(values)
