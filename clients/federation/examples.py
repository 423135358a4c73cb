"""Populations of examples with time and place, and faults put into any population's examples.

A `WindowSource` becomes a population here. `with_faults` takes any population that was made without them (digits,
tables of features, a user's own) and gives each client's training examples their faults as they are made: a client's
examples, in their order, are its readings over time, [n * W, C] for windows and [n, d] for anything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from clients.city.source_types import Part, WindowSource
from clients.core import streams
from clients.core.arrays import F64, I32, I64, Array, Bool
from clients.core.channels import Channel
from clients.core.on_demand import Layout, Recent, lazy_cohort
from clients.core.population import CohortData, Examples, Population
from clients.core.ragged import Cohort, alike, label_counts_of, offsets_of, positions
from clients.faults.apply import Block, corrupt, corrupt_in_place, corrupt_labels
from clients.faults.counts import Ledger
from clients.faults.options import FaultOptions, LabelFaultOptions
from clients.federation.scaling import restore, standardise
from clients.world.world import World

Faults = Mapping[str, FaultOptions]

CENTRAL_EXAMPLES = 5000
"""Central examples come from as many clients as hold so many, chosen by seed."""
_MADE = 1 << 20  # numbers made and standardised together: they stay in the cache
_SPOILT = 1 << 20  # and spoilt together
_AT_ONCE = 1 << 24  # bytes of examples that are made at once to be spoilt
MEASURED_CLIENTS = 64
"""Channels that nobody described are measured on the examples of at most so many clients."""


def window_population(source: WindowSource, *, seed: int, dtype: torch.dtype = torch.float32) -> Population:
    """Make a population of a source's examples, standardised by their channels' nominal mean and deviation.

    Args:
        source: what there is.
        seed: root seed; chooses whose examples are central.
        dtype: of the features, and of targets that are numbers.
    """
    labelled = source.task == "classification"
    target_shape = () if labelled else (source.outputs,)
    layout = Layout(source.feature_shape, target_shape, dtype, torch.int64 if labelled else dtype)
    each = int(np.prod(source.feature_shape, dtype=np.int64))

    def made(clients: I64, part: Part, sizes: I32) -> tuple[Tensor, Tensor]:
        own = sizes[clients].astype(np.int64)
        offsets = offsets_of(own)
        features = np.empty((int(offsets[-1]), *source.feature_shape), np.float32)
        targets = np.empty((len(features), *target_shape), np.int64 if labelled else np.float32)
        for few in _few(own * each, _MADE):
            rows = slice(offsets[few.start], offsets[few.stop])
            features[rows], targets[rows] = source.make(clients[few], part)
            standardise(features[rows], source.channels)
        return torch.from_numpy(features).to(dtype), torch.from_numpy(targets).to(layout.target_dtype)

    def cohort(part: Part, sizes: I32) -> Cohort:
        return lazy_cohort(lambda clients: made(clients, part, sizes), sizes, layout)

    def central(part: Part, sizes: I32) -> tuple[Examples | None, I64 | None, F64 | None]:
        owners = central_clients(sizes, seed)
        if not len(owners):
            return None, None, None
        hours = None if source.hours is None else source.hours(owners, part)
        return Examples(*made(owners, part, sizes)), np.repeat(owners, sizes[owners]), hours

    hours = source.hours
    train = cohort("train", source.sizes)
    validation, test = central("validation", source.validation_sizes), central("test", source.test_sizes)
    return Population(
        name=source.name,
        task=source.task,
        sizes=source.sizes,
        feature_shape=source.feature_shape,
        outputs=source.outputs,
        cohort=train,
        cohort_test=cohort("test", source.test_sizes) if source.test_sizes.any() else None,
        validation=validation[0],
        test=test[0],
        validation_clients=validation[1],
        test_clients=test[1],
        validation_hours=validation[2],
        test_hours=test[2],
        label_counts=label_counts_of(train, source.outputs) if labelled else None,
        client_name=source.client_name,
        facts=dict(source.facts),
        channels=source.channels,
        places=source.places,
        districts=source.districts,
        hours=None if hours is None else lambda clients: hours(clients, "train"),
        held_out_hours=None if hours is None else lambda clients: hours(clients, "test"),
        reconstructs=source.reconstructs,
        truth=source.truth,
    )


def central_clients(sizes: I32, seed: int) -> I64:
    """Return whose held-out examples are central, (K,), rising: by seed, enough for `CENTRAL_EXAMPLES`."""
    some = np.flatnonzero(sizes)
    if not len(some):
        return some.astype(np.int64)
    enough = int(np.ceil(CENTRAL_EXAMPLES / max(1.0, float(sizes[some[:10_000]].mean()))))
    chosen = streams.choose(streams.keys(seed, "central clients"), len(some), min(len(some), enough))
    return some[chosen].astype(np.int64)


@dataclass(frozen=True)
class Shape:
    """How examples are laid out as readings: `steps` an example, of `channels`."""

    steps: int
    channels: tuple[Channel, ...]


def with_faults(population: Population, faults: Faults, *, seed: int, world: World | None = None) -> Population:
    """Return a population whose clients' training examples have faults; everything held out stays the truth.

    Args:
        population: without faults; features in units of their channels' deviations where it says its channels.
        faults: those at work now, by name, in order; label faults need labels.
        seed: root seed.
        world: whose storms the faults know.
    """
    if not faults:
        return population
    shape = shape_of(population, seed)
    sensor = {n: f for n, f in faults.items() if not isinstance(f, LabelFaultOptions)}
    labels = {n: f for n, f in faults.items() if isinstance(f, LabelFaultOptions)}
    sizes = population.sizes
    ledger = Ledger(population.num_clients, faults, [c.measured for c in shape.channels])
    probe = population.cohort(np.flatnonzero(sizes)[:1].astype(np.int64))
    dtype, target_dtype = probe.features.dtype, probe.targets.dtype
    layout = Layout(population.feature_shape, tuple(probe.targets.shape[1:]), dtype, target_dtype)

    def spoilt(clients: I64, masked: bool) -> Spoilt:
        offsets = offsets_of(sizes[clients])
        hours = population.hours(clients) if population.hours is not None else None
        places = population.places(clients).district if population.places is not None else 0 * clients
        if sensor:
            fetch = _fetcher(population.cohort, clients, int(offsets[-1]) * layout.bytes)
            made = _sensors(
                fetch,
                layout,
                clients,
                offsets,
                hours,
                (places, population.districts),
                shape,
                sensor,
                seed,
                world,
                masked,
            )
        else:
            data = population.cohort(clients)
            rows = torch.from_numpy(data.rows)
            made = Spoilt(data.features[rows], data.targets[rows])
        if sensor and population.reconstructs:
            made.targets = made.features.flatten(1)
        if labels:
            new, flags, more = corrupt_labels(
                made.targets.numpy(), offsets, clients, population.outputs, labels, seed=seed,
                district=places, districts=population.districts, hours=hours,
            )  # fmt: skip
            made.targets = torch.from_numpy(new)
            made.masks |= {n: np.split(m, offsets[1:-1]) for n, m in flags.items()}
            made.shares |= more  # the effect of a fault of labels is their share
            made.effects |= more
        return made

    def make(clients: I64) -> tuple[Tensor, Tensor]:
        made = spoilt(clients, False)
        ledger.note_shares(clients, made.shares, made.effects)
        return made.features, made.targets

    cohort = lazy_cohort(make, sizes, layout)
    return replace(
        population,
        cohort=cohort,
        label_counts=label_counts_of(cohort, population.outputs) if population.label_counts is not None else None,
        realised=ledger.reader(cohort),
        masks=lambda clients: spoilt(clients, True).masks,
    )


@dataclass
class Spoilt:
    """Examples with their faults.

    Attributes:
        features: of all clients, one after the other.
        targets: of them.
        shares: of each client's readings or labels that a fault changed, by fault, (K,).
        effects: of each fault, (K,).
        masks: what was changed, by fault, an array a client; only where asked for.
    """

    features: Tensor
    targets: Tensor
    shares: dict[str, F64] = field(default_factory=dict)
    effects: dict[str, F64] = field(default_factory=dict)
    masks: dict[str, list[Bool]] = field(default_factory=dict)


def _fetcher(cohort: Cohort, clients: I64, size: int) -> Cohort:
    """Return what gives the data of some of the clients, by their positions among them.

    What is too large to stay in memory is not kept; if this cohort's `size`, in bytes, is large too, it is made a few
    clients at a time.
    """
    if isinstance(cohort, Recent) and size > _AT_ONCE:
        return lambda part: cohort.fresh(clients[part])
    data = cohort.fresh(clients) if isinstance(cohort, Recent) else cohort(clients)

    def picked(part: I64) -> CohortData:
        own = data.sizes[part]
        rows = data.rows[positions(data.offsets[part], own)]
        return CohortData(data.features, data.targets, rows, offsets_of(own))

    return picked


def _sensors(
    fetch: Cohort,
    layout: Layout,
    clients: I64,
    offsets: I64,
    hours: F64 | None,
    placed: tuple[I64, tuple[str, ...]],
    shape: Shape,
    faults: Faults,
    seed: int,
    world: World | None,
    masked: bool,
) -> Spoilt:
    """Put sensor faults into the examples of clients, a few of similar size at a time."""
    sizes, form = np.diff(offsets), layout.feature_shape
    width, measured = shape.steps * len(shape.channels), sum(c.measured for c in shape.channels)
    out = np.empty((int(offsets[-1]), width), np.float32 if layout.dtype == torch.float32 else np.float64)
    targets = torch.empty((len(out), *layout.target_shape), dtype=layout.target_dtype)
    shares, effects = ({n: np.zeros(len(clients)) for n in faults} for _ in range(2))
    masks: dict[str, list[Bool]] = {n: [np.zeros((0, *form), np.bool_)] * len(clients) for n in faults if masked}
    for group in alike(sizes):
        longest = int(sizes[group].max())
        for few in _few(np.full(len(group), longest * width), _SPOILT):
            part = group[few]
            steps = np.arange(longest)
            inside = steps < sizes[part, None]
            data = fetch(part)
            targets[torch.from_numpy(positions(offsets[part], sizes[part]))] = data.targets[torch.from_numpy(data.rows)]
            step = np.where(inside, steps, 0)  # padding: the first example again
            clean = _taken(data.features, data.rows[(data.offsets[:-1, None] + step).reshape(-1)]).reshape(-1, width)
            place = offsets[part, None] + step
            values = clean.astype(np.float32)
            restore(values.reshape(-1, len(shape.channels)), shape.channels)
            block = Block(
                values=values.reshape(len(part), longest * shape.steps, -1),
                lengths=sizes[part] * shape.steps, clients=clients[part],
                hours=None if hours is None else hours[place], each=shape.steps,
                district=placed[0][part], channels=shape.channels, districts=placed[1],
            )  # fmt: skip
            truth = values.copy()
            if masked:
                new, flags, effect = corrupt(block, faults, seed=seed, world=world)
                block.values[:] = new
                for name, mask in flags.items():
                    for i, k in enumerate(part.tolist()):
                        masks[name][k] = mask[i, : block.lengths[i]].reshape(sizes[k], *form)
                counts = {name: mask.sum(axis=(1, 2)) for name, mask in flags.items()}
            else:
                counts, effect = corrupt_in_place(block, faults, seed=seed, world=world)
            changed = values != truth
            standardise(values.reshape(-1, len(shape.channels)), shape.channels)
            np.copyto(clean, values, where=changed)  # what no fault changed keeps its bits
            for i, k in enumerate(part.tolist()):
                out[offsets[k] : offsets[k + 1]] = clean[i * longest : i * longest + sizes[k]]
            for name in faults:
                shares[name][part] = counts[name] / (block.lengths * measured)
                effects[name][part] = effect[name]
    return Spoilt(torch.from_numpy(out).view(-1, *form), targets, shares, effects, masks)


def _taken(features: Tensor, rows: I64) -> Array:
    """Return some examples, copied."""
    if features.is_contiguous():
        return np.take(features.numpy(), rows, axis=0)  # half the time
    return features[torch.from_numpy(rows)].numpy()


def _few(numbers: I64, together: int) -> Iterator[slice]:
    """Yield successive clients who hold at most so many numbers together; at least one."""
    ends = np.cumsum(numbers)
    first, held = 0, 0
    while first < len(numbers):
        stop = max(int(np.searchsorted(ends, held + together, side="right")), first + 1)
        yield slice(first, stop)
        first, held = stop, int(ends[stop - 1])


def shape_of(population: Population, seed: int) -> Shape:
    """Return the channels of a population: those it says, in deviations; else every feature, as measured."""
    shape = population.feature_shape
    if population.channels and shape[-1] == len(population.channels):
        return Shape(int(np.prod(shape[:-1], dtype=np.int64)), population.channels)
    some = np.flatnonzero(population.sizes)
    chosen = streams.choose(streams.keys(seed, "channels"), len(some), min(len(some), MEASURED_CLIENTS))
    data = population.cohort(some[chosen].astype(np.int64))
    flat = data.features[torch.from_numpy(data.rows)].double().flatten(1).numpy()
    spread = float(np.sqrt(flat.var(axis=0).mean())) or 1.0
    low, high = float(flat.min()), float(flat.max())
    return Shape(
        1,
        tuple(
            Channel(name=f"feature {j}", mean=float(m), deviation=spread, low=low, high=high)
            for j, m in enumerate(flat.mean(axis=0))
        ),
    )
