"""Traffic: speeds at sensors on the main roads of a generated city.

The speed of sensor k at hour t, in mph, with x its demand over capacity and r(m) = 1 - exp(-rain / m), is

    v = v_free (1 - dip(t)) (1 - 0.14 r(3)) (1 - 0.05 storm) min(flow(x), queue) + e
    flow(x) = q + (1 - q) / (1 + 0.05 x + 0.25 x^10),   q = 0.17

- flow: the updated curve of the Bureau of Public Roads for freeways, 1 / (1 + 0.2 x^10) (Dowling, Kittelson, Zegeer and
  Skabardonis 1997, NCHRP report 387), which is steep near x = 1 as measured speeds are; here with a slight fall below
  capacity and with q left far above it, since a full road still discharges.
- x = (profile of the hour + 0.3 crowd of the district) exp(noise) / (1 - 0.15 r(6)). The profile has the peaks of
  morning and evening on weekdays and one broad afternoon at weekends. A section's peaks are as high as its capacity is
  short (`clients.city.roads`), the morning's higher where traffic drives inwards and where offices are, the evening's
  where it drives outwards and homes are; inbound peaks reach the centre later than the edge, outbound ones earlier.
- noise: of the day for the city and for the carriageway (whose peaks also come early or late that day), a field over
  neighbouring sensors of one direction (`World.field`), and the sensor's own over a quarter of an hour: speeds
  fluctuate where x is near 1 and rest where it is not.
- rain takes up to 14 % of the speed, within the 3 to 16 % from light to heavy rain of FHWA, "How do weather events
  impact roads?", and up to 15 % of the capacity: 3, 8 and 12 % at 1.3, 4.5 and 10 mm/h, after the 2, 7 and 14 % of the
  Highway Capacity Manual 2010, exhibit 10-15. Storms take 5 % more of the speed, for poor sight.
- v_free = 69.6 mph less an exponential variable of mean 3, at most 24: most sections are alike, a few (ramps, bends)
  are slow.
- dip: few, heavy vehicles and night works slow the mean by up to 7 % on weekdays, 3 % at weekends.
- queue: what incidents downstream leave of the speed (`roads.queue_ratio`).
- e: the sensor's noise, slow over an hour and white; readings of longer steps average more of the white part.

Its numbers were fitted by hand to one week of METR-LA (the bands in tests/support/city_figures/traffic.json were set
first); docs/city.md says how a generated week still differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from clients import streams
from clients.channels import Channel
from clients.city.roads import Sensors, make_incidents, place_sensors, queue_ratio
from clients.city.world import World
from clients.errors import require
from clients.options import STRICT
from clients.population import Places
from clients.sensing import SeriesSource

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

CONGESTED_MPH = 40.0
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


@dataclass(frozen=True, kw_only=True)
class TrafficOptions:
    """Speeds at road sensors (`[data] kind = "traffic"`).

    Attributes:
        kind: "traffic".
        clients: sensors.
        task: "forecast" the speeds of the next `horizon` steps, or "congestion": is the last of them below 40 mph.
        step_minutes: 5, 15 or 60.
        window: past steps that a model sees.
        horizon: steps ahead.
        stride: steps from one window to the next.
        roads: main roads through the city, each with two carriageways.
        incidents_per_day: in the whole city on a weekday.
        validation_fraction: of the time, after the training part.
        test_fraction: of the time, at the end.
    """

    __pydantic_config__: ClassVar = STRICT

    kind: Literal["traffic"] = "traffic"
    clients: int = 207
    task: Literal["forecast", "congestion"] = "forecast"
    step_minutes: int = 15
    window: int = 12
    horizon: int = 4
    stride: int = 4
    roads: int = 6
    incidents_per_day: float = 14.0
    validation_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        """Check the values."""
        require(self.task in ("forecast", "congestion"), "task", f"must be forecast or congestion, got {self.task!r}")
        require(self.step_minutes in (5, 15, 60), "step_minutes", f"must be 5, 15 or 60, got {self.step_minutes}")
        for name in ("clients", "window", "horizon", "stride", "roads"):
            require(getattr(self, name) >= 1, name, f"must be >= 1, got {getattr(self, name)}")
        require(self.roads <= 1000, "roads", f"must be <= 1000, got {self.roads}")
        crashes = f"must be from 0 to 1000, got {self.incidents_per_day}"
        require(0.0 <= self.incidents_per_day <= 1000.0, "incidents_per_day", crashes)
        for name in ("validation_fraction", "test_fraction"):
            require(0.0 <= getattr(self, name) < 1.0, name, f"must be from 0 to below 1, got {getattr(self, name)}")
        both = self.validation_fraction + self.test_fraction
        require(both < 1.0, "test_fraction", f"must leave some time to train on, got {both} with validation_fraction")


def traffic_source(options: TrafficOptions, world: World, seed: int) -> SeriesSource:
    """Return the speeds of all sensors in `world`, from the seed.

    Raises:
        UserError: if the world is too short for one training window.

    Example:
        >>> from clients.city.world import WorldOptions, make_world
        >>> source = traffic_source(TrafficOptions(clients=3), make_world(WorldOptions(days=7), 0), 0)
        >>> source.read(np.arange(3), 0, 96).shape
        (3, 96, 5)
    """
    per_hour = 60 // options.step_minutes
    steps = world.hours * per_hour
    train = int(steps * (1.0 - options.validation_fraction - options.test_fraction))
    ends = (train, max(int(steps * (1.0 - options.test_fraction)), train), steps)
    need = options.window + options.horizon
    problem = f"must leave a window of the {ends[0]} training steps, got {options.window} + horizon {options.horizon}"
    require(need <= ends[0], "window", problem, fix="Make the world longer (world.days) or the window shorter.")
    congestion = options.task == "congestion"
    incidents = make_incidents(world, options.roads, options.incidents_per_day)

    def read(clients: I64, start: int, stop: int) -> F32:
        return _read(options, world, seed, clients, start, stop)

    def places(clients: I64) -> Places:
        return place_sensors(world, options.roads, clients).places

    def client_name(client: int) -> str:
        sensor = place_sensors(world, options.roads, np.array([client]))
        return f"road {sensor.road[0]}{'+-'[sensor.direction[0]]} km {sensor.along[0]:.1f}"

    return SeriesSource(
        name="traffic congestion" if congestion else "traffic",
        num_clients=options.clients,
        channels=CHANNELS,
        step_hours=options.step_minutes / 60.0,
        ends=ends,
        read=read,
        window=options.window,
        horizon=options.horizon,
        stride=options.stride,
        label=_congested if congestion else None,
        outputs=2 if congestion else options.horizon,
        places=places,
        districts=world.names,
        client_name=client_name,
        facts={"sensors": options.clients, "roads": options.roads, "incidents": len(incidents.start)},
    )


def _congested(future: npt.NDArray[Any]) -> I64:
    """Whether the last of the future speeds is below CONGESTED_MPH: 1 or 0."""
    return np.asarray(future[..., -1] < CONGESTED_MPH).astype(np.int64)


def _read(options: TrafficOptions, world: World, seed: int, clients: I64, start: int, stop: int) -> F32:
    """Channels of `CHANNELS`, float32 (K, stop - start, 5)."""
    steps = np.arange(start, stop)
    times: F64 = steps.astype(np.float64) * (options.step_minutes / 60.0)
    rain = world.at(world.rain, times)
    incidents = make_incidents(world, options.roads, options.incidents_per_day)
    readings = np.empty((len(clients), len(times), len(CHANNELS)), np.float32)
    rows = max(16, _BLOCK // max(len(times), 1))
    for first in range(0, len(clients), rows):  # a few sensors at a time: what is made on the way stays in the cache
        sensors = place_sensors(world, options.roads, clients[first : first + rows])
        ratio = _demand_ratio(sensors, world, seed, times, rain)
        flow = QUEUED + (1.0 - QUEUED) / (1.0 + 0.05 * ratio + 0.25 * _tenth_power(ratio))
        flow = np.minimum(flow, queue_ratio(incidents, sensors, times))
        speed = _free_speed(sensors, world, seed, times, rain) * flow
        speed += _noise(sensors, seed, steps, times, options.step_minutes)
        readings[first : first + rows, :, 0] = np.clip(speed, 3.0, CHANNELS[0].high)
    readings[..., 1] = rain
    angle = 2.0 * np.pi * world.hour_of_day(times) / 24.0
    readings[..., 2], readings[..., 3] = np.sin(angle), np.cos(angle)
    readings[..., 4] = world.is_weekend(times)
    return readings


def _tenth_power(x: F64) -> F64:
    squared = x * x
    fourth = squared * squared
    return np.asarray(fourth * fourth * squared)


def _free_speed(sensors: Sensors, world: World, seed: int, times: F64, rain: F64) -> F64:
    """Speed of an empty road in the weather and at the hour, (K, T)."""
    own = -np.log(streams.uniforms(streams.keys(seed, "traffic free speed", sensors.client), 1))
    hour = world.hour_of_day(times)
    night = np.exp(-(((hour - 3.2) / 2.2) ** 2)) + np.exp(-(((hour - 27.2) / 2.2) ** 2))
    dip = np.where(world.is_weekend(times), 0.03, 0.07) * night
    weather = (1.0 - 0.14 * (1.0 - np.exp(-rain / 3.0))) * (1.0 - 0.05 * world.at(world.storm, times))
    return np.asarray((69.6 - 3.0 * np.minimum(own, 8.0)) * ((1.0 - dip) * weather))


def _demand_ratio(sensors: Sensors, world: World, seed: int, times: F64, rain: F64) -> F64:
    """Demand over capacity, (K, T)."""
    hour, weekend = world.hour_of_day(times), world.is_weekend(times)
    office, home = world.uses[sensors.places.district, 1], world.uses[sensors.places.district, 0]
    level = 0.99 + 0.22 * sensors.inward + 0.15 * (office - 0.25) + 0.29 * sensors.morning
    morning = np.maximum(level, 0.2)[:, None]
    level = 1.02 - 0.20 * sensors.inward + 0.15 * (home - 0.45) + 0.29 * sensors.evening
    evening = np.maximum(level, 0.2)[:, None]
    late = 0.35 * sensors.inward * (1.0 - np.hypot(sensors.places.x, sensors.places.y) / world.options.radius_km)
    today = 0.4 * _road_days(sensors, seed, "traffic road lateness", times)
    first_late = (late + 0.6 * sensors.morning_late)[:, None] + today
    second_late = (late + 0.6 * sensors.evening_late)[:, None] + today
    base = np.interp(hour, [0, 3.5, 5, 7, 11, 15, 19, 21, 24], [0.4, 0.3, 0.45, 0.72, 0.75, 0.79, 0.75, 0.55, 0.4])
    rest = np.interp(hour, [0, 4, 8, 11, 13, 17.5, 20, 24], [0.4, 0.3, 0.45, 0.74, 0.76, 0.775, 0.70, 0.4])
    rush = np.where(weekend, 0.0, 1.0)
    first = np.exp(-(((hour - 8.1 - first_late) / 1.9) ** 2)) * rush
    second = np.exp(-(((hour - 17.6 - second_late) / 2.1) ** 2)) * rush
    both = 0.5 * (morning + evening)
    profile = np.where(weekend, rest, base) * both
    profile = profile + (morning - 0.73 * both) * first + (evening - 0.79 * both) * second
    crowd = world.at(world.crowd, times)[sensors.places.district]
    capacity = 1.0 - 0.15 * (1.0 - np.exp(-rain / 6.0))
    return np.asarray((profile + 0.3 * crowd) * np.exp(_demand_noise(sensors, world, seed, times)) / capacity)


def _demand_noise(sensors: Sensors, world: World, seed: int, times: F64) -> F64:
    """Logarithm of demand over its profile, (K, T)."""
    city = streams.normals(streams.keys(seed, "traffic day", np.floor(times / 24.0).astype(np.int64)), 1)[:, 0]
    noise = 0.02 * city + 0.06 * _road_days(sensors, seed, "traffic road day", times)
    for direction in (0, 1):
        rows = np.flatnonzero(sensors.direction == direction)
        there = Places(sensors.places.x[rows], sensors.places.y[rows], sensors.places.district[rows])
        noise[rows] += 0.10 * world.field(f"traffic {direction}", there, times, length_km=2.5, hours=2.5)
    return noise + 0.08 * _knots(seed, "traffic section noise", sensors.client, times, 0.25)


def _road_days(sensors: Sensors, seed: int, what: str, times: F64) -> F64:
    """A standard normal number of each sensor's carriageway and day, (K, T)."""
    days, which = np.unique(np.floor(times / 24.0).astype(np.int64), return_inverse=True)
    carriageway = 2 * sensors.road + sensors.direction
    return streams.normals(streams.keys(seed, what, carriageway[:, None], days), 1)[..., 0][:, which]


def _noise(sensors: Sensors, seed: int, steps: I64, times: F64, step_minutes: int) -> F64:
    """Noise of readings in mph, (K, T): white over five minutes, averaged over the step, and slow over an hour."""
    scale = np.exp(0.3 * streams.normals(streams.keys(seed, "traffic noise scale", sensors.client), 1))
    white = _rough_normals(streams.keys(seed, "traffic noise", sensors.client[:, None], steps))
    slow = _knots(seed, "traffic slow noise", sensors.client, times, 1.0)
    return np.asarray(scale * (2.1 * (5.0 / step_minutes) ** 0.5 * white + 1.3 * slow))


def _knots(seed: int, what: str, clients: I64, times: F64, hours: float) -> F64:
    """Noise of unit variance, (K, T): independent normals every `hours`, in between interpolated and rescaled."""
    position = times / hours
    left = np.floor(position).astype(np.int64)
    needed, where = np.unique(np.concatenate((left, left + 1)), return_inverse=True)
    knots = _rough_normals(streams.keys(seed, what, clients[:, None], needed))
    part = position - left
    scale = np.sqrt(part**2 + (1.0 - part) ** 2)
    before, after = where[: len(left)], where[len(left) :]
    return np.asarray(knots[:, before] * ((1.0 - part) / scale) + knots[:, after] * (part / scale))


def _rough_normals(key: streams.U64) -> F64:
    """Sums of the four 16-bit parts of each key, standardised: nearly normal, within 3.5, and made in no time."""
    low = np.uint64(0xFFFF)
    total = (key & low) + (key >> np.uint64(16) & low) + (key >> np.uint64(32) & low) + (key >> np.uint64(48))
    return np.asarray((total.astype(np.float64) - 131070.0) / np.sqrt((65536.0**2 - 1.0) / 3.0))
