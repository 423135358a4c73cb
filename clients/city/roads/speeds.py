"""Speeds at sensors on main roads, from the demand on them.

The speed of sensor k at hour t, in mph, with x its demand over capacity and r(m) = 1 - exp(-rain / m), is

    v = v_free (1 - dip(t)) (1 - 0.14 r(3)) (1 - 0.05 storm) min(flow(x), queue) + e
    flow(x) = q + (1 - q) / (1 + 0.05 x + 0.25 x^10),   q = 0.17

- flow: the updated curve of the Bureau of Public Roads for freeways, 1 / (1 + 0.2 x^10) (Dowling, Kittelson, Zegeer and
  Skabardonis 1997, NCHRP report 387), which is steep near x = 1 as measured speeds are; here the speed falls
  slightly below capacity and q is left far above it, since a full road still discharges.
- x = (profile of the hour + 0.3 crowd of the district) exp(noise) / (1 - 0.15 r(6)). The profile has the peaks of
  morning and evening on weekdays and one broad afternoon at weekends. A section's peaks are as high as its capacity is
  short (`roads.network`), the morning's higher where traffic drives inwards and where offices are, the evening's
  where it drives outwards and homes are; inbound peaks reach the centre later than the edge, outbound ones earlier.
- noise: of the day for the city and for the carriageway (whose peaks also come early or late that day), a field along
  the carriageways of one direction (`clients.city.roads.lanes`), and the sensor's own over a quarter of an hour: speeds
  fluctuate where x is near 1 and are steady elsewhere.
- rain takes up to 14 % of the speed, within the 3 to 16 % from light to heavy rain of FHWA, "How do weather events
  impact roads?", and up to 15 % of the capacity: 3, 8 and 12 % at 1.3, 4.5 and 10 mm/h, after the 2, 7 and 14 % of the
  Highway Capacity Manual 2010, exhibit 10-15. Storms take 5 % more of the speed, for poor sight.
- v_free = 69.6 mph less an exponential variable of mean 3, at most 24: most sections are alike, a few (ramps, bends)
  are slow.
- dip: few, heavy vehicles and night works slow the mean by up to 7 % on weekdays, 3 % at weekends.
- queue: share of the speed that incidents downstream leave (`roads.network.queues`).
- e: the sensor's noise, slow over an hour and white; readings of longer steps average more of the white part.

Its numbers were fitted by hand to one week of METR-LA (the bands in tests/support/city_figures/traffic.json were set
first); docs/city.md says how a generated week still differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clients.city.roads.lanes import field_along
from clients.city.roads.network import Incidents, Sensors, place_sensors, queues
from clients.core import streams
from clients.core.arrays import F32, F64, I64, U64
from clients.core.channels import Channel
from clients.world.world import World

QUEUED = 0.17
"""Share of the free speed that is left where demand is far above capacity: the queue still discharges."""
_BLOCK = 1 << 16  # readings made at once
CHANNELS = (
    Channel(
        name="speed", unit="mph", mean=58.0, deviation=12.5, low=0.0, high=90.0, other_unit="km/h", other_scale=1.609344
    ),
    Channel(
        name="rain", unit="mm/h", mean=0.3, deviation=1.2, low=0.0, high=100.0, other_unit="in/h", other_scale=1 / 25.4
    ),
    Channel(name="hour_sin", low=-1.0, high=1.0, deviation=0.5**0.5, measured=False),
    Channel(name="hour_cos", low=-1.0, high=1.0, deviation=0.5**0.5, measured=False),
    Channel(name="weekend", mean=2 / 7, deviation=0.45, low=0.0, high=1.0, measured=False),
)


@dataclass(frozen=True)
class _Clock:
    """Quantities common to all sensors at T times; float32 (T,) unless noted."""

    times: F64
    day: I64  # index of its day, (T,)
    hour: F32
    usual: F32  # demand over capacity outside the peaks
    rush: F32  # 1 on weekdays
    city: F32  # logarithm of the city's demand that day
    weather: F32  # speed left by night and weather
    shortage: F32  # 1 / capacity left by rain
    crowd: F32  # demand of public events by district, (D, T)
    late: F32  # by how many hours the peaks of each carriageway are late each day, (2 roads, days)
    today: F32  # logarithm of each carriageway's demand each day, (2 roads, days)
    channels: F32  # readings of every sensor except the speed, (T, 5)


@lru_cache(maxsize=8)
def _clock(world: World, seed: int, roads: int, minutes: int, start: int, stop: int) -> _Clock:
    times = np.arange(start, stop, dtype=np.float64) * (minutes / 60.0)
    days, day = np.unique(np.floor(times / 24.0).astype(np.int64), return_inverse=True)
    hour, weekend, rain = world.hour_of_day(times), world.is_weekend(times), world.at(world.rain, times)
    base = np.interp(hour, [0, 3.5, 5, 7, 11, 15, 19, 21, 24], [0.4, 0.3, 0.45, 0.72, 0.75, 0.79, 0.75, 0.55, 0.4])
    rest = np.interp(hour, [0, 4, 8, 11, 13, 17.5, 20, 24], [0.4, 0.3, 0.45, 0.74, 0.76, 0.775, 0.70, 0.4])
    night = np.exp(-(((hour - 3.2) / 2.2) ** 2)) + np.exp(-(((hour - 27.2) / 2.2) ** 2))
    dip = np.where(weekend, 0.03, 0.07) * night
    weather = (1.0 - 0.14 * (1.0 - np.exp(-rain / 3.0))) * (1.0 - 0.05 * world.at(world.storm, times))
    angle = 2.0 * np.pi * hour / 24.0
    city = streams.normals(streams.keys(seed, "traffic day", days), 1)[:, 0]
    return _Clock(
        times=times,
        day=day,
        hour=hour.astype(np.float32),
        usual=np.where(weekend, rest, base).astype(np.float32),
        rush=np.where(weekend, 0.0, 1.0).astype(np.float32),
        city=(0.02 * city[day]).astype(np.float32),
        weather=((1.0 - dip) * weather).astype(np.float32),
        shortage=(1.0 / (1.0 - 0.15 * (1.0 - np.exp(-rain / 6.0)))).astype(np.float32),
        crowd=(0.3 * world.at(world.crowd, times)).astype(np.float32),
        late=(0.4 * _lane_days(seed, "traffic road lateness", roads, days)).astype(np.float32),
        today=(0.06 * _lane_days(seed, "traffic road day", roads, days)).astype(np.float32),
        channels=np.stack((0.0 * rain, rain, np.sin(angle), np.cos(angle), weekend), axis=1).astype(np.float32),
    )


@dataclass(frozen=True)
class _Sections:
    """Fixed properties of K sensors; float32 (K, 1) unless noted."""

    both: F32  # height of the day's demand
    first: F32  # of the morning's peak above it
    second: F32  # and of the evening's
    first_hour: F32
    second_hour: F32
    lane: I64  # carriageway, (K,)
    free: F32  # mph of an empty road
    noise: F32  # of the sensor, relative


def _sections(sensors: Sensors, world: World, seed: int) -> _Sections:
    """Return the road sections of sensors."""
    office, home = world.uses[sensors.places.district, 1], world.uses[sensors.places.district, 0]
    morning = np.maximum(0.99 + 0.22 * sensors.inward + 0.15 * (office - 0.25) + 0.29 * sensors.morning, 0.2)
    evening = np.maximum(1.02 - 0.20 * sensors.inward + 0.15 * (home - 0.45) + 0.29 * sensors.evening, 0.2)
    both = 0.5 * (morning + evening)
    late = 0.35 * sensors.inward * (1.0 - np.hypot(sensors.places.x, sensors.places.y) / world.options.radius_km)
    own = -np.log(streams.uniforms(streams.keys(seed, "traffic free speed", sensors.client), 1)[:, 0])
    scale = np.exp(0.3 * streams.normals(streams.keys(seed, "traffic noise scale", sensors.client), 1)[:, 0])

    def column(values: F64) -> F32:
        return values.astype(np.float32)[:, None]

    return _Sections(
        both=column(both),
        first=column(morning - 0.73 * both),
        second=column(evening - 0.79 * both),
        first_hour=column(8.1 + late + 0.6 * sensors.morning_late),
        second_hour=column(17.6 + late + 0.6 * sensors.evening_late),
        lane=2 * sensors.road + sensors.direction,
        free=column(69.6 - 3.0 * np.minimum(own, 8.0)),
        noise=column(scale),
    )


def _lane_days(seed: int, what: str, roads: int, days: I64) -> F64:
    """Return a standard normal number of each carriageway and day, (2 roads, days)."""
    return streams.normals(streams.keys(seed, what, np.arange(2 * roads)[:, None], days), 1)[..., 0]


def read_speeds(
    world: World, seed: int, roads: int, incidents: Incidents, minutes: int, clients: I64, start: int, stop: int
) -> F32:
    """Return the readings of `CHANNELS`, float32 (K, stop - start, 5).

    Args:
        world: of the roads.
        seed: root seed.
        roads: how many.
        incidents: on them.
        minutes: from one reading to the next.
        clients: sensors, (K,).
        start: first step.
        stop: the one after the last.
    """
    readings = np.empty((len(clients), stop - start, len(CHANNELS)), np.float32)
    if readings.size == 0:
        return readings
    clock = _clock(world, seed, roads, minutes, start, stop)
    sensors = place_sensors(world, roads, clients)
    sections = _sections(sensors, world, seed)
    queued = queues(incidents, sensors, clock.times)
    near = field_along("traffic", world, roads, sensors, clock.times, length_km=2.5, hours=2.5)
    keys = [streams.keys(seed, f"traffic {what}", clients) for what in ("section noise", "slow noise", "noise")]
    white = np.float32(2.1 * (5.0 / minutes) ** 0.5)
    count = max(_BLOCK // len(clock.times), 1)
    for first in range(0, len(clients), count):  # a few sensors at a time: intermediate arrays stay in the cache
        rows = slice(first, first + count)
        local = _knots(keys[0][rows], clock.times, 0.25)
        flow = _flow(_demand_ratio(clock, sections, rows, sensors.places.district[rows], near.of(rows), local))
        queued.slow(flow, first)
        flow *= sections.free[rows]
        flow *= clock.weather
        error = streams.quick_normals(keys[2][rows], stop - start, start)
        error *= white
        slow = _knots(keys[1][rows], clock.times, 1.0)
        slow *= np.float32(1.3)
        error += slow
        error *= sections.noise[rows]
        flow += error
        readings[rows] = clock.channels
        readings[rows, :, 0] = np.clip(flow, np.float32(3.0), np.float32(CHANNELS[0].high), out=flow)
    return readings


def _demand_ratio(clock: _Clock, s: _Sections, rows: slice, district: I64, near: F32, local: F32) -> F32:
    """Return demand over capacity, (k, T); `near` and `local` are overwritten."""
    hour = clock.hour - clock.late[s.lane[rows]][:, clock.day]
    ratio = _peak(hour, s.first_hour[rows], 1.9)
    ratio *= s.first[rows]
    evening = _peak(hour, s.second_hour[rows], 2.1)
    evening *= s.second[rows]
    ratio += evening
    ratio *= clock.rush
    ratio += clock.usual * s.both[rows]
    ratio += clock.crowd[district]
    near *= np.float32(0.10)
    local *= np.float32(0.08)
    near += local
    near += clock.today[s.lane[rows]][:, clock.day]
    near += clock.city
    ratio *= np.exp(near, out=near)
    ratio *= clock.shortage
    return ratio


def _peak(hour: F32, middle: F32, width: float) -> F32:
    """Return exp(-((hour - middle) / width)^2), (k, T)."""
    away = hour - middle
    away *= np.float32(1.0 / width)
    away *= away
    np.exp(np.negative(away, out=away), out=away)
    return away


def _flow(ratio: F32) -> F32:
    """Return the share of the free speed that is left at demand over capacity `ratio`, which is overwritten."""
    squared = ratio * ratio
    tenth = squared * squared
    tenth *= tenth
    tenth *= squared
    tenth *= np.float32(0.25)
    ratio *= np.float32(0.05)
    ratio += tenth
    ratio += np.float32(1.0)
    np.divide(np.float32(1.0 - QUEUED), ratio, out=ratio)
    ratio += np.float32(QUEUED)
    return ratio


def _knots(key: U64, times: F64, hours: float) -> F32:
    """Return noise of unit variance, (k, T): independent normals every `hours`, interpolated and rescaled."""
    position = times / hours
    left = np.floor(position).astype(np.int64)
    part = position - left
    first = int(left[0])
    knots = streams.quick_normals(key, int(left[-1]) + 2 - first, first)
    left -= first
    if not part.any():
        return knots[:, left]
    scale = np.sqrt(part**2 + (1.0 - part) ** 2)
    result = knots[:, left]
    result *= ((1.0 - part) / scale).astype(np.float32)
    following = knots[:, left + 1]
    following *= (part / scale).astype(np.float32)
    result += following
    return result
