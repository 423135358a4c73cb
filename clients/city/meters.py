"""Meters: what households of a generated city draw from the grid, hour by hour, in kW.

A home's load is the sum over the uses of its people and its machines (bottom-up models: Richardson et al. 2010,
"Domestic electricity use: a high-resolution energy demand model"; the home itself is `clients.city.homes`):

- standing load (fridge, standby), which stays during holidays;
- use by the people who are up and at home: a steady part, light in proportion to darkness 1 - I / 0.12 (I sunshine,
  so daytime storms switch lamps on) and to 0.3 storm (people stay in), and three kinds of appliances that start at
  random: cooking around meals, washing for two hours, and short uses; powers exponential;
- heating (heated homes only, a heat pump): u max(15.5 - T, 0) x setback, u kW of electricity a degree, T the
  temperature smoothed over the home's few hours, more in the morning and less at night: degree-hours above a base
  (CIBSE TM41, Degree-days, equation 1.1);
- a car (its homes only): on some days it is plugged in when its driver is back, and draws the charger's power until
  it has the day's energy;
- solar panels (their homes only): minus kWp x 0.8 I x I / (I + 0.35) x orientation. 0.8 is the usual performance ratio;
  the quotient is the shade of roofs and trees, deepest under a low sun. The meter then shows NET load, which is
  negative while the home feeds the grid;
- a power cut in the district: the meter shows 0, even with sun on the panels (inverters shut down with the grid).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clients.city.homes import Homes, at_home, make_homes
from clients.city.hourly import CALENDAR, blocks, calendar_channels, part_ends, uniform_hours, wobble
from clients.city.series_options import MetersOptions
from clients.city.source_types import SeriesSource
from clients.core import streams
from clients.core.arrays import F32, F64, I64, Array
from clients.core.channels import Channel
from clients.world.recursion import recursion
from clients.world.world import World

MOST_KW = 25.0  # of a single-phase connection: the most that the meter shows in either direction
LOAD = Channel(
    name="load", unit="kW", mean=0.45, deviation=0.6, low=-MOST_KW, high=MOST_KW,
    other_unit="W", other_scale=1000.0,
)  # fmt: skip
WEATHER = (
    Channel(
        name="temperature", unit="deg C", mean=12.0, deviation=8.0, low=-60.0, high=60.0,
        other_unit="deg F", other_scale=1.8, other_offset=32.0,
    ),
    Channel(name="sunshine", mean=0.2, deviation=0.25, low=0.0, high=1.0),
)  # fmt: skip


def meters_source(options: MetersOptions, world: World, seed: int) -> SeriesSource:
    """Return the meters' readings: load, temperature and sunshine, the calendar.

    Raises:
        UserError: the world is too short for the window and the horizon.
    """

    def read(clients: I64, start: int, stop: int) -> F32:
        assert 0 <= start < stop <= world.hours
        clients = np.asarray(clients, np.int64)
        out = np.empty((len(clients), stop - start, 1 + len(WEATHER) + len(CALENDAR)), np.float32)
        common = np.zeros(out.shape[1:], np.float32)
        common[:, 1], common[:, 2] = world.temperature[start:stop], world.sunshine[start:stop]
        common[:, 3:] = calendar_channels(world, start, stop)
        homes = _homes(options, world, seed, clients)
        for rows in blocks(len(clients), stop - start):
            out[rows] = common
            out[rows, :, 0] = _loads(homes.take(rows), world, seed, start, stop).net
        return out

    peak = options.task == "peak_hour"
    return SeriesSource(
        name="meters",
        num_clients=options.clients,
        channels=(LOAD, *WEATHER, *CALENDAR),
        step_hours=1.0,
        ends=part_ends(options, world, multiple=24),
        read=read,
        window=options.window,
        horizon=options.horizon,
        stride=options.stride,
        label=peak_hour if peak else None,
        outputs=24 if peak else options.horizon,
        places=world.sites,
        districts=world.names,
        client_name=lambda client: f"home {client}",
        facts={"task": options.task, "heated": options.electric_heating, "cars": options.ev, "solar": options.solar},
    )


def peak_hour(load: Array) -> I64:
    """Return the hour of the highest load of each day (..., 24), the first of several.

    Example:
        >>> int(peak_hour(np.array([0.2] * 18 + [1.5] + [0.4] * 5)))
        18
    """
    result: I64 = load.argmax(axis=-1).astype(np.int64)
    return result


@dataclass(frozen=True)
class Loads:
    """The parts of the load of K homes over T hours, kW, each float32 (K, T); the meter shows `net`."""

    people: F32
    heating: F32
    car: F32
    solar: F32
    net: F32


def loads(options: MetersOptions, world: World, seed: int, clients: I64, start: int, stop: int) -> Loads:
    """Return the loads of homes over hours start .. stop - 1, by cause."""
    return _loads(_homes(options, world, seed, clients), world, seed, start, stop)


def _homes(options: MetersOptions, world: World, seed: int, clients: I64) -> Homes:
    shares = {"electric_heating": options.electric_heating, "ev": options.ev, "solar": options.solar}
    return make_homes(world, seed, clients, **shares)


def _loads(homes: Homes, world: World, seed: int, start: int, stop: int) -> Loads:
    span = slice(start, stop)
    hour = world.hour_of_day(np.arange(start, stop))
    people = _people(homes, world, seed, start, stop)
    heating, car, solar = (np.zeros_like(people) for _ in range(3))
    rows = np.flatnonzero(homes.heat_rate)
    setback = 0.75 + 0.55 * np.exp(-(((hour - 7.0) / 1.8) ** 2)) + 0.3 * np.exp(-(((hour - 18.5) / 3.0) ** 2))
    setback = setback - 0.3 * (np.exp(-(((hour - 2.0) / 2.6) ** 2)) + np.exp(-(((hour - 26.0) / 2.6) ** 2)))
    heating[rows] = homes.heat_rate[rows, None] * (np.maximum(15.5 - _indoors(world)[span], 0.0) * setback)
    rows = np.flatnonzero(homes.charger)
    if len(rows):
        car[rows] = _charging(homes.take(rows), world, seed, start, stop)
    rows = np.flatnonzero(homes.panels)
    sun = world.sunshine[span]
    tilt = 1.0 + 0.3 * homes.aspect[rows, None] * np.sin(2.0 * np.pi * (hour - 12.0) / 24.0)
    solar[rows] = homes.panels[rows, None] * (0.8 * sun * sun / (sun + 0.35)) * tilt
    net = people + heating
    net += car
    net -= solar
    np.clip(net, np.float32(-MOST_KW), np.float32(MOST_KW), out=net)
    net *= (~world.power_cut[:, span]).astype(np.float32)[homes.places.district]
    return Loads(people=people, heating=heating, car=car, solar=solar, net=net)


@lru_cache(maxsize=4)
def _indoors(world: World) -> F64:
    """Temperature, smoothed over 8 hours as walls do."""
    stay = 1.0 - 1.0 / 8.0
    return recursion(world.temperature, stay, gain=1.0 - stay, before=world.temperature[0])


def _people(homes: Homes, world: World, seed: int, start: int, stop: int) -> F32:
    """Standing load and use by people, (K, T)."""
    begin = max(start - 1, 0)  # a wash that began in the hour before still runs
    span, clients = slice(begin, stop), homes.clients
    present = at_home(homes, world, seed, begin, stop)
    dark = np.clip(1.0 - world.sunshine[span] / 0.12, 0.0, 1.0) + 0.3 * world.storm[span]
    cool = 1.0 + 0.02 * np.maximum(15.5 - _indoors(world)[span], 0.0)  # pumps of boilers, dryers, indoor days
    day = np.arange(24.0)
    main = np.exp(-(((day - homes.dinner[:, None]) / 1.3) ** 2)) * (1.0 - 0.6 * homes.noon[:, None])
    lunch = np.exp(-(((day - 12.5) / 1.2) ** 2)) * (0.3 + 0.7 * homes.noon[:, None])
    meals = 0.4 * np.exp(-(((day - 7.5) / 1.0) ** 2)) + lunch + main
    cooking = (0.5 * meals).astype(np.float32)[:, np.arange(begin, stop) % 24]

    used = wobble(seed, "meters mood", clients, begin, stop, memory=3)
    used *= np.float32(0.45)
    used += np.float32(1.0)
    np.maximum(used, np.float32(0.1), out=used)
    used *= present
    used *= ((0.16 + 0.15 * dark) * cool).astype(np.float32)
    cooking *= present
    used += _starts(seed, "meters cooking", clients, begin, stop, cooking, 0.7)
    used += _starts(seed, "meters short", clients, begin, stop, np.float32(0.25) * present, 0.35)
    washing = _starts(seed, "meters washing", clients, begin, stop, np.float32(0.045) * present, 0.8)
    used += washing
    washing *= np.float32(0.5)
    used[:, 1:] += washing[:, :-1]
    used *= homes.size.astype(np.float32)[:, None]
    used += homes.standing.astype(np.float32)[:, None]
    return used[:, start - begin :]


def _starts(seed: int, purpose: str, clients: I64, start: int, stop: int, chance: F32, mean_kw: float) -> F32:
    """Power of appliances that run in an hour with probability `chance`, of mean about `mean_kw`, (K, T).

    One uniform number decides both. An appliance runs if it is below `chance`; it is then uniform on [0, `chance`] and
    gives the power: 0.4 of the mean and an exponential rest, at most four means. `chance` is overwritten.
    """
    draw = uniform_hours(seed, purpose, clients, start, stop)
    runs = draw < chance
    np.maximum(chance, np.float32(1e-12), out=chance)
    draw /= chance
    power = np.log(draw, out=draw)
    power *= np.float32(-0.6 * mean_kw)
    power += np.float32(0.4 * mean_kw)
    np.minimum(power, np.float32(4.0 * mean_kw), out=power)
    power *= runs
    return power


def _charging(homes: Homes, world: World, seed: int, start: int, stop: int) -> F64:
    """Power into the cars of homes that have one, (K, T): yesterday's session may continue today."""
    days = np.arange(start // 24 - 1, (stop - 1) // 24 + 1)
    begin, energy = sessions(homes, world, seed, days)
    hours = np.arange(start, stop)
    day = hours // 24 - days[0]
    total = np.zeros((len(homes.clients), stop - start))
    for back in (0, 1):
        first = begin[:, day - back] + 24.0 * (days[day - back])
        last = first + energy[:, day - back] / homes.charger[:, None]
        total += np.clip(np.minimum(last, hours + 1.0) - np.maximum(first, hours), 0.0, 1.0)
    return np.minimum(total, 1.0) * homes.charger[:, None]


def sessions(homes: Homes, world: World, seed: int, days: I64) -> tuple[F64, F64]:
    """Return the hour of the day at which each home's car is plugged in and the kWh it takes, each (K, D); 0 kWh: none.

    Args:
        homes: K of them.
        world: its weekends are theirs.
        seed: of the federation.
        days: of the world, from -1 on; nothing is charged on day -1.
    """
    key = streams.keys(seed, "meters car", homes.clients[:, None], days + 1)
    draws, normal = streams.uniforms(key, 2), streams.normals(streams.keys(seed, "meters trip", key), 2)
    weekend = world.is_weekend(24.0 * days)
    back = (
        np.where(weekend, 16.0, np.maximum(homes.back[:, None], 16.0) + 0.7)
        + np.where(weekend, 2.5, 1.0) * normal[..., 0]
    )
    energy = np.clip(homes.trip[:, None] * np.exp(0.5 * normal[..., 1]), 1.0, 60.0)
    used = (draws[..., 0] < np.where(weekend, 0.45, 0.65)) & (days >= 0)
    return np.clip(back, 0.0, 23.9), np.where(used, energy, 0.0)
