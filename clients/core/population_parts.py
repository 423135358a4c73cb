"""The parts of a population that hold facts: about one example, the federation, the central data, a known minimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from clients.core.arrays import F64, I32, I64, Bool
from clients.core.channels import Channel
from clients.core.examples import Examples, Task

ScaledBy = Literal["client", "all clients", "nominal", "none"]
"""Whose deviation divided the readings: each client's, that of all clients together, the channel's; or no one's."""

CentralPart = Literal["validation", "test"]
"""Which of the server's examples; see `CentralData`."""


@dataclass(frozen=True, kw_only=True)
class ForecastSpec:
    """What forecasts are: the readings of one quantity in the steps after a window, scaled.

    Attributes:
        quantity: its name, such as "PM2.5"; empty where clients measure different ones.
        unit: its unit, such as "ug/m3"; empty if unknown.
        scaled_by: see `ScaledBy`.
        scale: clients int64 (K,) -> mean and deviation of each, float64 (K,): a reading is mean + deviation x target.
        stride: steps from one window to the next.
        step_hours: hours from one step to the next; None where steps have only an order.
        origin: the date of hour 0, such as "2013-03-01"; empty if there is none.
    """

    quantity: str
    unit: str
    scaled_by: ScaledBy
    scale: Callable[[I64], tuple[F64, F64]]
    stride: int = 1
    step_hours: float | None = None
    origin: str = ""


@dataclass(frozen=True)
class RawSeries:
    """One client's readings of the forecast quantity over all its time.

    Attributes:
        quantity: its name; empty if it is the client's own.
        unit: its unit; empty if unknown.
        values: in their unit, float64 (T,); NaN where a reading is missing.
        filled: whether a value was missing and has been filled, (T,).
        ends: the steps at which the training, validation and test parts end.
        hours: hour of each reading, (T,); None where steps have only an order.
    """

    quantity: str
    unit: str
    values: F64
    filled: Bool
    ends: tuple[int, int, int]
    hours: F64 | None = None


@dataclass(frozen=True, kw_only=True)
class ExampleSpec:
    """What one example is.

    Attributes:
        task: see `Task`.
        feature_shape: shape of its features.
        outputs: classes, or width of the regression target.
        channels: what the last axis of the features measures, in deviations from the channel's mean; empty if unknown.
        tokens: how many ids of tokens (whole numbers from 0) the features may be; 0 where they are real numbers.
        reconstructs: whether the targets are the flattened features (an autoencoder's); if so, a change of the features
            changes the targets too.
        generates: whether a model is to draw such examples. The task is then an objective, and the targets are labels,
            from 0 to `outputs` - 1, which no model is given: partitions and measures of samples use them.
    """

    task: Task
    feature_shape: tuple[int, ...]
    outputs: int
    channels: tuple[Channel, ...] = ()
    tokens: int = 0
    reconstructs: bool = False
    generates: bool = False
    forecast: ForecastSpec | None = None


@dataclass(frozen=True)
class Places:
    """Where some clients are in the world.

    Attributes:
        x: kilometres east of the centre, float64 (K,).
        y: kilometres north of it.
        district: index of each client's district, int64 (K,).
    """

    x: F64
    y: F64
    district: I64


@dataclass(frozen=True, kw_only=True)
class FederationFacts:
    """Facts about the federation.

    Attributes:
        name: the data's name, for people.
        sizes: training examples of each client, int32 (N,), the same in every round. An empty client never trains.
        shares: weight p_k of each client in the federation's objective, float64 (N,), which sum to 1; None where it is
            the client's share of all training examples.
        client_name: client -> name for people.
        places: clients -> where they are; None where they have no places.
        districts: names of the districts; `Places.district` is an index into them.
        training_ends: hour of the world's clock at which the training data end; None for the hour of the last example.
        record: how the data were made, for the record.
        notices: sentences on what was guessed, skipped, filled, renamed or dropped when the data were read; a run's
            header and `fedscape data` print them.
    """

    name: str
    sizes: I32
    shares: F64 | None = None
    client_name: Callable[[int], str] = str
    places: Callable[[I64], Places] | None = None
    districts: tuple[str, ...] = ()
    training_ends: float | None = None
    record: dict[str, str | int | float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def with_data(self) -> int:
        """Clients that have training examples: the N of algorithms. The others never train, so they do not count."""
        return int(np.count_nonzero(self.sizes))

    def weights_of(self, clients: I64, num_examples: I64) -> F64:
        """Return the relative weights of some clients in the objective: p_k where given, else their examples."""
        weights = num_examples if self.shares is None else self.shares[clients]
        return np.asarray(weights, np.float64)


@dataclass(frozen=True)
class CentralExamples:
    """Examples that the server holds.

    Attributes:
        examples: n of them.
        owners: the client that each example comes from, int64 (n,); None where they come from no client.
        hours: hour of the world's clock of each example, float64 (n,); None where they have no time.
        latest: of forecasts, the quantity's reading at the end of each window, scaled as the targets are, (n,); None
            where it is unknown.
        anomalous: which examples are anomalies, bool (n,), where the data reconstruct their features and know it; the
            model is not told. None elsewhere.
    """

    examples: Examples
    owners: I64 | None = None
    hours: F64 | None = None
    latest: Tensor | None = None
    anomalous: Bool | None = None


@dataclass(frozen=True, kw_only=True)
class CentralData:
    """What the server holds.

    Attributes:
        validation: examples that criteria may look at, or None.
        test: examples that decide nothing in a run, or None: they show how good its model is, at the end and, with
            `evaluation.test_every`, every few rounds.
    """

    validation: CentralExamples | None = None
    test: CentralExamples | None = None


@dataclass(frozen=True)
class KnownObjective:
    """The minimum of the weighted mean objective, where it is known.

    Attributes:
        optimum: where it is, flat [P]; or [M, P] where M points have the same value.
        optimal_value: its value.
    """

    optimum: Tensor
    optimal_value: float
