"""Populations of sensors: series cut into windows as views, examples made on demand, faults in the training part alone.

Readings are standardised by their channels' nominal mean and deviation, which no data can move: an error means the
same with a fault and without. Faults touch training data; central and held-out examples are the truth, later in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clients.city.source_types import SeriesSource
from clients.core import streams
from clients.core.arrays import F32, F64, I64, Array, Bool
from clients.core.errors import DataError
from clients.core.on_demand import Layout, lazy_cohort
from clients.core.population import CohortData, Examples, Population
from clients.core.ragged import Cohort, label_counts_of
from clients.faults.apply import Block, corrupt, corrupt_in_place, corrupt_labels
from clients.faults.counts import Ledger
from clients.faults.options import FaultOptions
from clients.federation.scaling import standardise
from clients.world.world import World

Faults = Mapping[str, FaultOptions]

CENTRAL_EXAMPLES = 5000
"""Central validation and test examples are at most so many, the same windows of each site, chosen by seed."""
CENTRAL_SITES = 200
"""They come from at most so many sites, chosen by seed."""
_TOGETHER = 1 << 20  # readings made, spoilt and standardised together: they stay in the cache


@dataclass(frozen=True)
class Windows:
    """Where windows start in a span of readings: multiples of `stride` that leave room for window and horizon."""

    starts: I64
    length: int

    @classmethod
    def of(cls, source: SeriesSource, begin: int, end: int) -> Windows:
        """Return the windows of steps [begin, end), counted from `begin`."""
        first = -(-begin // source.stride) * source.stride - begin
        last = end - begin - source.window - source.horizon
        return cls(np.arange(first, last + 1, source.stride, dtype=np.int64), end - begin)


def series_population(
    source: SeriesSource,
    faults: Faults,
    *,
    seed: int,
    world: World | None = None,
    dtype: torch.dtype = torch.float32,
) -> Population:
    """Make a population of series; readings are made when a client is first asked for.

    Args:
        source: what the sensors read.
        faults: those at work now, by name; label faults need `source.label`.
        seed: root seed.
        world: whose districts and storms the faults know.
        dtype: of features and forecasts.

    Returns:
        The population: features [n, window, C] standardised, targets [n, horizon] of channel 0 standardised, or labels.

    Raises:
        DataError: a part has no room for one window.
    """
    parts = dict(zip(("train", "validation", "test"), zip((0, *source.ends), source.ends, strict=False), strict=True))
    windows = {part: Windows.of(source, *span) for part, span in parts.items()}
    if not len(windows["train"].starts):
        raise DataError(
            "window",
            f"{source.window} steps and a horizon of {source.horizon} do not fit in {source.ends[0]} training steps",
            fix="Take a shorter window or more days.",
        )
    ledger = Ledger(source.num_clients, faults, [c.measured for c in source.channels])
    train = _cohort(source, *parts["train"], windows["train"], dtype, seed, world, faults, ledger)
    held = _cohort(source, *parts["test"], windows["test"], dtype, seed, world, {}, None)
    central = {part: _central(source, *parts[part], windows[part], dtype, seed) for part in ("validation", "test")}
    hours = {part: _hours(source, parts[part][0], w) for part, w in windows.items()}
    counted = source.label is not None
    return Population(
        name=source.name,
        task="classification" if counted else "regression",
        sizes=np.full(source.num_clients, len(windows["train"].starts), np.int32),
        feature_shape=(source.window, len(source.channels)),
        outputs=source.outputs if counted else source.horizon,
        cohort=train,
        cohort_test=held if len(windows["test"].starts) else None,
        validation=central["validation"][0],
        test=central["test"][0],
        validation_clients=central["validation"][1],
        test_clients=central["test"][1],
        validation_hours=central["validation"][2],
        test_hours=central["test"][2],
        label_counts=label_counts_of(train, source.outputs) if counted else None,
        client_name=source.client_name,
        facts=dict(source.facts),
        channels=source.channels,
        places=source.places,
        districts=source.districts,
        hours=lambda clients: np.tile(hours["train"], len(clients)),
        held_out_hours=lambda clients: np.tile(hours["test"], len(clients)),
        training_ends=source.ends[0] * source.step_hours,
        truth=source.truth,
        realised=ledger.reader(train) if faults else None,
        masks=_masks(source, parts["train"][1], windows["train"], seed, world, faults) if faults else None,
    )


def _cohort(
    source: SeriesSource,
    begin: int,
    end: int,
    windows: Windows,
    dtype: torch.dtype,
    seed: int,
    world: World | None,
    faults: Faults,
    ledger: Ledger | None,
) -> Cohort:
    """Return the cohort function of one part: one lazy block of readings a client, windows are views of it."""
    channels, length = len(source.channels), end - begin
    labelled, measured = source.label is not None, sum(c.measured for c in source.channels)
    layout = Layout((length, channels), (length if labelled else 0,), dtype, torch.int64)

    def make(clients: I64) -> tuple[Tensor, Tensor]:
        values = np.empty((len(clients), length, channels), np.float32)
        labels = np.zeros((len(clients), *layout.target_shape), np.int64)
        count = max(_TOGETHER // (length * channels), 1)
        for first in range(0, len(clients), count):
            rows = slice(first, first + count)
            values[rows] = source.read(clients[rows], begin, end)
            block = _block(source, clients[rows], begin, values[rows])
            counts, effects = corrupt_in_place(block, faults, seed=seed, world=world)
            labels[rows], wrong, more = _labels(source, block, windows, faults, seed)
            if ledger is not None:
                shares = {n: found / (length * measured) for n, found in counts.items()}
                shares |= {n: mask.mean(axis=1) for n, mask in wrong.items()}
                ledger.note_shares(clients[rows], shares, effects | more)
            standardise(values[rows], source.channels)
        return torch.from_numpy(values).to(dtype), torch.from_numpy(labels)

    blocks = lazy_cohort(make, np.ones(source.num_clients, np.int32), layout)
    count = len(windows.starts)

    def cohort(clients: I64) -> CohortData:
        data = blocks(clients)
        rows = (data.rows[:, None] * length + windows.starts).reshape(-1)
        flat = data.features.view(-1, channels)
        if not len(rows):
            return CohortData(flat[:0, None], flat[:0], rows, np.zeros(len(clients) + 1, np.int64))
        features = flat.unfold(0, source.window, 1).transpose(1, 2)
        targets = data.targets.view(-1) if labelled else flat[source.window :, 0].unfold(0, source.horizon, 1)
        return CohortData(features, targets, rows, np.arange(len(clients) + 1, dtype=np.int64) * count)

    return cohort


def spoilt(
    source: SeriesSource,
    clients: I64,
    begin: int,
    end: int,
    windows: Windows,
    seed: int,
    world: World | None,
    faults: Faults,
) -> tuple[F32, I64, dict[str, Bool], dict[str, F64]]:
    """Return readings (K, T, C) with their faults, labels (K, T) by window start, and masks and effects by fault."""
    block = _block(source, clients, begin, source.read(clients, begin, end))
    values, masks, effects = corrupt(block, faults, seed=seed, world=world)
    labels, wrong, more = _labels(source, replace(block, values=values), windows, faults, seed)
    return values, labels, masks | wrong, effects | more


def _block(source: SeriesSource, clients: I64, begin: int, values: F32) -> Block:
    """Return readings from step `begin` on as faults see them."""
    steps = np.arange(begin, begin + values.shape[1]) * source.step_hours
    return Block(
        values=values,
        lengths=np.full(len(clients), values.shape[1]),
        clients=clients,
        hours=np.broadcast_to(steps, values.shape[:2]),
        district=source.places(clients).district if source.places is not None else np.zeros(len(clients), np.int64),
        channels=source.channels,
        first=begin,
        districts=source.districts,
    )


def _labels(
    source: SeriesSource, block: Block, windows: Windows, faults: Faults, seed: int
) -> tuple[I64, dict[str, Bool], dict[str, F64]]:
    """Return labels (K, T) by window start of readings in their units, and what faults of labels did to them."""
    clients, values = block.clients, block.values
    labels = np.zeros((len(clients), values.shape[1] if source.label is not None else 0), np.int64)
    if source.label is None or not len(windows.starts):
        return labels, {}, {}
    ahead = windows.starts[:, None] + source.window + np.arange(source.horizon)
    made = source.label(values[:, :, 0][:, ahead])
    flat, found, effects = corrupt_labels(
        made.reshape(-1),
        np.arange(len(clients) + 1) * made.shape[1],
        clients,
        source.outputs,
        faults,
        seed=seed,
        district=block.district,
        districts=source.districts,
        hours=np.tile(_hours(source, block.first, windows), len(clients)),
    )
    labels[:, windows.starts] = flat.reshape(made.shape)
    return labels, {n: m.reshape(made.shape) for n, m in found.items()}, effects


def _central(
    source: SeriesSource, begin: int, end: int, windows: Windows, dtype: torch.dtype, seed: int
) -> tuple[Examples | None, I64 | None, F64 | None]:
    """Return examples of some sites, whose they are, and their hours."""
    if not len(windows.starts):
        return None, None, None
    key = streams.keys(seed, "central sites")
    sites = streams.choose(key, source.num_clients, min(source.num_clients, CENTRAL_SITES))
    count = min(len(windows.starts), max(1, CENTRAL_EXAMPLES // len(sites)))
    some = streams.choose(streams.keys(seed, "central windows"), len(windows.starts), count)  # at no fixed time of day
    kept = Windows(windows.starts[some], windows.length)
    data = _cohort(source, begin, end, kept, dtype, seed, None, {}, None)(sites)
    rows = torch.from_numpy(data.rows)
    owners = np.repeat(sites, data.sizes)
    examples = Examples(data.features[rows].contiguous(), data.targets[rows].contiguous())
    return examples, owners, np.tile(_hours(source, begin, kept), len(sites))


def _hours(source: SeriesSource, begin: int, windows: Windows) -> F64:
    """Return the hour of each window's last input."""
    return np.asarray((begin + windows.starts + source.window - 1) * source.step_hours, np.float64)


def _masks(
    source: SeriesSource, end: int, windows: Windows, seed: int, world: World | None, faults: Faults
) -> Callable[[I64], dict[str, list[Array]]]:
    def masks(clients: I64) -> dict[str, list[Array]]:
        found = spoilt(source, clients, 0, end, windows, seed, world, faults)[2]
        return {name: list(mask) for name, mask in found.items()}

    return masks
