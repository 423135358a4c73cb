"""Main roads of a generated city, the sensors on them, and the queues behind incidents.

Roads are straight lines through the city, each with two carriageways; the two directions share a place but not queues.
An incident on a carriageway lets through less than the demand. The queue behind it follows the kinematic waves of
Lighthill and Whitham (1955) and Richards (1956): its tail moves upstream while the incident lasts, faster with more
demand. Once it is cleared the recovery moves upstream too, at RECOVERY_KMH, until it reaches the tail. A sensor
d km upstream is in the queue from start + d / growth until clear + d / RECOVERY_KMH, and never if the former is
later. A section's lack of capacity changes smoothly along a carriageway (a sum of random waves, as in
`clients.world.fields`); a quarter of the variance is the section's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from clients.core import streams
from clients.core.arrays import F32, F64, I64
from clients.core.population_parts import Places
from clients.core.ragged import positions
from clients.world.world import World

RECOVERY_KMH = 19.3
"""12 mph: waves in freeway queues move upstream at about this speed whatever the place (Treiber and Kesting 2013,
"Traffic flow dynamics", section 18.3: 15 to 20 km/h)."""
_WAVES = 12
_SECTION_KM = 2.6


@dataclass(frozen=True)
class Sensors:
    """Sensors on roads; float64 (K,) unless noted.

    Attributes:
        client: index of the sensor, int64.
        road: index of the road, int64.
        direction: carriageway, 0 (towards larger `along`) or 1, int64.
        along: km from the middle of the road.
        places: the sensors' places.
        inward: 1 where traffic drives straight to the centre, -1 straight away from it.
        morning: how close to capacity the section is in the morning peak, in standard deviations over all sections.
        evening: the same for the evening peak.
        morning_late: how late its morning peak is, in standard deviations.
        evening_late: the same for the evening peak.
    """

    client: I64
    road: I64
    direction: I64
    along: F64
    places: Places
    inward: F64
    morning: F64
    evening: F64
    morning_late: F64
    evening_late: F64


@dataclass(frozen=True)
class Incidents:
    """Incidents on roads, in order of time; float64 (I,) unless noted.

    Attributes:
        road: int64.
        direction: int64.
        along: km from the middle of the road.
        start: hour.
        clear: hour at which the road is open again.
        growth: km/h at which the queue's tail moves upstream.
        ratio: speed in the queue over free speed.
    """

    road: I64
    direction: I64
    along: F64
    start: F64
    clear: F64
    growth: F64
    ratio: F64

    def first(self, most: int) -> list[dict[str, Any]]:
        """Return the first ones as plain values: road as sensors are named, km, hours, and speed left in the queue."""
        columns = (self.road, self.direction, self.along, self.start, self.clear, self.ratio)
        return [
            {
                "road": f"road {road}{'+-'[direction]}",
                "km": round(along, 3),
                "start_hour": round(start, 3),
                "clear_hour": round(clear, 3),
                "speed_ratio": round(ratio, 4),
            }
            for road, direction, along, start, clear, ratio in zip(*(c[:most].tolist() for c in columns), strict=True)
        ]


def place_sensors(world: World, roads: int, clients: I64) -> Sensors:
    """Return where the sensors of clients are; sensor k depends on (world's seed, roads, k) alone."""
    return _placed(world, roads, np.asarray(clients, np.int64).tobytes())


@lru_cache(maxsize=2)
def _placed(world: World, roads: int, numbers: bytes) -> Sensors:
    """Place the sensors of clients; results are cached."""
    seed, clients = world.seed, np.frombuffer(numbers, np.int64)
    draws = streams.uniforms(streams.keys(seed, "traffic sensor", clients), 2)
    own = streams.normals(streams.keys(seed, "traffic section", clients), 4)
    turn, offset, half = lines(world, roads)
    carriageway = (draws[:, 0] * 2 * roads).astype(np.int64)
    road, direction = carriageway // 2, carriageway % 2
    outwards = 2.0 * draws[:, 1] - 1.0
    along = half[road] * np.sign(outwards) * np.abs(outwards) ** 1.2  # denser towards the middle
    cos, sin = np.cos(turn[road]), np.sin(turn[road])
    x, y = along * cos - offset[road] * sin, along * sin + offset[road] * cos
    heading = 1.0 - 2.0 * direction
    inward = -heading * (x * cos + y * sin) / np.sqrt(x**2 + y**2 + 4.0)
    waves = _sections(seed, roads)[carriageway]  # (K, 4, 3, sections): frequency, two coefficients
    phase = waves[:, :, 0] * along[:, None, None]
    smooth = (waves[:, :, 1] * np.cos(phase) + waves[:, :, 2] * np.sin(phase)).sum(axis=-1) / np.sqrt(_WAVES)
    close = np.sqrt(0.75) * smooth + np.sqrt(0.25) * own
    places = Places(x, y, world.district_of(x, y))
    return Sensors(clients, road, direction, along, places, inward, *close.T)


def driving_km(world: World, roads: int, sensors: Sensors) -> F64:
    """Return the driving distance between any two sensors, km, (K, K), whichever way is shorter.

    Along the road on one carriageway; 2 km more to turn round to the other; over the crossing of two roads, where they
    cross within twice the city's radius, and 1.3 times the straight line where they do not.
    """
    turn, offset, _ = lines(world, roads)
    road, along = sensors.road, sensors.along
    same = road[:, None] == road[None, :]
    other_way = same & (sensors.direction[:, None] != sensors.direction[None, :])
    straight = np.hypot(
        sensors.places.x[:, None] - sensors.places.x[None, :], sensors.places.y[:, None] - sensors.places.y[None, :]
    )
    angle = turn[:, None] - turn[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where road i meets road j, in km along i: the point of line i whose distance from line j's origin is offset j.
        meet = (offset[:, None] * np.cos(angle) - offset[None, :]) / np.sin(angle)
    meet = np.where(np.abs(np.sin(angle)) < 1e-9, np.inf, meet)
    over = np.abs(along[:, None] - meet[road[:, None], road[None, :]])
    over = over + np.abs(along[None, :] - meet[road[None, :], road[:, None]])
    reach = 2.0 * world.options.radius_km
    crossing = np.abs(meet) < reach
    crosses = (crossing & crossing.T)[road[:, None], road[None, :]]
    apart = np.where(crosses, np.maximum(over, straight), 1.3 * straight)
    return np.where(same, np.abs(along[:, None] - along[None, :]) + 2.0 * other_way, apart)


@lru_cache(maxsize=8)
def make_incidents(world: World, roads: int, per_day: float) -> Incidents:
    """Return the incidents of the whole city: `per_day` on a weekday, at hours in proportion to how full roads are.

    Lengths are log-normal (Golob, Recker and Leonard 1987, "An analysis of the severity and incident duration of
    truck-involved freeway accidents") with median 30 min, here from 6 min to 4 h. A queue keeps 0.2 to 0.5 of the free
    speed. Rain makes incidents 1.5 times as likely, the worst storm 2.5 times.
    """
    hour = np.arange(world.hours)
    busy = np.interp(np.arange(24), [0, 5, 8, 12, 17, 20, 24], [0.3, 0.3, 1.5, 1.3, 1.8, 0.8, 0.3])
    weight = busy[hour % 24] / busy.sum() * np.where(world.is_weekend(hour), 0.7, 1.0)
    weight = weight * (1.0 + 0.5 * (world.rain > 0.0) + world.storm)
    draws = streams.uniforms(streams.keys(world.seed, "traffic incident", hour[:, None], np.arange(2 * roads)), 1)
    when, carriageway = np.nonzero(draws[..., 0] < per_day / (2 * roads) * weight[:, None])
    address = streams.keys(world.seed, "traffic incident shape", when, carriageway)
    shape, lasting = streams.uniforms(address, 5), streams.normals(address + np.uint64(1), 1)[:, 0]
    _, _, half = lines(world, roads)
    road, direction = carriageway // 2, carriageway % 2
    start = when + shape[:, 0]
    full = busy[when % 24] / busy.max()
    return Incidents(
        road=road,
        direction=direction,
        along=half[road] * (2.0 * shape[:, 1] - 1.0),
        start=start,
        clear=start + np.clip(0.5 * np.exp(0.7 * lasting), 0.1, 4.0),
        growth=(2.0 + 8.0 * shape[:, 2]) * full,
        ratio=0.2 + 0.3 * shape[:, 3],
    )


@dataclass(frozen=True)
class Queues:
    """Share of the free speed left in queues, one entry a sensor and time in a queue, in order of `row`.

    Attributes:
        row: index of a sensor, int64 (Q,).
        step: index of a time, int64 (Q,).
        ratio: of the free speed, float32 (Q,).
    """

    row: I64
    step: I64
    ratio: F32

    def slow(self, flow: F32, first: int) -> None:
        """Lower `flow` (k, T), the share of free speed of sensors from row `first` on, in place."""
        begin, end = np.searchsorted(self.row, (first, first + len(flow)))
        some = slice(begin, end)
        np.minimum.at(flow, (self.row[some] - first, self.step[some]), self.ratio[some])


def queue_ratio(incidents: Incidents, sensors: Sensors, times: F64) -> F32:
    """Return the share of the free speed that queues leave, 1 without a queue, float32 (K, T); see `queues`."""
    left = np.ones((len(sensors.client), len(times)), np.float32)
    queues(incidents, sensors, times).slow(left, 0)
    return left


def queues(incidents: Incidents, sensors: Sensors, times: F64) -> Queues:
    """Return where and when sensors are in queues. Of several queues the slowest counts.

    Drivers brake within 6 min and speed up within 15.

    Args:
        incidents: of the city.
        sensors: K of them.
        times: rising hours, (T,).
    """
    if len(times) == 0:
        return Queues(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    reach = (incidents.clear - incidents.start) / (1.0 / incidents.growth - 1.0 / RECOVERY_KMH)  # km, where waves meet
    ends = incidents.clear + reach / RECOVERY_KMH + 0.25
    some = np.flatnonzero((ends > times[0]) & (incidents.start - 0.1 < times[-1]))
    heading = 1.0 - 2.0 * incidents.direction
    behind = heading[some] * (incidents.along[some] - sensors.along[:, None])
    lane, theirs = 2 * sensors.road + sensors.direction, 2 * incidents.road + incidents.direction
    row, which = np.nonzero((lane[:, None] == theirs[some]) & (behind >= 0.0) & (behind < reach[some]))
    d, i = behind[row, which], some[which]
    first, last = np.searchsorted(times, incidents.start[i] - 0.1), np.searchsorted(times, ends[i])
    step, pair = positions(first, last - first), np.repeat(np.arange(len(i)), last - first)
    arrives, leaves = incidents.start[i] + d / incidents.growth[i], incidents.clear[i] + d / RECOVERY_KMH
    braking = np.clip((times[step] - arrives[pair]) / 0.1, 0.0, 1.0)
    speeding = np.clip((leaves[pair] - times[step]) / 0.25 + 1.0, 0.0, 1.0)
    ratio = 1.0 - (1.0 - incidents.ratio[i])[pair] * np.minimum(braking, speeding)
    return Queues(row[pair], step, ratio.astype(np.float32))


@lru_cache(maxsize=8)
def lines(world: World, roads: int) -> tuple[F64, F64, F64]:
    """Return the angle, signed distance from the centre and half length of each road, (roads,)."""
    draws = streams.uniforms(streams.keys(world.seed, "traffic road", np.arange(roads)), 2)
    radius = world.options.radius_km
    turn = np.pi * (np.arange(roads) + 0.3 * draws[:, 0]) / roads
    offset = radius * 0.7 * (draws[:, 1] - 0.5)
    return turn, offset, np.sqrt(radius**2 - offset**2)


@lru_cache(maxsize=8)
def _sections(seed: int, roads: int) -> F64:
    """Waves that make sections differ smoothly along carriageways: (2 roads, 4 quantities, 3, waves)."""
    waves = streams.normals(streams.keys(seed, "traffic capacity", np.arange(2 * roads)), 12 * _WAVES)
    waves = waves.reshape(2 * roads, 4, 3, _WAVES)
    waves[:, :, 0] = (0.5 + np.abs(waves[:, :, 0])) / _SECTION_KM  # no wave is so long that it lifts a whole road
    return waves
