"""Populations of examples with time and place, and faults put into any population's examples.

A `WindowSource` becomes a population here. `with_faults` takes any population that was made without them (digits,
tables of features, a user's own) and gives each client's training examples their faults as they are made: a client's
examples, in their order, are its readings over time, [n * W, C] for windows and [n, d] for anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients import streams
from clients.channels import Channel
from clients.city.world import World
from clients.faults.apply import Block, corrupt, corrupt_labels
from clients.faults.options import FaultOptions, is_label_fault
from clients.lazy import Layout, lazy_cohort
from clients.population import Examples, Population
from clients.ragged import Cohort, alike, label_counts_of, positions
from clients.realised import Ledger
from clients.sensing import Part, WindowSource

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Faults = Mapping[str, FaultOptions]

CENTRAL_EXAMPLES = 5000
"""Central examples come from as many clients as hold so many, chosen by seed."""
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
    mean = np.array([c.mean for c in source.channels], np.float32)
    deviation = np.array([c.deviation for c in source.channels], np.float32)

    def made(clients: I64, part: Part) -> tuple[Tensor, Tensor]:
        features, targets = source.make(clients, part)
        scaled = torch.from_numpy((features - mean) / deviation).to(dtype)
        return scaled, torch.from_numpy(targets).to(layout.target_dtype)

    def cohort(part: Part, sizes: npt.NDArray[np.int32]) -> Cohort:
        return lazy_cohort(lambda clients: made(clients, part), sizes, layout)

    def central(part: Part, sizes: npt.NDArray[np.int32]) -> tuple[Examples | None, I64 | None, F64 | None]:
        owners = central_clients(sizes, seed)
        if not len(owners):
            return None, None, None
        hours = None if source.hours is None else source.hours(owners, part)
        return Examples(*made(owners, part)), np.repeat(owners, sizes[owners]), hours

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
    )


def central_clients(sizes: npt.NDArray[np.int32], seed: int) -> I64:
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
    sensor = {n: f for n, f in faults.items() if not is_label_fault(f)}
    labels = {n: f for n, f in faults.items() if is_label_fault(f)}
    sizes = population.sizes
    ledger = Ledger(population.num_clients, faults, [c.measured for c in shape.channels])
    probe = population.cohort(np.flatnonzero(sizes)[:1].astype(np.int64))
    dtype, target_dtype = probe.features.dtype, probe.targets.dtype
    layout = Layout(population.feature_shape, tuple(probe.targets.shape[1:]), dtype, target_dtype)

    def spoilt(clients: I64) -> tuple[Tensor, Tensor, dict[str, list[Bool]], dict[str, F64]]:
        data = population.cohort(clients)
        rows = torch.from_numpy(data.rows)
        features, targets = data.features[rows], data.targets[rows]
        masks: dict[str, list[Bool]] = {}
        effects: dict[str, F64] = {}
        hours = population.hours(clients) if population.hours is not None else None
        places = population.places(clients).district if population.places is not None else 0 * clients
        if sensor:
            features, masks, effects = _sensors(
                features, clients, data.offsets, hours, (places, population.districts), shape, sensor, seed, world
            )
            targets = features.flatten(1) if population.reconstructs else targets
        if labels:
            made, flags, more = corrupt_labels(
                targets.numpy(), data.offsets, clients, population.outputs, labels, seed=seed,
                district=places, districts=population.districts, hours=hours,
            )  # fmt: skip
            targets = torch.from_numpy(made)
            masks |= {n: np.split(m, data.offsets[1:-1]) for n, m in flags.items()}
            effects |= more
        return features, targets, masks, effects

    def make(clients: I64) -> tuple[Tensor, Tensor]:
        features, targets, masks, effects = spoilt(clients)
        measured = np.array([c.measured for c in shape.channels])
        shares = {n: np.array([_share(m, measured) for m in found]) for n, found in masks.items()}
        ledger.note_shares(clients, shares, effects)
        return features, targets

    cohort = lazy_cohort(make, sizes, layout)
    return replace(
        population,
        cohort=cohort,
        label_counts=label_counts_of(cohort, population.outputs) if population.label_counts is not None else None,
        realised=ledger.reader(cohort),
        masks=lambda clients: spoilt(clients)[2],
    )


def _share(mask: Bool, measured: Bool) -> float:
    """Return the share of one client's readings [n, ...] (or labels [n]) that are marked."""
    if not mask.size:
        return 0.0
    if mask.ndim == 1:
        return float(mask.mean())
    return float(mask.reshape(-1, len(measured))[:, measured].mean())


def _sensors(
    features: Tensor,
    clients: I64,
    offsets: I64,
    hours: F64 | None,
    placed: tuple[I64, tuple[str, ...]],
    shape: Shape,
    faults: Faults,
    seed: int,
    world: World | None,
) -> tuple[Tensor, dict[str, list[Bool]], dict[str, F64]]:
    """Put sensor faults into the examples of clients, those of similar size together."""
    out = features.clone()
    district, districts = placed
    channels = len(shape.channels)
    mean = np.array([c.mean for c in shape.channels], np.float32)
    deviation = np.array([c.deviation for c in shape.channels], np.float32)
    masks: dict[str, list[Bool]] = {n: [np.zeros((0, *features.shape[1:]), np.bool_)] * len(clients) for n in faults}
    effects = {n: np.zeros(len(clients)) for n in faults}
    sizes = np.diff(offsets)
    for part in alike(sizes):
        lengths = sizes[part] * shape.steps
        width = int(lengths.max(initial=0))
        values = np.zeros((len(part), width, channels), np.float32)
        when = np.zeros((len(part), width)) if hours is not None else None
        rows = torch.from_numpy(positions(offsets[part], sizes[part]))
        inside = np.arange(width) < lengths[:, None]
        values[inside] = features[rows].numpy().reshape(-1, channels) * deviation + mean
        if when is not None and hours is not None:
            when[inside] = np.repeat(hours[rows.numpy()], shape.steps)
        block = Block(values=values, lengths=lengths, clients=clients[part], hours=when, district=district[part],
                      channels=shape.channels, districts=districts)  # fmt: skip
        spoilt, found, effect = corrupt(block, faults, seed=seed, world=world)
        changed = np.logical_or.reduce(list(found.values()))
        new = torch.from_numpy(((spoilt - mean) / deviation)[inside]).to(out.dtype).view(-1, *features.shape[1:])
        touched = torch.from_numpy(changed[inside]).view(-1, *features.shape[1:])
        out[rows] = torch.where(touched, new, out[rows])  # what no fault changed keeps its bits
        for name, mask in found.items():
            effects[name][part] = effect[name]
            for i, k in enumerate(part.tolist()):
                masks[name][k] = mask[i, : lengths[i]].reshape(sizes[k], *features.shape[1:])
    return out, masks, effects


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
