"""Populations of sensors: series cut into windows as views, made on demand, with faults in the training part only.

Readings are standardised by their channels' nominal mean and deviation, which do not depend on the data, so errors with
and without faults have the same scale. Central and held-out examples are later in time and have no faults.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from clients.city.source_types import SeriesSource
from clients.core import streams
from clients.core.arrays import F64, I64, Bool
from clients.core.errors import DataError
from clients.core.examples import Cohort, CohortData, Examples
from clients.core.on_demand import ExampleLayout, Made, on_demand_cohort
from clients.core.population import ClientData, DataHistory, Population
from clients.core.population_parts import (
    CentralData,
    CentralExamples,
    ExampleSpec,
    FederationFacts,
    ForecastSpec,
    RawSeries,
)
from clients.core.ragged import label_counts_of
from clients.faults.apply import corrupt_in_place
from clients.faults.counts import fault_counts
from clients.faults.options import Faults
from clients.federation.scaling import standardise
from clients.federation.series_readings import SeriesSpan, faulty_readings
from clients.world.world import World

MOST_CENTRAL = 5000
"""The most central validation or test examples: the same windows of each site, chosen by seed."""
CENTRAL_SITES = 200
"""The most sites that they come from, chosen by seed."""
_TOGETHER = 1 << 20  # readings that are made, changed and standardised at once: they stay in the cache


def series_population(
    source: SeriesSource,
    faults: Faults,
    *,
    seed: int,
    world: World | None = None,
    dtype: torch.dtype = torch.float32,
) -> Population:
    """Make a population of series. A client's readings are made on demand.

    Args:
        source: the sensors' readings.
        faults: the active faults, by name; label faults need `source.label`.
        seed: root seed.
        world: the city, for faults that depend on its districts and storms.
        dtype: of features and forecasts.

    Returns:
        The population: features [n, window, C] standardised, targets [n, horizon] of channel 0 standardised, or labels.

    Raises:
        DataError: a part has no room for one window.
    """
    starts = (0, *source.ends)
    train, validation, test = (SeriesSpan.of(source, *span) for span in zip(starts, source.ends, strict=False))
    if not len(train.starts):
        raise DataError(
            "window",
            f"{source.window} steps and a horizon of {source.horizon} do not fit in {source.ends[0]} training steps",
            fix="Take a shorter window or more days.",
        )
    cohort = _Maker(train, dtype, seed, world, faults).cohort()
    held_out = _Maker(test, dtype, seed).cohort() if len(test.starts) else None
    hours, held_out_hours, held_out_steps = train.hours(), test.hours(), test.steps()
    labelled = source.label is not None
    return Population(
        spec=ExampleSpec(
            task="classification" if labelled else "regression",
            feature_shape=(source.window, len(source.channels)),
            outputs=source.outputs if labelled else source.horizon,
            channels=source.channels,
            forecast=None if labelled else _forecast_spec(source),
        ),
        federation=FederationFacts(
            name=source.name,
            sizes=np.full(source.num_clients, len(train.starts), np.int32),
            client_name=source.client_name,
            places=source.places,
            districts=source.districts,
            training_ends=source.ends[0] * source.step_hours,
            record=dict(source.facts),
        ),
        clients=ClientData(
            cohort=cohort,
            held_out=held_out,
            label_counts=label_counts_of(cohort, source.outputs) if labelled else None,
            hours=lambda clients: np.tile(hours, len(clients)),
            held_out_hours=lambda clients: np.tile(held_out_hours, len(clients)),
            held_out_steps=None if labelled else lambda clients: np.tile(held_out_steps, len(clients)),
            held_out_latest=None if labelled or held_out is None else partial(_latest, held_out),
            series=partial(_raw_series, train, faults, seed, world),
        ),
        central=CentralData(validation=_central(validation, dtype, seed), test=_central(test, dtype, seed)),
        history=_history(train, faults, seed, world),
    )


def _forecast_spec(source: SeriesSource) -> ForecastSpec:
    """Return what the forecasts of a source are: channel 0, in its nominal deviations."""
    channel = source.channels[0]

    def scale(clients: I64) -> tuple[F64, F64]:
        return np.full(len(clients), channel.mean), np.full(len(clients), channel.deviation)

    return ForecastSpec(
        quantity=channel.name,
        unit=channel.unit,
        scaled_by="nominal",
        scale=scale,
        stride=source.stride,
        step_hours=source.step_hours,
    )


def _latest(windows: Cohort, clients: I64) -> Tensor:
    """Return the last reading of channel 0 in each window of some clients, (M,)."""
    data = windows(clients)
    return data.features[torch.from_numpy(data.rows), -1, 0]


def _raw_series(train: SeriesSpan, faults: Faults, seed: int, world: World | None, client: int) -> RawSeries:
    """Return a client's readings of channel 0, with faults in the training part as the clients have them."""
    source, one = train.source, np.array([client], np.int64)
    values = source.read(one, 0, source.ends[-1])[0, :, 0].astype(np.float64)
    if faults:
        values[: train.end] = faulty_readings(train, one, faults, seed=seed, world=world)[0][0, :, 0]
    channel, count = source.channels[0], len(values)
    hours = np.asarray(np.arange(count) * source.step_hours, np.float64)
    return RawSeries(channel.name, channel.unit, values, np.zeros(count, np.bool_), source.ends, hours)


def _history(train: SeriesSpan, faults: Faults, seed: int, world: World | None) -> DataHistory:
    def masks(clients: I64) -> dict[str, list[Bool]]:
        _, found = faulty_readings(train, clients, faults, seed=seed, world=world)
        return {name: list(mask) for name, mask in found.items()}

    return DataHistory(faults=tuple(faults), masks=masks if faults else None, ground_truth=train.source.ground_truth)


@dataclass(frozen=True)
class _Maker:
    """Makes the readings of clients in a span: one block a client; windows are views of it."""

    span: SeriesSpan
    dtype: torch.dtype
    seed: int
    world: World | None = None
    faults: Faults = field(default_factory=dict)

    def cohort(self) -> Cohort:
        """Return the cohort function of the span's windows."""
        span, source = self.span, self.span.source
        channels, labelled = len(source.channels), source.label is not None
        length, count = span.length, len(span.starts)
        layout = ExampleLayout((length, channels), (length if labelled else 0,), self.dtype, torch.int64)
        sizes = np.ones(source.num_clients, np.int32)
        blocks = on_demand_cohort(self.make, sizes, layout, faults=tuple(self.faults))

        def cohort(clients: I64) -> CohortData:
            data = blocks(clients)
            rows = (data.rows[:, None] * length + span.starts).reshape(-1)
            flat = data.features.view(-1, channels)
            offsets = np.arange(len(clients) + 1, dtype=np.int64) * count
            if not len(rows):
                none = np.zeros(len(clients) + 1, np.int64)
                return CohortData(flat[:0, None], flat[:0], rows, none, data.fault_counts)
            features = flat.unfold(0, source.window, 1).transpose(1, 2)
            targets = data.targets.view(-1) if labelled else flat[source.window :, 0].unfold(0, source.horizon, 1)
            return CohortData(features, targets, rows, offsets, data.fault_counts)

        return cohort

    def make(self, clients: I64) -> Made:
        """Make the readings and labels of some clients, a few clients at a time."""
        span, source = self.span, self.span.source
        length, channels = span.length, len(source.channels)
        readings = length * sum(c.measured for c in source.channels)
        values = np.empty((len(clients), length, channels), np.float32)
        labels = np.zeros((len(clients), length if source.label is not None else 0), np.int64)
        changed = {name: np.zeros(len(clients)) for name in self.faults}
        effects = {name: np.zeros(len(clients)) for name in self.faults}
        count = max(_TOGETHER // (length * channels), 1)
        for first in range(0, len(clients), count):
            few = slice(first, first + count)
            values[few] = source.read(clients[few], span.begin, span.end)
            block = span.block(clients[few], values[few])
            counts, of_readings = corrupt_in_place(block, self.faults, seed=self.seed, world=self.world)
            labels[few], wrong, of_labels = span.labels(block, self.faults, self.seed)
            for name, found in counts.items():
                changed[name][few] = found / readings
            for name, mask in wrong.items():
                changed[name][few] = mask.mean(axis=1)
            for name, effect in (of_readings | of_labels).items():
                effects[name][few] = effect
            standardise(values[few], source.channels)
        counted = fault_counts(self.faults, changed, effects) if self.faults else None
        return Made(torch.from_numpy(values).to(self.dtype), torch.from_numpy(labels), counted)


def _central(span: SeriesSpan, dtype: torch.dtype, seed: int) -> CentralExamples | None:
    """Return examples of some sites; None if no window fits."""
    if not len(span.starts):
        return None
    sites = streams.choose(
        streams.keys(seed, "central sites"), span.source.num_clients, min(span.source.num_clients, CENTRAL_SITES)
    )
    count = min(len(span.starts), max(1, MOST_CENTRAL // len(sites)))
    some = streams.choose(streams.keys(seed, "central windows"), len(span.starts), count)  # at no fixed time of day
    kept = replace(span, starts=span.starts[some])
    data = _Maker(kept, dtype, seed).cohort()(sites)
    rows = torch.from_numpy(data.rows)
    examples = Examples(data.features[rows].contiguous(), data.targets[rows].contiguous())
    latest = None if span.source.label is not None else examples.features[:, -1, 0].clone()
    return CentralExamples(examples, np.repeat(sites, data.sizes), np.tile(kept.hours(), len(sites)), latest)
