"""Campaigns that infect a city's devices in waves: district by district, and within one by logistic growth.

A campaign starts in a district and reaches district e at the hour start + |c_e - c_d| / SPEED with probability
exp(-|c_e - c_d| / REACH_KM): neighbours use the same relays and buy the same devices. Within a district the
infected share of the devices it can infect grows as a logistic curve from `SEED_SHARE` on, at first doubling every
`doubling_hours` (76 minutes for Mirai: Antonakakis et al. 2017):

    I(t) = 1 / (1 + (1 - i0) / i0 * exp(-r t)),   r = ln 2 / doubling_hours

so a device that draws the uniform u is infected at t = (ln((1 - i0) / i0) + ln(u / (1 - u))) / r. An infection lasts
until it is cleaned (exponential), or until the district's next power cut: such bots live in memory only and do not
survive a restart (the same paper).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.ragged import positions
from clients.world.weather import MONTH_HOURS
from clients.world.world import World

SPEED, REACH_KM, SEED_SHARE = 1.0, 8.0, 0.01
"""Kilometres an hour, kilometres, and the share that a campaign takes at once."""
_HOURS = np.int64(1 << 41)  # more than any hour in whole millionths


class CampaignOptions(Protocol):
    """The options that campaigns need, of those in `clients.city.window_options`."""

    @property
    def campaigns_per_month(self) -> float:
        """In the whole city."""

    @property
    def doubling_hours(self) -> float:
        """Of a wave at first."""

    @property
    def infected_hours(self) -> float:
        """Mean time until a device is cleaned."""


@dataclass(frozen=True)
class Campaign:
    """One campaign: ground truth for the record.

    Attributes:
        start: hour of the world's clock.
        district: where.
        reached: hour at which it reaches each district; infinite where it never does.
        period: seconds between its bots' calls home.
    """

    start: float
    district: int
    reached: tuple[float, ...]
    period: float

    def for_record(self, districts: tuple[str, ...]) -> dict[str, Any]:
        """Return the campaign as plain values, districts by name."""
        reached = {name: round(hour, 3) for name, hour in zip(districts, self.reached, strict=True) if hour < math.inf}
        return {
            "start_hour": round(self.start, 3),
            "district": districts[self.district],
            "reached_hour": reached,
            "beacon_seconds": round(self.period, 3),
        }


@dataclass(frozen=True)
class Infections:
    """When devices are infected, by campaign: from `onset` (infinite: never) to before `end`, hours, (K, C)."""

    onset: F64
    end: F64

    def campaign_at(self, owner: I64, hours: F64) -> I64:
        """Return the campaign that holds device `owner` at an hour, the newest of several; -1 for none: int64 (M,).

        Owners are in increasing order, and so are the hours of each.
        """
        found = np.full(len(owner), -1, np.int64)
        device, campaign = np.nonzero(self.onset < math.inf)
        newer = np.argsort(self.onset[device, campaign], kind="stable")
        device, campaign = device[newer], campaign[newer]
        place = owner * _HOURS + _ticks(hours)  # whole numbers: a device's result depends on no other device
        edges = (device * _HOURS + _ticks(part[device, campaign]) for part in (self.onset, self.end))
        first, end = (np.searchsorted(place, edge) for edge in edges)
        held = np.maximum(end - first, 0)
        found[positions(first, held)] = np.repeat(campaign, held)  # the newest is written last
        return found


def _ticks(hours: F64) -> I64:
    """Return hours of the clock in whole millionths, below `_HOURS`."""
    return np.asarray(np.clip(hours, 0.0, 1e6) * 2.0**20, np.int64)


def make_campaigns(options: CampaignOptions, world: World, seed: int) -> tuple[Campaign, ...]:
    """Return a world's campaigns in order of time, one in each of equal stretches of its time."""
    expected = options.campaigns_per_month * world.hours / MONTH_HOURS
    count = int(expected + streams.uniforms(streams.keys(seed, "intrusion campaigns"), 1)[0])
    if options.campaigns_per_month > 0.0:
        count = max(count, 1)
    found, districts = [], len(world.names)
    for c in range(count):
        draws = streams.uniforms(streams.keys(seed, "intrusion campaign", c), 3 + districts)
        start = (c + float(draws[0])) * world.hours / count
        district = int(draws[1] * districts)
        away = np.hypot(*(world.centres - world.centres[district]).T)
        reached = np.where(draws[3:] < np.exp(-away / REACH_KM), start + away / SPEED, math.inf)
        period = 5.0 * 12.0 ** float(draws[2])
        found.append(Campaign(start, district, tuple(reached.tolist()), period))
    return tuple(found)


def make_infections(
    options: CampaignOptions,
    world: World,
    campaigns: tuple[Campaign, ...],
    seed: int,
    *,
    clients: I64,
    district: I64,
    weak: F64,
) -> Infections:
    """Return when devices are infected.

    Args:
        options: how fast infections spread and end.
        world: whose power cuts end infections.
        campaigns: the world's.
        seed: root seed.
        clients: the devices, (K,).
        district: of each.
        weak: probability that a campaign which reaches its district can infect it, (K,).
    """
    index = np.arange(len(campaigns))
    draws = streams.uniforms(streams.keys(seed, "intrusion infection", clients[:, None], index[None, :]), 3)
    reached = np.array([one.reached for one in campaigns]).reshape(len(campaigns), len(world.names))
    growth = math.log(2.0) / options.doubling_hours
    start, chance = math.log((1.0 - SEED_SHARE) / SEED_SHARE), draws[..., 1]
    grown = np.maximum(start + np.log(chance / (1.0 - chance)), 0.0) / growth
    onset = np.where(draws[..., 0] < weak[:, None], reached.T[district] + grown, math.inf)
    cleaned = onset - options.infected_hours * np.log(draws[..., 2])
    return Infections(onset, np.minimum(cleaned, _next_cut(world, district, onset)))


def _next_cut(world: World, district: I64, hours: F64) -> F64:
    """Return the first hour, at or after each of (K, C), in which the district's power is off."""
    last = world.hours
    off = np.where(world.power_cut, np.arange(last, dtype=np.float64), math.inf)
    off = np.concatenate((off, np.full((len(off), 1), math.inf)), axis=1)
    following = np.minimum.accumulate(off[:, ::-1], axis=1)[:, ::-1]
    hour = np.ceil(np.minimum(hours, last)).astype(np.int64)
    return np.asarray(following[district[:, None], hour])
