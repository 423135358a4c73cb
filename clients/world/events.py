"""Public events in the districts of a generated world, and power cuts, which storms make likelier.

As for storms, an event starts in an hour if the hour's own uniform number is below its probability. With a larger rate
the same events stay and new ones join; with rate 0 there are none. No other number changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, Bool
from clients.world import calendar
from clients.world.weather import MONTH_HOURS, hourly_uniforms

STORM_CUTS = 60.0
"""A storm of strength 1 multiplies the rate of power cuts by 1 + STORM_CUTS. In fair weather cuts are rare; most
customer interruptions of a year fall on its few storm days (IEEE 1366 calls them major event days)."""


@dataclass(frozen=True)
class Event:
    """A public event: a match, a concert, a fair.

    Attributes:
        start: first hour.
        hours: how many hours it lasts; people come in the hour before and leave in the hour after.
        district: where.
        strength: 0.4 (a fair) to 1.2 (a full stadium).
    """

    start: int
    hours: int
    district: int
    strength: float


@dataclass(frozen=True)
class Cut:
    """A power cut: hours start .. start + hours - 1 of a district."""

    start: int
    hours: int
    district: int


def make_events(start: str, hours: int, seed: int, per_week: float, uses: F64) -> tuple[Event, ...]:
    """Return public events: from 18 h on weekdays, from 12 h at weekends; most are where offices or parks are."""
    hour = np.arange(hours)
    clock, weekend = hour % 24, calendar.weekday(start, hour) >= 5
    # A week has 5 x 3 evening hours of weight 1 and 2 x 9 weekend hours of weight 2: a total weight of 51.
    share = np.where(weekend, 2.0 * ((clock >= 12) & (clock <= 20)), (clock >= 18) & (clock <= 20)) / 51.0
    starts = np.flatnonzero(hourly_uniforms(seed, "event", hours) < per_week * share)
    draws = streams.uniforms(streams.keys(seed, "world event shape", starts), 3)
    draw_to = np.cumsum(uses[:, 1] + uses[:, 3])
    places = np.searchsorted(draw_to / draw_to[-1], draws[:, 0])
    return tuple(
        Event(int(first), int(2 + 2 * u[1]), int(place), float(0.4 + 0.8 * u[2]))
        for first, place, u in zip(starts, places, draws, strict=True)
    )


def crowd_level(events: tuple[Event, ...], districts: int, hours: int) -> F64:
    """Return the intensity of public events, (D, hours): their strength, and half of it an hour before and after."""
    level = np.zeros((districts, hours))
    for event in events:
        around = slice(max(event.start - 1, 0), event.start + event.hours + 1)
        level[event.district, around] += 0.5 * event.strength
        level[event.district, event.start : event.start + event.hours] += 0.5 * event.strength
    return level


def make_cuts(hours: int, seed: int, per_month: float, storm: F64, districts: int) -> tuple[Cut, ...]:
    """Return power cuts in order of time: `per_month` in the city in fair weather, more in a storm, about 2 h each."""
    rate = per_month / MONTH_HOURS / districts * (1.0 + STORM_CUTS * storm)
    draws = np.stack([hourly_uniforms(seed, "cut", hours, district) for district in range(districts)], axis=1)
    starts, places = np.nonzero(draws < rate[:, None])
    waits = -np.log(streams.uniforms(streams.keys(seed, "world cut shape", places, starts), 1)[:, 0])
    lasts = 1 + (1.2 * waits * (1.0 + 2.0 * storm[starts])).astype(np.int64)
    return tuple(Cut(int(s), int(n), int(d)) for s, n, d in zip(starts, lasts, places, strict=True))


def cut_hours(cuts: tuple[Cut, ...], districts: int, hours: int) -> Bool:
    """Return where the power is off, bool (D, hours)."""
    off = np.zeros((districts, hours), np.bool_)
    for cut in cuts:
        off[cut.district, cut.start : cut.start + cut.hours] = True
    return off
