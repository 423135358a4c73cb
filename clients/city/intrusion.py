"""Intrusion: windows of ten minutes of a device's traffic, benign or under the orders of a botnet.

A device's traffic is a sum of layers: its idle traffic, its traffic while in use (people at home, public events,
weather), and an attack while a campaign holds it. The layers add up as packets do (`attacks.flows`), so a quiet attack
on a busy camera is hard to see. One cause has many effects: campaigns run through the districts in waves
(`attacks.botnets`), and their bots obey common orders, so many devices attack in the same hours. A power cut silences
a district and clears its infections, since bots live in memory.

An infected device's window follows the campaign's order of these two hours with probability `OBEDIENCE`, else an order
of its own. Either way family i = 1, 2, ... is drawn with probability i^-tail / sum_j j^-tail (Zipf), so few families
make most attacks (N-BaIoT, Meidan et al. 2018; IoT-23, Garcia et al. 2020). With probability 1 - `active` an infected
device waits: that window is benign, and is labelled so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clients.city.attacks.botnets import Campaign, Infections, make_campaigns, make_infections
from clients.city.attacks.flows import CHANNELS, NOISES, cause, features
from clients.city.attacks.tables import DEVICES, FAMILIES, UPDATE, columns
from clients.city.source_types import MOST_LISTED, Part, WindowSource
from clients.city.window_options import IntrusionOptions
from clients.city.windows import Counts, pick
from clients.core import streams
from clients.core.arrays import F32, F64, I64
from clients.world.world import World

OBEDIENCE, ORDER_HOURS = 0.5, 2.0
UPDATES = 0.004
"""Share of benign windows in which a device fetches its firmware."""
_BLOCK = 1 << 15  # windows made at once


@dataclass(frozen=True)
class Devices:
    """Some devices: each one's type (an index into the options), district, and number of windows in each part."""

    clients: I64
    kind: I64
    district: I64
    counts: Counts


Timed = tuple[Devices, tuple[I64, I64, F64]]
"""Some devices; device (an index into them), number and hour of each of their windows."""


class _Traffic:
    """Makes windows of devices on demand."""

    def __init__(self, options: IntrusionOptions, world: World, seed: int) -> None:
        self.options, self.world, self.seed = options, world, seed
        self.campaigns = make_campaigns(options, world, seed)
        self.types = [DEVICES[name] for name in options.device_types]
        ranks = np.arange(1, len(options.families) + 1) ** -options.tail
        self._last: tuple[I64, Part, Timed] | None = None
        self._law = np.cumsum(ranks / ranks.sum())
        kinds = (*(t.idle for t in self.types), *(t.busy for t in self.types))
        self._talks = columns([*kinds, *(FAMILIES[name] for name in options.families), UPDATE])

    def kinds(self, clients: I64) -> I64:
        """Return the type of each device."""
        law = np.cumsum([one.share for one in self.types])
        draws = streams.uniforms(streams.keys(self.seed, "intrusion type", clients), 1)[:, 0]
        return np.minimum(np.searchsorted(law / law[-1], draws), len(self.types) - 1)

    def counts(self, clients: I64) -> Counts:
        """Return how many windows each has: log-normal around its type's mean."""
        x = self.options
        deviation = np.sqrt(np.log1p(x.size_spread**2))
        normal = streams.normals(streams.keys(self.seed, "intrusion size", clients), 1)[:, 0]
        watched = np.array([one.watched for one in self.types])[self.kinds(clients)]
        drawn = x.windows * watched * np.exp(deviation * normal - deviation**2 / 2.0)
        total = np.maximum(np.rint(drawn), 1.0).astype(np.int64)
        test, validation = (
            np.floor(f * total + 0.5).astype(np.int64) for f in (x.test_fraction, x.validation_fraction)
        )
        test = np.minimum(test, total - 1)
        validation = np.minimum(validation, total - 1 - test)
        return Counts(total - test - validation, validation, test)

    def devices(self, clients: I64) -> Devices:
        """Return the fixed properties of some devices."""
        clients = np.asarray(clients, np.int64)
        return Devices(clients, self.kinds(clients), self.world.sites(clients).district, self.counts(clients))

    def times(self, devices: Devices, part: Part) -> tuple[I64, I64, F64]:
        """Return device, number and hour of each window. A part's time is cut into equal stretches, one a window."""
        x, owner, index = self.options, *pick(devices.counts, part)
        ends = (
            np.array([0.0, 1.0 - x.validation_fraction - x.test_fraction, 1.0 - x.test_fraction, 1.0])
            * self.world.hours
        )
        place = ("train", "validation", "test").index(part)
        first, end = devices.counts.span(part)
        draws = streams.uniforms(streams.keys(self.seed, "intrusion time", devices.clients[owner], index), 1)[:, 0]
        within = (index - first[owner] + draws) / (end - first)[owner]
        return owner, index, ends[place] + (ends[place + 1] - ends[place]) * within

    def timed(self, clients: I64, part: Part) -> Timed:
        """Return devices and the `times` of their windows; successive ones of the last result are taken from it."""
        clients, last = np.asarray(clients, np.int64), self._last
        if last is not None and last[1] == part and len(clients) and len(last[0]):
            first = int(np.argmax(last[0] == clients[0]))
            if np.array_equal(last[0][first : first + len(clients)], clients):
                return _some(last[2], slice(first, first + len(clients)))
        devices = self.devices(clients)
        found = self.times(devices, part)
        for values in found:
            values.setflags(write=False)
        self._last = clients.copy(), part, (devices, found)
        return devices, found

    def infections(self, devices: Devices) -> Infections:
        """Return when the devices are infected."""
        weak = np.array([one.weak for one in self.types])[devices.kind] * self.options.susceptibility
        return make_infections(self.options, self.world, self.campaigns, self.seed, clients=devices.clients,
                               district=devices.district, weak=weak)  # fmt: skip

    def make(self, clients: I64, part: Part) -> tuple[F32, I64]:
        """Return features and labels, client after client."""
        devices, (owner, index, hours) = self.timed(clients, part)
        infections = self.infections(devices)
        values = np.empty((len(owner), len(CHANNELS)), np.float32)
        labels = np.empty(len(owner), np.int64)
        style = streams.normals(streams.keys(self.seed, "intrusion style", devices.clients), 3)
        for start in range(0, len(owner), _BLOCK):
            rows = slice(start, start + _BLOCK)
            values[rows], labels[rows] = self._windows(
                devices, infections, style, owner[rows], index[rows], hours[rows]
            )
        return values, np.minimum(labels, 1) if self.options.task == "attack" else labels

    def _windows(
        self, devices: Devices, infections: Infections, style: F64, owner: I64, index: I64, hours: F64
    ) -> tuple[F32, I64]:
        """Make some windows of devices."""
        key = streams.keys(self.seed, "intrusion window", devices.clients[owner], index)
        draws = streams.quick_uniforms(key, 6).T.copy()
        kind, district, hour = devices.kind[owner], devices.district[owner], hours.astype(np.int64)
        on = ~np.take(self.world.power_cut, district * self.world.hours + hour)
        campaign = infections.campaign_at(owner, hours)
        labels = self._orders(campaign, hours, draws)
        labels[~on] = 0
        own, size, peers = np.exp(np.array([0.3, 0.12, 0.2]) * style).astype(np.float32).T
        use = self._use(kind, district, hours, draws)
        types, attack = len(self.types), labels > 0
        speed = np.array([one.speed for one in self.types], np.float32)[kind] ** np.float32(0.5)
        third = np.where(attack, 2 * types + labels - 1, 2 * types + len(self.options.families))
        causes = []
        for place, (talk, amount, there) in enumerate((
            (kind, own[owner] * on, None),
            (types + kind, own[owner] * use, on & (use > 0.0)),
            (third, np.where(attack, speed, np.float32(1.0)), attack | (on & (draws[5] < UPDATES))),
        )):  # fmt: skip
            some = slice(None) if there is None else np.flatnonzero(there)
            which = talk[some]
            columns = {name: np.take(column, which, mode="clip") for name, column in self._talks.items()}
            if talk is third:
                columns |= self._called_home(labels[some], campaign[some], columns)
            else:  # each maker's packets and peers are a little different
                columns["size"] *= size[owner[some]]
                columns["peers"] *= peers[owner[some]]
            normals = streams.quick_normal_rows(streams.keys(place, "intrusion noise", key[some]), NOISES)
            causes.append(cause(columns, some, amount[some], normals))
        return features(tuple(causes), self.world.hour_of_day(hours)), labels

    def _called_home(self, labels: I64, campaign: I64, columns: dict[str, F32]) -> dict[str, F32]:
        """Return period and rate with beacons at their campaign's period, two packets a call."""
        if "beacon" not in self.options.families or not self.campaigns:
            return {}
        calls = labels == 1 + self.options.families.index("beacon")
        period = np.array([one.period for one in self.campaigns], np.float32)[campaign]
        return {
            "period": np.where(calls, period, columns["period"]),
            "rate": np.where(calls, np.float32(2.0) / period, columns["rate"]),
        }

    def _orders(self, campaign: I64, hours: F64, draws: F32) -> I64:
        """Return the activity of infected devices: 0 for none, else 1 + the family's index."""
        rows = np.flatnonzero((campaign >= 0) & (draws[2] < self.options.active))
        stretch = (hours[rows] / ORDER_HOURS).astype(np.int64)
        given = streams.uniforms(streams.keys(self.seed, "intrusion order", campaign[rows], stretch), 1)[:, 0]
        chosen = np.searchsorted(self._law, np.where(draws[0, rows] < OBEDIENCE, given, draws[1, rows]))
        labels = np.zeros(len(hours), np.int64)
        labels[rows] = 1 + np.minimum(chosen, len(self._law) - 1)
        return labels

    def _use(self, kind: I64, district: I64, hours: F64, draws: F32) -> F32:
        """Return how strongly devices are used: 0 in most windows, else around 1."""
        world, hour = self.world, hours.astype(np.int64)
        clock = world.hour_of_day(hours).astype(np.float32)
        weekend = world.is_weekend(np.arange(world.hours))
        morning, evening = (np.square(clock - np.float32(8.0)) / -4.0, np.square(clock - np.float32(19.5)) / -9.0)
        home = np.where(weekend, 0.45, 0.25).astype(np.float32)[hour] * np.exp(morning)
        home += np.float32(0.55) * np.exp(evening)
        home += np.float32(0.05)
        people, crowd, weather = (
            np.array([getattr(one, name) for one in self.types], np.float32)[kind]
            for name in ("people", "crowd", "weather")
        )
        cold = (np.abs(world.temperature - 20.0) * (0.4 / 20.0)).astype(np.float32)[hour]
        events = np.take(world.crowd, district * world.hours + hour).astype(np.float32)
        likely = people * home + crowd * (np.float32(0.05) + np.float32(0.5) * events) + weather * cold
        strength: F32 = np.float32(0.3) - np.log(draws[4])
        strength *= draws[3] < np.minimum(likely, np.float32(0.95))
        return strength


def _some(timed: Timed, few: slice) -> Timed:
    """Return successive devices of some, and the times of their windows."""
    devices, (owner, index, hours) = timed
    chosen = Devices(devices.clients[few], devices.kind[few], devices.district[few], devices.counts.some(few))
    first, end = np.searchsorted(owner, [few.start, few.stop])
    return chosen, (owner[first:end] - few.start, index[first:end], hours[first:end])


def intrusion_source(options: IntrusionOptions, world: World, seed: int) -> WindowSource:
    """Make the source: devices of the city's sites, on the world's clock.

    Args:
        options: the source's options.
        world: its districts, power cuts, events and weather.
        seed: root seed.

    Example:
        >>> from clients.world.world import make_world
        >>> from clients.world.options import WorldOptions
        >>> source = intrusion_source(IntrusionOptions(clients=10), make_world(WorldOptions(), 0), 0)
        >>> source.feature_shape, source.outputs
        ((24,), 8)
    """
    traffic = _Traffic(options, world, seed)
    counts = traffic.counts(np.arange(options.clients))

    def hours(clients: I64, part: Part) -> F64:
        return traffic.timed(clients, part)[1][2]

    return WindowSource(
        name="intrusion",
        task="classification",
        sizes=counts.train.astype(np.int32),
        test_sizes=counts.test.astype(np.int32),
        validation_sizes=counts.validation.astype(np.int32),
        channels=CHANNELS,
        feature_shape=(len(CHANNELS),),
        outputs=2 if options.task == "attack" else 1 + len(options.families),
        make=traffic.make,
        hours=hours,
        places=world.sites,
        districts=world.names,
        client_name=lambda k: f"{options.device_types[int(traffic.kinds(np.array([k]))[0])]} {k}",
        facts={
            "task": options.task,
            "classes": "benign, attack" if options.task == "attack" else ", ".join(("benign", *options.families)),
            "campaigns": len(traffic.campaigns),
        },
        ground_truth=lambda: _listed(traffic, min(options.clients, MOST_LISTED)),
    )


def _listed(traffic: _Traffic, devices: int) -> dict[str, Any]:
    """Return the campaigns, and the infections of the first devices (by which, and when), the earliest first."""
    found = traffic.infections(traffic.devices(np.arange(devices)))
    device, campaign = np.nonzero(np.isfinite(found.onset) & (found.onset < traffic.world.hours))
    early = np.argsort(found.onset[device, campaign], kind="stable")[:MOST_LISTED]
    total, device, campaign = len(device), device[early], campaign[early]
    onset, end = found.onset[device, campaign], np.minimum(found.end[device, campaign], traffic.world.hours)
    return {
        "campaigns": [one.for_record(traffic.world.names) for one in traffic.campaigns[:MOST_LISTED]],
        "infections": {
            "of_devices_below": devices,
            "count": total,
            "client": device.tolist(),
            "campaign": campaign.tolist(),
            "onset_hour": onset.round(3).tolist(),
            "end_hour": end.round(3).tolist(),
        },
    }


def intrusion_truth(options: IntrusionOptions, world: World, seed: int) -> tuple[Campaign, ...]:
    """Return the campaigns behind the data: when and where each starts, and when it reaches each district."""
    return make_campaigns(options, world, seed)
