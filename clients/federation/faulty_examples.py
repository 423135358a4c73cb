"""Adds faults to the examples of any population: digits, tables of features, windows, a user's own data.

A client's training examples, in their order, are its readings over time: [n * W, C] for windows and [n, d] for anything
else. Faults change them as they are made. Held-out examples have no faults.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64, I64, Array, Bool
from clients.core.channels import Channel
from clients.core.examples import Cohort, CohortData
from clients.core.on_demand import ExampleLayout, Made, Recent, on_demand_cohort
from clients.core.population import Population
from clients.core.ragged import alike, few_clients, label_counts_of, offsets_of, positions
from clients.faults.apply import Block, LabelBlock, corrupt, corrupt_in_place, corrupt_labels
from clients.faults.counts import fault_counts
from clients.faults.options import Faults, LabelFaultOptions
from clients.federation.scaling import inliers, restore, standardise
from clients.world.world import World

MEASURED_CLIENTS = 64
"""The most clients on whose examples channels without a description are measured."""
_CHANGED = 1 << 20  # numbers that faults change at once: they stay in the cache
_AT_ONCE = 1 << 24  # bytes of examples that are made at once for faults to change


def with_faults(population: Population, faults: Faults, *, seed: int, world: World | None = None) -> Population:
    """Return a population whose clients' training examples have faults.

    Args:
        population: the clients without faults; features are in deviations if its channels are known.
        faults: the active faults, by name, in order; label faults need labels.
        seed: root seed.
        world: the city, for faults that depend on its storms.
    """
    if not faults:
        return population
    maker = _Maker(population, faults, layout_of(population), readings_of(population, seed), seed, world)

    def make(clients: I64) -> Made:
        made = maker.make(clients, masked=False)
        return Made(made.features, made.targets, fault_counts(faults, made.shares, made.effects))

    cohort = on_demand_cohort(make, population.sizes, maker.layout, faults=tuple(faults))
    counted = population.clients.label_counts is not None
    clients = replace(
        population.clients,
        cohort=cohort,
        label_counts=label_counts_of(cohort, population.spec.outputs) if counted else None,
    )
    history = replace(
        population.history, faults=tuple(faults), masks=lambda clients: maker.make(clients, masked=True).masks
    )
    return replace(population, clients=clients, history=history)


def layout_of(population: Population) -> ExampleLayout:
    """Return the layout of a population's examples, that of its first client with examples."""
    probe = population.cohort(np.flatnonzero(population.sizes)[:1].astype(np.int64))
    features, targets = probe.features, probe.targets
    return ExampleLayout(population.spec.feature_shape, tuple(targets.shape[1:]), features.dtype, targets.dtype)


@dataclass(frozen=True)
class Readings:
    """How an example is laid out as readings: `steps` of `channels`."""

    steps: int
    channels: tuple[Channel, ...]

    @property
    def width(self) -> int:
        """Numbers of an example."""
        return self.steps * len(self.channels)

    @property
    def measured(self) -> int:
        """Channels that a sensor measures."""
        return sum(c.measured for c in self.channels)


def readings_of(population: Population, seed: int) -> Readings:
    """Return how a population's examples are laid out as readings.

    The channels are those of the population's `spec`, in deviations. Without any, every feature is a channel and is
    measured here. All have one deviation: the root of the features' mean variance, without outliers (`inliers`).
    """
    shape, channels = population.spec.feature_shape, population.spec.channels
    if channels and shape[-1] == len(channels):
        return Readings(int(np.prod(shape[:-1], dtype=np.int64)), channels)
    some = np.flatnonzero(population.sizes)
    chosen = streams.choose(streams.keys(seed, "channels"), len(some), min(len(some), MEASURED_CLIENTS))
    data = population.cohort(some[chosen].astype(np.int64))
    flat = data.features[torch.from_numpy(data.rows)].double().flatten(1).numpy()
    usual = inliers(flat)
    spread = float(np.sqrt(usual.var(axis=0).mean())) or 1.0
    low, high = float(flat.min()), float(flat.max())
    return Readings(
        1,
        tuple(
            Channel(name=f"feature {j}", mean=float(m), deviation=spread, low=low, high=high)
            for j, m in enumerate(usual.mean(axis=0))
        ),
    )


@dataclass
class _Faulty:
    """Examples of K clients with their faults.

    Attributes:
        features: of all clients, one after the other.
        targets: of all clients.
        shares: by fault, the share of each client's readings or labels that it changed, (K,).
        effects: by fault, its effect on each client, (K,).
        masks: by fault, one array a client that marks what it changed; empty unless masks are made.
    """

    features: Tensor
    targets: Tensor
    shares: dict[str, F64] = field(default_factory=dict)
    effects: dict[str, F64] = field(default_factory=dict)
    masks: dict[str, list[Bool]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Members:
    """Some clients: their indices, where their examples start, their districts, and the hours of their examples."""

    clients: I64
    offsets: I64
    district: I64
    hours: F64 | None


@dataclass(frozen=True)
class _Maker:
    """Makes the examples of clients with their faults."""

    population: Population
    faults: Faults
    layout: ExampleLayout
    readings: Readings
    seed: int
    world: World | None

    def make(self, clients: I64, *, masked: bool) -> _Faulty:
        """Make the examples of some clients, with masks of the changes if `masked`."""
        p = self.population
        members = _Members(
            clients,
            offsets_of(p.sizes[clients]),
            0 * clients if p.federation.places is None else p.federation.places(clients).district,
            None if p.clients.hours is None else p.clients.hours(clients),
        )
        sensor = {n: f for n, f in self.faults.items() if not isinstance(f, LabelFaultOptions)}
        if sensor:
            made = self._with_sensor_faults(members, sensor, masked)
            if p.spec.reconstructs:
                made.targets = made.features.flatten(1)
        else:
            data = p.cohort(clients)
            rows = torch.from_numpy(data.rows)
            made = _Faulty(data.features[rows], data.targets[rows])
        if len(sensor) < len(self.faults):
            self._put_label_faults(made, members)
        return made

    def _put_label_faults(self, made: _Faulty, members: _Members) -> None:
        block = LabelBlock(
            made.targets.numpy(),
            members.offsets,
            members.clients,
            self.population.spec.outputs,
            district=members.district,
            districts=self.population.federation.districts,
            hours=members.hours,
        )
        new, flags, share = corrupt_labels(block, self.faults, seed=self.seed)
        made.targets = torch.from_numpy(new)
        made.masks |= {n: np.split(m, members.offsets[1:-1]) for n, m in flags.items()}
        made.shares |= share  # the effect of a fault of labels is their share
        made.effects |= share

    def _with_sensor_faults(self, members: _Members, faults: Faults, masked: bool) -> _Faulty:
        """Put sensor faults into the examples of clients, a few of similar size at a time."""
        fetch = _fetcher(self.population.clients.cohort, members.clients, int(members.offsets[-1]) * self.layout.bytes)
        made = self._empty(members, faults, masked)
        sizes = np.diff(members.offsets)
        for group in alike(sizes):
            longest = int(sizes[group].max())
            for few in few_clients(np.full(len(group), longest * self.readings.width), _CHANGED):
                part = group[few]
                self._put_sensor_faults(made, members, part, fetch(part), faults, longest)
        return made

    def _empty(self, members: _Members, faults: Faults, masked: bool) -> _Faulty:
        form, count = self.layout.feature_shape, int(members.offsets[-1])
        targets = self.layout.empty(count)[1]
        # NumPy asks for large pages where torch does not: writing 200 MB for the first time takes half as long.
        wide = np.float32 if self.layout.dtype == torch.float32 else np.float64
        features = torch.from_numpy(np.empty((count, *form), wide))
        shares, effects = ({n: np.zeros(len(members.clients)) for n in faults} for _ in range(2))
        none = np.zeros((0, *form), np.bool_)
        return _Faulty(features, targets, shares, effects, {n: [none] * len(members.clients) for n in faults if masked})

    def _put_sensor_faults(
        self, made: _Faulty, members: _Members, part: I64, data: CohortData, faults: Faults, longest: int
    ) -> None:
        """Put faults into the examples of the clients at some positions, and write the examples to their rows."""
        channels, sizes = self.readings.channels, np.diff(members.offsets)
        steps = np.arange(longest)
        step = np.where(steps < sizes[part, None], steps, 0)  # padding: the first example again
        where = torch.from_numpy(positions(members.offsets[part], sizes[part]))
        made.targets[where] = data.targets[torch.from_numpy(data.rows)]
        clean = _taken(data.features, data.rows[(data.offsets[:-1, None] + step).reshape(-1)])
        clean = clean.reshape(-1, self.readings.width)
        values = clean.astype(np.float32)
        restore(values.reshape(-1, len(channels)), channels)
        block = Block(
            values=values.reshape(len(part), longest * self.readings.steps, -1),
            lengths=sizes[part] * self.readings.steps,
            clients=members.clients[part],
            hours=None if members.hours is None else members.hours[members.offsets[part, None] + step],
            each=self.readings.steps,
            district=members.district[part],
            channels=channels,
            districts=self.population.federation.districts,
        )
        before = values.copy()
        counts, effects = self._corrupt(made, block, part, faults, sizes)
        changed = values != before
        standardise(values.reshape(-1, len(channels)), channels)
        np.copyto(clean, values, where=changed)  # values that no fault changed keep their bits
        out = made.features.numpy().reshape(-1, self.readings.width)
        for i, k in enumerate(part.tolist()):
            out[members.offsets[k] : members.offsets[k + 1]] = clean[i * longest : i * longest + sizes[k]]
        for name in faults:
            made.shares[name][part] = counts[name] / (block.lengths * self.readings.measured)
            made.effects[name][part] = effects[name]

    def _corrupt(
        self, made: _Faulty, block: Block, part: I64, faults: Faults, sizes: I64
    ) -> tuple[dict[str, I64], dict[str, F64]]:
        """Change the block's values in place; return counts and effects by fault, and write masks if there are any."""
        if not made.masks:
            return corrupt_in_place(block, faults, seed=self.seed, world=self.world)
        new, flags, effects = corrupt(block, faults, seed=self.seed, world=self.world)
        block.values[:] = new
        for name, mask in flags.items():
            for i, k in enumerate(part.tolist()):
                own = mask[i, : block.lengths[i]]
                made.masks[name][k] = own.reshape(sizes[k], *self.layout.feature_shape)
        return {name: mask.sum(axis=(1, 2)) for name, mask in flags.items()}, effects


def _fetcher(cohort: Cohort, clients: I64, size: int) -> Cohort:
    """Return a function that gives the data of some of the clients, by their positions among them.

    Data that are too large to stay in memory are not kept. A cohort of large `size`, in bytes, is made a few clients at
    a time.
    """
    if isinstance(cohort, Recent) and size > _AT_ONCE:
        return lambda part: cohort.fresh(clients[part])
    data = cohort.fresh(clients) if isinstance(cohort, Recent) else cohort(clients)

    def picked(part: I64) -> CohortData:
        own = data.sizes[part]
        rows = data.rows[positions(data.offsets[part], own)]
        return CohortData(data.features, data.targets, rows, offsets_of(own))

    return picked


def _taken(features: Tensor, rows: I64) -> Array:
    """Return some examples, copied."""
    if features.is_contiguous():
        return np.take(features.numpy(), rows, axis=0)  # takes half the time
    return features[torch.from_numpy(rows)].numpy()
