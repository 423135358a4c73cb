"""Air: PM2.5, NO2 and O3 at stations of a generated city; one of them is forecast.

Concentrations come from boxes (Seinfeld and Pandis 2016, "Atmospheric Chemistry and Physics", section 25.2: a mass
balance of emission, ventilation and removal in well-mixed air). Regional boxes hold the air that reaches the whole city
and are solved exactly over each hour; a station adds the emission around it, in balance at once. With wind u (m/s),
rain r (mm/h), temperature T, sunshine I and inversion i of `World`:

- mixing height (relative): h = (0.4 + 0.67 C) (1 + 0.15 u) (1 - 0.4 i), C sunshine smoothed over 3 h: a convective
  layer by day, a shallow one at night, shallower under an inversion (Stull 1988, chapters 1 and 12).
- dilution of fresh emission: d = 1 / ((0.46 + 0.56 u) h^0.95), near 1 / (u h).
- emissions: traffic by hour and weekday (two rush hours, lorries late in the evening), `World.crowd` adding to it;
  heating in proportion to degrees below 15; industry steady; each by the district's uses and the station's kind
  (kerb, urban, rural).
- regional particles: dR/dt = haze x emission - (0.03 + 0.022 u + 0.4 r) R. Haze, which comes from
  elsewhere, is a slow random field of its own, since the world has no map beyond the city; rain scavenges about 0.4 an
  hour for each mm/h (Seinfeld and Pandis, section 20.2). Regional NOx likewise, with less haze and faster removal.
- NO, NO2 and O3 (in ppb): oxidant Ox = NO2 + O3 = X + regional NO2 + 16% of NOx (Clapp and Jenkin 2001: a regional
  and a local, NOx-dependent part), dX/dt = production(I, T) + exchange with 35 ppb around - deposition 0.048 X / h;
  then the photostationary state (Leighton 1961; Seinfeld and Pandis, equation 6.7)
  (NOx - NO2)(Ox - NO2) = (j / k) NO2 with j / k = 0.7 + 6 I ppb: daylight splits NO2, at night NO takes the O3.
- weather that the world lacks multiplies all of these: a field 60 km long with 5.6 h of memory, one of 14 km, and gusts
  at each station. Coefficients without a source were fitted inside their plausible ranges to the figures of
  tests/support/city_figures/air.json.

Values are in ug/m3 at 25 deg C, always positive. The readings of a station depend on (seed, world, station) alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.city.hourly import CALENDAR, blocks, calendar_channels, part_ends, uniform_hours, wobble
from clients.city.series_options import AirOptions
from clients.city.source_types import SeriesSource
from clients.core import streams
from clients.core.arrays import F32, F64, I64
from clients.core.channels import Channel
from clients.core.population_parts import Places
from clients.world.recursion import recursion
from clients.world.world import World

NO2_UG_PER_PPB, O3_UG_PER_PPB = 1.88, 1.96
MOST_UG = 2000.0  # the most that the instruments show
POLLUTANTS = {
    "pm25": Channel(name="pm25", unit="ug/m3", mean=80.0, deviation=80.0, low=0.0, high=MOST_UG),
    "no2": Channel(
        name="no2", unit="ug/m3", mean=50.0, deviation=35.0, low=0.0, high=MOST_UG,
        other_unit="ppb", other_scale=1.0 / NO2_UG_PER_PPB,
    ),
    "o3": Channel(
        name="o3", unit="ug/m3", mean=57.0, deviation=56.0, low=0.0, high=MOST_UG,
        other_unit="ppb", other_scale=1.0 / O3_UG_PER_PPB,
    ),
}  # fmt: skip
WEATHER = (
    Channel(
        name="temperature", unit="deg C", mean=12.0, deviation=10.0, low=-60.0, high=60.0,
        other_unit="deg F", other_scale=1.8, other_offset=32.0,
    ),
    Channel(name="wind", unit="m/s", mean=3.5, deviation=2.0, low=0.0, high=60.0, other_unit="km/h", other_scale=3.6),
    Channel(name="rain", unit="mm/h", mean=0.1, deviation=0.8, low=0.0, high=200.0),
)  # fmt: skip
Floats = npt.NDArray[np.floating[Any]]
KINDS = ("kerb", "urban", "rural")


def air_source(options: AirOptions, world: World, seed: int) -> SeriesSource:
    """Return the stations' readings: the forecast pollutant, the two others, weather at the station, the calendar.

    Raises:
        UserError: the world is too short for the window and the horizon.
    """
    first = options.pollutant
    order = (first, *(name for name in POLLUTANTS if name != first))

    def read(clients: I64, start: int, stop: int) -> F32:
        assert 0 <= start < stop <= world.hours
        clients = np.asarray(clients, np.int64)
        stations = _stations(world, seed, clients)
        out = np.empty((len(clients), stop - start, len(order) + len(WEATHER) + len(CALENDAR)), np.float32)
        common = np.zeros(out.shape[1:], np.float32)
        common[:, 5], common[:, 6:] = world.rain[start:stop], calendar_channels(world, start, stop)
        temperature, wind = (series[start:stop].astype(np.float32) for series in (world.temperature, world.wind))
        for rows in blocks(len(clients), stop - start):
            station, part = stations.take(rows), out[rows]
            values = _concentrations(world, seed, clients[rows], station, start, stop)
            part[:] = common
            for c, name in enumerate(order):
                part[..., c] = values[name]
            part[..., 3] = temperature + station.warmth
            part[..., 4] = wind * station.shelter
        return out

    return SeriesSource(
        name="air",
        num_clients=options.clients,
        channels=(*(POLLUTANTS[name] for name in order), *WEATHER, *CALENDAR),
        step_hours=1.0,
        ends=part_ends(options, world),
        read=read,
        window=options.window,
        horizon=options.horizon,
        stride=options.stride,
        outputs=options.horizon,
        places=world.sites,
        districts=world.names,
        client_name=lambda client: f"station {client}",
        facts={"pollutant": options.pollutant},
    )


@dataclass(frozen=True)
class _Stations:
    """Properties of each of K stations, float32 (K, 1)."""

    places: Places
    traffic: F32  # emission around it, relative to the city's mean
    homes: F32
    industry: F32
    particles: F32  # the region's at this place, relative
    nitrogen: F32
    shelter: F32  # of its wind
    warmth: F32  # deg C above the world's temperature

    def take(self, rows: slice) -> _Stations:
        """Return the properties of some stations."""
        places = Places(self.places.x[rows], self.places.y[rows], self.places.district[rows])
        rest = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "places"}
        return _Stations(places=places, **rest)


def _stations(world: World, seed: int, clients: I64) -> _Stations:
    places = world.sites(clients)
    draws = streams.uniforms(streams.keys(seed, "air station", clients), 4)
    uses = world.uses[places.district]
    rural = 0.08 + 0.5 * uses[:, 3]  # share of rural stations: more where it is green
    # Networks are planned: golden steps, unlike independent draws, give every small group some of each kind.
    turn = float(streams.uniforms(streams.keys(seed, "air network"), 1)[0])
    plan = np.mod(turn + clients * 0.6180339887498949, 1.0)
    kind = np.where(plan < rural, 2, np.where(plan > 0.75, 0, 1))
    mean = world.uses.mean(axis=0)
    spread = np.exp(0.24 * (draws[:, :2] - 0.5))
    values = {
        "traffic": np.array([2.6, 1.0, 0.45])[kind] * (0.85 + 0.3 * uses[:, 1]) * spread[:, 0],
        "homes": np.array([1.0, 1.0, 0.7])[kind] * (0.8 + 0.2 * uses[:, 0] / mean[0]) * spread[:, 1],
        "industry": 0.7 + 0.3 * uses[:, 2] / mean[2],
        "particles": np.array([1.05, 1.0, 0.9])[kind] * np.exp(0.12 * (draws[:, 3] - 0.5)),
        "nitrogen": np.array([1.15, 1.0, 0.7])[kind],
        "shelter": np.array([0.8, 0.9, 1.05])[kind] * (0.9 + 0.2 * draws[:, 2]),
        "warmth": np.array([0.6, 0.4, -0.6])[kind],
    }
    return _Stations(places=places, **{n: v.astype(np.float32)[:, None] for n, v in values.items()})


@dataclass(frozen=True)
class _City:
    """Quantities common to all stations, (hours,)."""

    traffic: Floats
    heating: Floats
    dilution: Floats
    particles: Floats  # regional, ug/m3
    nitrogen: Floats  # regional NOx, ppb
    oxidant: Floats  # regional Ox, ppb
    splitting: Floats  # j / k, ppb
    stirring: Floats  # of unit variance: slows or speeds all mixing in the city


@lru_cache(maxsize=4)
def _city(world: World) -> _City:
    hours = np.arange(world.hours, dtype=np.float64)
    convection = recursion(world.sunshine, 2.0 / 3.0, gain=1.0 / 3.0)
    wind, sun, rain = world.wind, world.sunshine, world.rain
    height = (0.4 + 0.67 * convection) * (1.0 + 0.15 * wind) * (1.0 - 0.4 * world.inversion)
    dilution = 1.0 / ((0.46 + 0.56 * wind) * height**0.95)
    traffic = _traffic(world.hour_of_day(hours), world.is_weekend(hours).astype(np.float64))
    mild = recursion(world.temperature, 5.0 / 6.0, gain=1.0 / 6.0, before=world.temperature[0])
    heating = np.maximum(15.0 - mild, 0.0) / 15.0
    haze = np.exp(0.95 * _weather(world, "air haze", 21.0) - 0.45)
    emission = 0.43 * traffic + 0.31 * heating + 0.33
    particles = _box(9.8 * haze * emission, 0.03 + 0.022 * wind + 0.4 * rain, 60.0) * height**-0.05
    nitrogen = _box(1.83 * (traffic + 0.83 * heating) * haze**0.54, 0.057 + 0.0325 * wind + 0.02 * rain, 25.0)
    warm = np.exp(0.047 * (np.clip(world.temperature, -10.0, 38.0) - 15.0))
    production = 13.8 * sun * warm * np.exp(0.41 * _weather(world, "air ozone", 30.0))
    exchange = 0.118 + 0.02 * wind
    oxidant = _box(production + 35.0 * exchange, exchange + 0.048 / height, 35.0)
    stirring = _weather(world, "air stirring", 5.6)
    return _City(traffic, heating, dilution, particles, nitrogen, oxidant, 0.7 + 6.0 * sun, stirring)


def _weather(world: World, name: str, hours: float) -> F64:
    """Return what the whole city has in common of a random field with `hours` of memory, (world.hours,)."""
    middle = Places(np.zeros(1), np.zeros(1), np.zeros(1, np.int64))
    times = np.arange(world.hours, dtype=np.float64)
    return np.asarray(world.field(name, middle, times, length_km=60.0, hours=hours)[0])


def _traffic(hour: F64, weekend: F64) -> F64:
    """Emission of traffic over the day, about 1 by day: rush hours at 8 and 18:30, weaker at weekends; late lorries."""
    rush = 0.5 * np.exp(-(((hour - 8.0) / 1.6) ** 2)) + np.exp(-(((hour - 18.5) / 2.2) ** 2))
    day = 0.2 + 0.8 / (1.0 + np.exp(-(hour - 8.0))) / (1.0 + np.exp(hour - 22.0))
    lorries = np.exp(-(((np.mod(hour - 11.0, 24.0) - 12.0) / 2.5) ** 2))
    return np.asarray(day * (1.0 - 0.02 * weekend) + 0.2 * rush * (1.0 - 0.25 * weekend) + 0.8 * lorries)


def _box(source: F64, rate: F64, first: float) -> F64:
    """Solve dC/dt = source - rate C exactly over each hour, both constant within it; C (hours,) at the hours' ends."""
    keep = np.exp(-rate)
    gain = source / rate * (1.0 - keep)
    result = np.empty_like(source)
    level = first
    for hour, (kept, gained) in enumerate(zip(keep.tolist(), gain.tolist(), strict=True)):
        level = level * kept + gained
        result[hour] = level
    return result


def concentrations(world: World, seed: int, clients: I64, start: int, stop: int) -> dict[str, F32]:
    """Return pm25, no2 and o3 at stations over hours start .. stop - 1, ug/m3, each float32 (K, T)."""
    return _concentrations(world, seed, clients, _stations(world, seed, clients), start, stop)


def _concentrations(world: World, seed: int, clients: I64, station: _Stations, start: int, stop: int) -> dict[str, F32]:
    span = slice(start, stop)
    city = _City(**{field.name: getattr(_city(world), field.name)[span].astype(np.float32) for field in fields(_City)})
    times = np.arange(start, stop, dtype=np.float64)
    near = world.smooth_field("air near", station.places, times, length_km=14.0, hours=28.0)
    ozone = world.smooth_field("air ozone near", station.places, times, length_km=14.0, hours=28.0)
    gust = wobble(seed, "air gust", clients, start, stop, memory=5)
    crowd = (1.0 + 0.3 * world.crowd[:, span]).astype(np.float32)
    road = crowd[station.places.district]
    road *= station.traffic * city.traffic
    homes = station.homes * city.heating
    fresh = np.exp(0.47 * near + 0.38 * gust)
    fresh *= city.dilution * np.exp(0.26 * city.stirring)

    carried = np.exp(0.27 * near)
    carried *= station.particles * (city.particles * np.exp(0.3 * city.stirring))
    particles = fresh * (10.2 * road + 9.6 * homes + 1.2 * station.industry)
    particles += carried
    particles *= 0.97 + 0.06 * uniform_hours(seed, "air pm25", clients, start, stop)

    aged = np.exp(0.12 * near)
    aged *= station.nitrogen * (city.nitrogen * np.exp(0.26 * city.stirring))
    nox = fresh * (11.3 * road + 19.2 * homes + 4.2 * station.industry)
    nox += aged
    oxidant = np.exp(0.155 * gust - 0.2 * ozone)
    oxidant *= city.oxidant * np.exp(-0.1 * city.stirring)
    oxidant += aged
    oxidant += 0.16 * nox
    total = nox + oxidant
    total += city.splitting
    # The smaller root as a quotient keeps its digits where one of the two is scarce.
    no2 = 2.0 * nox * oxidant
    root = np.sqrt(np.maximum(total * total - 2.0 * no2, 0.0))
    no2 /= root + total
    values = {"pm25": particles, "no2": NO2_UG_PER_PPB * no2, "o3": O3_UG_PER_PPB * (oxidant - no2)}
    return {name: np.clip(value, np.float32(0.1), np.float32(MOST_UG)) for name, value in values.items()}
