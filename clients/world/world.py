"""A generated world: one map, one clock and one weather, shared by every generated source.

One cause has many effects: a storm of `World.storm` raises wind and rain, hides the sun, cools the air, makes power
cuts likelier, and the sources slow their traffic and light their lamps by it. The equations are in
`clients.world.weather`, `places`, `fields` and `events`, each with its source. Everything follows from
(options, seed). A site is made when it is first read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from clients.core.arrays import F32, F64, I64, Bool
from clients.core.population_parts import Places
from clients.world import calendar
from clients.world.events import Cut, Event, crowd_level, cut_hours, make_cuts, make_events
from clients.world.fields import gridded_field, random_field
from clients.world.options import WorldOptions
from clients.world.places import district_map, district_names, nearest, site_places
from clients.world.weather import Storm, make_weather


@dataclass(frozen=True, eq=False, kw_only=True)
class World:
    """One world. Arrays are hourly and read-only; hour 0 is midnight of `options.start`.

    Attributes:
        options: the world's options.
        seed: root seed; the world follows from it and the options.
        temperature: degrees Celsius, float64 (hours,); so are the following.
        rain: mm in an hour.
        wind: m/s.
        wind_direction: where it blows from, radians clockwise from north, 0..2 pi.
        sunshine: share of what a clear sky gives with the sun overhead, 0..1.
        storm: 0 none .. 1 the worst.
        inversion: how strongly cold air near the ground is trapped, 0..1.
        crowd: intensity of public events, 0..1 and above where they add, (D, hours).
        power_cut: bool (D, hours).
        centres: of districts, km east and north of the middle, (D, 2).
        uses: shares of residential, office, industry and green, (D, 4).
        names: of districts.
        storms: ground truth for the record; so are the following.
        events: public events.
        cuts: power cuts.
    """

    options: WorldOptions
    seed: int
    temperature: F64
    rain: F64
    wind: F64
    wind_direction: F64
    sunshine: F64
    storm: F64
    inversion: F64
    crowd: F64
    power_cut: Bool
    centres: F64
    uses: F64
    names: tuple[str, ...]
    storms: tuple[Storm, ...]
    events: tuple[Event, ...]
    cuts: tuple[Cut, ...]

    @property
    def hours(self) -> int:
        """How many hours the world has."""
        return 24 * self.options.days

    def hour_of_day(self, hours: npt.ArrayLike) -> F64:
        """Return the hour of the day, 0..24, of hours of the world's clock."""
        return np.asarray(np.mod(np.asarray(hours, np.float64), 24.0))

    def weekday(self, hours: npt.ArrayLike) -> I64:
        """Return the day of the week, Monday 0."""
        return calendar.weekday(self.options.start, hours)

    def is_weekend(self, hours: npt.ArrayLike) -> Bool:
        """Return whether it is Saturday or Sunday."""
        return np.asarray(self.weekday(hours) >= 5)

    def season(self, hours: npt.ArrayLike) -> F64:
        """Return the angle of the year in radians, 0 at the first of January of the year of the start."""
        return calendar.season(self.options.start, hours)

    def at(self, series: F64 | Bool, times: F64) -> F64:
        """Interpolate an hourly series linearly.

        Args:
            series: (..., hours); a bool counts as 0 or 1.
            times: hours, (T,), clamped to the first and the last.

        Returns:
            float64 (..., T).
        """
        last = series.shape[-1] - 1
        position = np.clip(times, 0.0, float(last))
        left = np.minimum(position.astype(np.int64), max(last - 1, 0))
        part = position - left
        right = np.minimum(left + 1, last)
        return np.asarray(series[..., left] * (1.0 - part) + series[..., right] * part)

    def sites(self, clients: I64) -> Places:
        """Return where sites are; site k depends on (seed, k) alone."""
        return site_places(np.asarray(clients), self.centres, self.options.radius_km, self.seed)

    def district_of(self, x: F64, y: F64) -> I64:
        """Return the district (of the nearest centre) of points given in km east and north, int64."""
        return nearest(np.asarray(x), np.asarray(y), self.centres)

    def field(self, name: str, sites: Places, times: F64, *, length_km: float, hours: float) -> F32:
        """Return a smooth random field of zero mean and unit variance at sites and times.

        Args:
            name: fields of different names are independent.
            sites: K of them; the values of a site depend on no other site.
            times: hours, (T,).
            length_km: distance at which the correlation is exp(-1/2).
            hours: time after which it is exp(-1).

        Returns:
            float32 (K, T).
        """
        assert length_km > 0.0
        assert hours > 0.0
        last = float(self.hours)
        return random_field(self.seed, name, sites.x, sites.y, times, length_km=length_km, hours=hours, last_hour=last)

    def smooth_field(self, name: str, sites: Places, times: F64, *, length_km: float, hours: float) -> F32:
        """Return `field`, interpolated on a grid, in a tenth of the time; sites must be within the city's radius."""
        far = {"hours": hours, "last_hour": float(self.hours), "radius_km": self.options.radius_km}
        return gridded_field(self.seed, name, sites.x, sites.y, times, length_km=length_km, **far)


@lru_cache(maxsize=8)
def make_world(options: WorldOptions, seed: int) -> World:
    """Make the world of options and a seed. The same arguments return the same object.

    Example:
        >>> world = make_world(WorldOptions(days=7), seed=0)
        >>> world.hours, world.names[:2], world.temperature.shape
        (168, ('Centre', 'Harbour'), (168,))
        >>> world.is_weekend([100.0, 130.0]).tolist()
        [False, True]
    """
    count, hours, start = options.districts, 24 * options.days, options.start
    weather = make_weather(
        start,
        hours,
        seed,
        mean_temperature=options.mean_temperature,
        seasonal_swing=options.seasonal_swing,
        storms_per_month=options.storms_per_month,
        rain_share=options.rain_share,
    )
    centres, uses = district_map(count, options.radius_km, seed)
    events = make_events(start, hours, seed, options.events_per_week, uses)
    cuts = make_cuts(hours, seed, options.power_cuts_per_month, weather.storm, count)
    world = World(
        options=options,
        seed=seed,
        crowd=crowd_level(events, count, hours),
        power_cut=cut_hours(cuts, count, hours),
        centres=centres,
        uses=uses,
        names=district_names(count),
        events=events,
        cuts=cuts,
        **{field.name: getattr(weather, field.name) for field in fields(weather)},
    )
    for field in fields(world):
        value = getattr(world, field.name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    assert all(math.isfinite(float(series.sum())) for series in (world.temperature, world.wind, world.rain))
    return world
