"""Readings before they are cut into examples: the two forms of generated and recorded data.

A `SeriesSource` is one long series a site, in physical units, which is cut into windows for forecasts. A `WindowSource`
gives examples (windows of a signal, or vectors of features) with labels of their own. Both are made client by client
on demand; the data of a client depend on the seed and that client alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from clients.core.arrays import F32, F64, I32, I64, Array, Bool
from clients.core.channels import Channel
from clients.core.examples import Task
from clients.core.population_parts import Places

Part = Literal["train", "validation", "test"]
GroundTruth = Callable[[], dict[str, Any]]

MOST_LISTED = 1000
"""A source's ground truth lists at most this many clients or events, the first ones."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What both shapes share.

    Attributes:
        name: the data's name, for people.
        channels: C of them.
        places: clients -> where they are.
        districts: names of the world's districts.
        client_name: client -> name for people.
        facts: for the record.
        ground_truth: what a generated source knows of its clients and no model sees (damage, campaigns, incidents), for
            the record: plain values, of at most `MOST_LISTED` clients or events each.
    """

    name: str
    channels: tuple[Channel, ...]
    places: Callable[[I64], Places] | None = None
    districts: tuple[str, ...] = ()
    client_name: Callable[[int], str] = str
    facts: dict[str, str | int | float] = field(default_factory=dict)
    ground_truth: GroundTruth | None = None


@dataclass(frozen=True, kw_only=True)
class SeriesSource(Source):
    """Series of readings, one a client, of equal length and on one clock.

    Channel 0 is forecast, or labels are made from it.

    Attributes:
        num_clients: how many sites, N.
        step_hours: hours from one reading to the next.
        ends: where training, validation and test end, in steps; the parts are in order of time.
        read: (clients int64 (K,), start, stop) -> float32 (K, stop - start, C), the readings without faults, in the
            channels' units. A reading depends on (seed, client, its step) alone.
        window: past steps that a model sees.
        horizon: steps ahead; a forecast has all values from 1 to `horizon`.
        stride: steps from one window to the next; windows of a part start at multiples of it (counted from step 0).
        label: future readings of channel 0 (..., horizon) -> class (...), for classification; None for forecasts.
        outputs: classes; `horizon` without `label`.
    """

    num_clients: int
    step_hours: float
    ends: tuple[int, int, int]
    read: Callable[[I64, int, int], F32]
    window: int
    horizon: int
    stride: int = 1
    label: Callable[[Array], I64] | None = None
    outputs: int = 0


@dataclass(frozen=True, kw_only=True)
class WindowSource(Source):
    """Examples, each a window [W, C] of a signal or a vector [C], with targets of their own.

    Channels are the last axis of the features.

    Attributes:
        task: classification or regression (an autoencoder's targets are its flattened features).
        sizes: training examples of each client, int32 (N,).
        test_sizes: the same for each client's held-out part.
        feature_shape: (W, C) or (C,).
        outputs: classes, or width of the target.
        reconstructs: whether the targets are the standardised features, flattened.
        make: (clients, part) -> features float32 (M, *feature_shape) in the channels' units and targets (M,) int64 or
            (M, outputs) float32 of all these clients, one after the other; "validation" and "test" come later in time
            than "train".
        hours: (clients, part) -> hour of the world's clock of each example, float64 (M,), rising within a client; None
            where the examples have no time.
        anomalous: (clients, part) -> which examples are anomalies, bool (M,); None where nothing is reconstructed.
        validation_sizes: examples of each client in the central validation part, int32 (N,).
    """

    task: Task
    sizes: I32
    test_sizes: I32
    validation_sizes: I32
    feature_shape: tuple[int, ...]
    outputs: int
    make: Callable[[I64, Part], tuple[F32, Array]]
    hours: Callable[[I64, Part], F64] | None = None
    reconstructs: bool = False
    anomalous: Callable[[I64, Part], Bool] | None = None


AnySource = SeriesSource | WindowSource
