"""What a federation's data look like to everything above: populations, cohorts' data, examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I32, I64, Bool
from clients.core.channels import Channel

Task = Literal["classification", "regression", "objective"]
"""classification: int64 targets [n]; regression: float targets [n, outputs]; objective: the model returns its loss."""


@dataclass(frozen=True)
class Examples:
    """Examples that belong together.

    Attributes:
        features: tensor [n, *feature_shape], float32 (float64 in theory tests).
        targets: int64 [n] for classification, float [n, outputs] for regression, ignored for an objective.
    """

    features: Tensor
    targets: Tensor

    def __len__(self) -> int:
        """Return the number of examples."""
        return int(self.features.shape[0])


@dataclass(frozen=True)
class CohortData:
    """The examples of some clients, without copying what is already in memory.

    Client j of the K asked for owns `rows[offsets[j]:offsets[j + 1]]`, indices into `features` and
    `targets`. The order of a client's rows never depends on who else was asked for.
    """

    features: Tensor
    targets: Tensor
    rows: I64
    offsets: I64

    @property
    def sizes(self) -> I64:
        """Number of examples of each client asked for, shape (K,)."""
        return np.diff(self.offsets)

    def client(self, j: int) -> Examples:
        """Return client j's examples (a copy)."""
        index = torch.from_numpy(self.rows[self.offsets[j] : self.offsets[j + 1]])
        return Examples(self.features[index], self.targets[index])


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


@dataclass(frozen=True)
class Realised:
    """What faults did to the training data of some clients.

    Attributes:
        changed: by fault, the share of each client's readings (or labels) that it changed, float64 (K,).
        effect: by fault, its own measure of how much, float64 (K,); 0 where nothing was changed.
    """

    changed: dict[str, F64]
    effect: dict[str, F64]


@dataclass(frozen=True, kw_only=True)
class Population:
    """All clients of an experiment and the central held-out examples.

    Attributes:
        name: the data's name, for people.
        task: see `Task`.
        sizes: training examples of each client, int32 (N,). A client may be empty: it is never asked to train.
        feature_shape: shape of one example's features.
        outputs: classes, or width of the regression target.
        cohort: clients (int64 array (K,)) -> their training data.
        cohort_test: the same for examples the clients hold out, or None where they hold out none.
        validation: central examples that criteria may look at, or None.
        test: central examples used only at the end, or None.
        label_counts: clients -> (K, classes) counts of training labels; None unless classification.
        client_name: client index -> name for people.
        facts: what was done to make it, for the record (scalars and strings).
        validation_clients: which client each validation example comes from, int64 (n,); None where they have no owner.
        test_clients: the same of the test examples.
        validation_hours: hour of the world's clock of each validation example, float64 (n,); None where they have none.
        test_hours: the same of the test examples.
        channels: what the last axis of the features measures, in deviations from the channel's mean; empty where
            nobody said.
        places: clients -> where they are; None where they are nowhere.
        districts: names of the districts that places number.
        hours: clients -> hour of the world's clock of each training example, float64 (M,), client after client in the
            order of their rows; None where examples have no time.
        held_out_hours: the same of the examples in `cohort_test`.
        training_ends: hour of the world's clock at which the training data end; None: in the hour of the last example.
        realised: clients -> what faults did to their data; None where there are no faults.
        masks: clients -> by fault, a bool array a client: what it changed. Readings [T, C] (training steps x channels)
            of a series, [n, *feature_shape] of examples, [n] of labels; None where there are no faults.
        series_faults: (this population, faults by name, seed, world) -> the population with faults in its series, for
            data that hold series of which their examples are windows; None: faults go into examples one by one.
        drift_levels: clients -> by concept drift, how far it has come for each now, float64 (K,), 0 to 1; None where
            there are no concept drifts.
        phase: round -> the population as it is in that round, for data that change over rounds. Sizes never change.
        happenings: round -> events (`kind`, `message` and more) of what changes in the data as that round starts.
        reconstructs: whether the targets are the features, flattened (an autoencoder's): what is done to the features
            is done to the targets.
        truth: what the source of generated data knows of its clients and no model sees, for the record; None: nothing.
        optimum: minimiser of the weighted mean objective where it is known, flat [P].
        optimal_value: its value.
    """

    name: str
    task: Task
    sizes: I32
    feature_shape: tuple[int, ...]
    outputs: int
    cohort: Callable[[I64], CohortData]
    cohort_test: Callable[[I64], CohortData] | None = None
    validation: Examples | None = None
    test: Examples | None = None
    label_counts: Callable[[I64], I64] | None = None
    client_name: Callable[[int], str] = str
    facts: dict[str, str | int | float] = field(default_factory=dict)
    validation_clients: I64 | None = None
    test_clients: I64 | None = None
    validation_hours: F64 | None = None
    test_hours: F64 | None = None
    channels: tuple[Channel, ...] = ()
    places: Callable[[I64], Places] | None = None
    districts: tuple[str, ...] = ()
    hours: Callable[[I64], F64] | None = None
    held_out_hours: Callable[[I64], F64] | None = None
    training_ends: float | None = None
    realised: Callable[[I64], Realised] | None = None
    masks: Callable[[I64], dict[str, list[Bool]]] | None = None
    series_faults: Callable[..., Population] | None = None
    drift_levels: Callable[[I64], dict[str, F64]] | None = None
    phase: Callable[[int], Population] | None = None
    happenings: Callable[[int], Sequence[dict[str, Any]]] | None = None
    reconstructs: bool = False
    truth: Callable[[], dict[str, Any]] | None = None
    optimum: Tensor | None = None
    optimal_value: float | None = None

    @property
    def num_clients(self) -> int:
        """Number of clients N."""
        return len(self.sizes)

    @property
    def num_examples(self) -> int:
        """Training examples in all."""
        return int(self.sizes.sum(dtype=np.int64))

    def during(self, round_index: int) -> Population:
        """Return the population as it is in a round (round 0: before the first)."""
        return self if self.phase is None else self.phase(round_index)
