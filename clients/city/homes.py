"""The homes of a generated city, and when their people are in. `clients.city.meters` makes load from them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from clients.city.hourly import trapezium, uniform_hours
from clients.core import streams
from clients.core.arrays import F32, F64, I64
from clients.core.population_parts import Places
from clients.world.world import World

ARCHETYPES = ("worker", "family", "home by day", "night shift")
# Shares in a place without offices or industry; hours of getting up, leaving, coming back and going to bed.
_SHARES = np.array([0.33, 0.34, 0.3, 0.03])
_HOURS = np.array([[7.2, 8.3, 17.8, 23.2], [6.8, 8.6, 16.2, 22.6], [7.9, 14.0, 14.8, 22.8], [12.5, 20.5, 31.0, 32.5]])
_OUT = np.array([0.92, 0.72, 0.25, 0.95])  # share of the people who are out between leaving and coming back


@dataclass(frozen=True)
class Homes:
    """K homes; float64 (K,) unless noted.

    Attributes:
        clients: their numbers, int64.
        places: where they are.
        archetype: index into `ARCHETYPES`, int64.
        size: use by people, relative to a mean home.
        standing: kW that is always drawn.
        up: hour of getting up on workdays; so are the following.
        leave: of leaving.
        back: of coming back.
        bed: of going to bed; above 24 after midnight.
        dinner: hour of the evening meal.
        noon: 1 where the main meal is at noon, else 0.
        heat_rate: kW of electricity a degree below 15.5; 0 where the heating is not electric.
        charger: kW of the car's charger; 0 without a car.
        trip: kWh of a usual charge.
        panels: kW of solar panels at full sun; 0 without.
        aspect: direction they face, -1 east .. 1 west.
    """

    clients: I64
    places: Places
    archetype: I64
    size: F64
    standing: F64
    up: F64
    leave: F64
    back: F64
    bed: F64
    dinner: F64
    noon: F64
    heat_rate: F64
    charger: F64
    trip: F64
    panels: F64
    aspect: F64

    def take(self, rows: I64 | slice) -> Homes:
        """Return some of the homes."""
        places = Places(self.places.x[rows], self.places.y[rows], self.places.district[rows])
        rest = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "places"}
        return Homes(places=places, **rest)


def make_homes(world: World, seed: int, clients: I64, *, electric_heating: float, ev: float, solar: float) -> Homes:
    """Return homes; home k depends on (seed, world, k) alone. A larger share of cars keeps those of a smaller one."""
    places = world.sites(clients)
    draws = streams.uniforms(streams.keys(seed, "meters home", clients), 10)
    normal = streams.normals(streams.keys(seed, "meters habits", clients), 6)
    uses = world.uses[places.district]
    # Workers live near offices, families where it is residential or green, night shifts near industry.
    liking = np.stack(
        (0.6 + 1.6 * uses[:, 1], 0.6 + uses[:, 0] + uses[:, 3], np.ones(len(clients)), 0.4 + 4.0 * uses[:, 2])
    )
    weight = _SHARES[:, None] * liking
    bound = np.cumsum(weight, axis=0) / weight.sum(axis=0)
    archetype = (draws[:, 0] > bound[:-1]).sum(axis=0)
    hours = _HOURS[archetype] + np.array([0.7, 0.7, 1.0, 0.7]) * normal[:, :4]
    size = np.array([0.75, 1.15, 0.85, 0.8])[archetype] * np.minimum(np.exp(0.5 * normal[:, 4]), 3.0)
    has_heat, has_car, has_sun = draws[:, 1] < electric_heating, draws[:, 2] < ev, draws[:, 3] < solar
    return Homes(
        clients=clients,
        places=places,
        archetype=archetype.astype(np.int64),
        size=size,
        standing=0.15 * np.exp(0.35 * normal[:, 5]) * np.sqrt(size),
        up=hours[:, 0],
        leave=np.maximum(hours[:, 1], hours[:, 0] + 0.5),
        back=hours[:, 2],
        bed=np.maximum(hours[:, 3], hours[:, 2] + 1.0),
        dinner=np.maximum(18.4 + 1.2 * normal[:, 2], 16.5),
        noon=(draws[:, 9] < np.array([0.08, 0.15, 0.5, 0.2])[archetype]).astype(np.float64),
        heat_rate=np.where(has_heat, 0.05 * np.sqrt(size) * (0.7 + 0.6 * draws[:, 4]), 0.0),
        charger=np.where(has_car, np.where(draws[:, 5] < 0.45, 3.6, 7.2), 0.0),
        trip=7.5 * np.exp(0.4 * (2.0 * draws[:, 6] - 1.0)),
        panels=np.where(has_sun, 2.0 + 3.0 * draws[:, 7], 0.0),
        aspect=2.0 * draws[:, 8] - 1.0,
    )


def at_home(homes: Homes, world: World, seed: int, start: int, stop: int) -> F32:
    """Return the share of each home's people who are up and in, 0..1, over hours start .. stop - 1, float32 (K, T).

    Habits move by about half an hour from day to day, nights at weekends are later and fewer people leave, and in
    about one week of thirty the home is empty.
    """
    hours = np.arange(start, stop)
    middle = (world.hour_of_day(hours) + 0.5).astype(np.float32)
    days = np.arange(start // 24, (stop - 1) // 24 + 1)
    weekend = world.is_weekend(24.0 * days).astype(np.float32)
    shift = uniform_hours(seed, "meters day", homes.clients, int(days[0]), int(days[-1]) + 1) - 0.5
    late = uniform_hours(seed, "meters night", homes.clients, int(days[0]), int(days[-1]) + 1) - 0.5
    wakes, sleeps, leaves, returns = (
        value.astype(np.float32)[:, None] for value in (homes.up, homes.bed, homes.leave, homes.back)
    )
    out = _OUT.astype(np.float32)[homes.archetype][:, None] * (1.0 - 0.5 * weekend) * (0.6 + 0.4 * (late < 0.42))
    weeks = np.arange(start // 168, (stop - 1) // 168 + 1)
    holiday = uniform_hours(seed, "meters holiday", homes.clients, int(weeks[0]), int(weeks[-1]) + 1) < 1.0 / 30.0
    day = hours // 24 - days[0]
    up = (wakes + 1.2 * shift + 1.3 * weekend)[:, day]
    bed = (sleeps + 1.8 * late + 0.6 * weekend)[:, day]
    leave = (leaves + 1.2 * shift + 1.5 * weekend)[:, day]
    back = (returns + 2.0 * late - 1.0 * weekend)[:, day]
    gone = -out.astype(np.float32)[:, day]
    # An evening that ends after midnight belongs to the day it began on, so yesterday's habits count until morning;
    # today's are taken for both, which differ by minutes.
    today, before = (_in(middle + np.float32(turn), up, bed, leave, back, gone) for turn in (0.0, 24.0))
    present = np.maximum(today, before, out=today)
    present *= (~holiday).astype(np.float32)[:, hours // 168 - weeks[0]]
    return present


def _in(hour: F32, up: F32, bed: F32, leave: F32, back: F32, gone: F32) -> F32:
    """Return the share who are up and in; `gone` is minus the share who are out between leaving and coming back."""
    inside = trapezium(hour, leave, back)
    inside *= gone
    inside += np.float32(1.0)
    inside *= trapezium(hour, up, bed)
    return inside
