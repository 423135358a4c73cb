"""Populations of a `WindowSource`: examples with time and place, made on demand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clients.city.source_types import Part, WindowSource
from clients.core import streams
from clients.core.arrays import I32, I64
from clients.core.examples import Cohort, Examples
from clients.core.on_demand import ExampleLayout, Made, on_demand_cohort
from clients.core.population import ClientData, DataHistory, Population
from clients.core.population_parts import CentralData, CentralExamples, ExampleSpec, FederationFacts
from clients.core.ragged import few_clients, label_counts_of, offsets_of
from clients.federation.scaling import standardise

MOST_CENTRAL = 5000
"""Central examples come from just enough clients to hold this many, chosen by seed."""
_MADE = 1 << 20  # numbers made and standardised at once: they stay in the cache


def window_population(source: WindowSource, *, seed: int, dtype: torch.dtype = torch.float32) -> Population:
    """Make a population of a source's examples, standardised by their channels' nominal mean and deviation.

    Args:
        source: the source of the examples.
        seed: root seed; chooses the clients whose held-out examples are central.
        dtype: of the features, and of targets that are numbers.
    """
    labelled = source.task == "classification"
    target_shape = () if labelled else (source.outputs,)
    layout = ExampleLayout(source.feature_shape, target_shape, dtype, torch.int64 if labelled else dtype)

    def cohort(part: Part, sizes: I32) -> Cohort:
        def make(clients: I64) -> Made:
            return Made(*_made(source, layout, clients, part, sizes))

        return on_demand_cohort(make, sizes, layout)

    def central(part: Part, sizes: I32) -> CentralExamples | None:
        owners = central_clients(sizes, seed)
        if not len(owners):
            return None
        examples = Examples(*_made(source, layout, owners, part, sizes))
        return CentralExamples(
            examples,
            np.repeat(owners, sizes[owners]),
            None if source.hours is None else source.hours(owners, part),
            anomalous=None if source.anomalous is None else source.anomalous(owners, part),
        )

    hours = source.hours
    train = cohort("train", source.sizes)
    return Population(
        spec=ExampleSpec(
            task=source.task,
            feature_shape=source.feature_shape,
            outputs=source.outputs,
            channels=source.channels,
            reconstructs=source.reconstructs,
        ),
        federation=FederationFacts(
            name=source.name,
            sizes=source.sizes,
            client_name=source.client_name,
            places=source.places,
            districts=source.districts,
            record=dict(source.facts),
        ),
        clients=ClientData(
            cohort=train,
            held_out=cohort("test", source.test_sizes) if source.test_sizes.any() else None,
            label_counts=label_counts_of(train, source.outputs) if labelled else None,
            hours=None if hours is None else lambda clients: hours(clients, "train"),
            held_out_hours=None if hours is None else lambda clients: hours(clients, "test"),
        ),
        central=CentralData(
            validation=central("validation", source.validation_sizes), test=central("test", source.test_sizes)
        ),
        history=DataHistory(ground_truth=source.ground_truth),
    )


def _made(source: WindowSource, layout: ExampleLayout, clients: I64, part: Part, sizes: I32) -> tuple[Tensor, Tensor]:
    """Make the examples of some clients, a few clients at a time."""
    own = sizes[clients].astype(np.int64)
    offsets = offsets_of(own)
    features = np.empty((int(offsets[-1]), *layout.feature_shape), np.float32)
    kind = np.int64 if layout.target_dtype == torch.int64 else np.float32
    targets = np.empty((len(features), *layout.target_shape), kind)
    for few in few_clients(own * int(np.prod(layout.feature_shape, dtype=np.int64)), _MADE):
        rows = slice(offsets[few.start], offsets[few.stop])
        features[rows], targets[rows] = source.make(clients[few], part)
        standardise(features[rows], source.channels)
    return torch.from_numpy(features).to(layout.dtype), torch.from_numpy(targets).to(layout.target_dtype)


def central_clients(sizes: I32, seed: int) -> I64:
    """Return the clients whose held-out examples are central, (K,), rising.

    The seed chooses just enough clients to hold `MOST_CENTRAL` examples.
    """
    some = np.flatnonzero(sizes)
    if not len(some):
        return some.astype(np.int64)
    enough = int(np.ceil(MOST_CENTRAL / max(1.0, float(sizes[some[:10_000]].mean()))))
    chosen = streams.choose(streams.keys(seed, "central clients"), len(some), min(len(some), enough))
    return some[chosen].astype(np.int64)
