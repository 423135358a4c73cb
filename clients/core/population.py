"""A population: all clients of an experiment, their data, and the central examples, in parts.

A source fills the fields that it knows. Later steps replace fields of one part:
`replace(population, clients=replace(population.clients, cohort=other))`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from clients.core.arrays import F64, I32, I64, Bool
from clients.core.errors import DataError
from clients.core.examples import Cohort, CohortData, Examples, FaultCounts, Task, join_fault_counts
from clients.core.population_parts import (
    CentralData,
    CentralExamples,
    CentralPart,
    ExampleSpec,
    FederationFacts,
    ForecastSpec,
    KnownObjective,
    Places,
    RawSeries,
)

__all__ = [
    "CentralData",
    "CentralExamples",
    "CentralPart",
    "ClientData",
    "CohortData",
    "DataHistory",
    "ExampleSpec",
    "Examples",
    "FaultCounts",
    "FederationFacts",
    "ForecastSpec",
    "KnownObjective",
    "Places",
    "Population",
    "RawSeries",
    "Task",
]

COUNTED_TOGETHER = 64
"""How many clients' data are made at once to count what faults changed in them."""


@dataclass(frozen=True, kw_only=True)
class ClientData:
    """What the clients hold. Each field is a function of some clients, int64 (K,).

    Attributes:
        cohort: their training data.
        held_out: the examples that they hold out; None where they hold out none.
        label_counts: counts of their training labels, int64 (K, classes); None where they have none.
        hours: hour of the world's clock of each training example, float64 (M,), client after client in the order of
            their rows; None where examples have no time.
        held_out_hours: the same for the examples in `held_out`.
        held_out_steps: of forecasts, the step at the end of each window in `held_out`, int64 (M,), counted from the
            start of the client's series; None where windows are in no order of time.
        held_out_latest: the quantity's reading at that step, scaled as the targets are, (M,).
        series: client -> its readings of the forecast quantity; None where examples are no windows of series.
        series_faults: (this population, faults by name, seed, world) -> the population with faults in the series that
            its examples are windows of; None where faults go into examples one by one.
        elsewhere: whether the data are on nodes of their own, so that no cohort can be made here.
    """

    cohort: Cohort
    held_out: Cohort | None = None
    label_counts: Callable[[I64], I64] | None = None
    hours: Callable[[I64], F64] | None = None
    held_out_hours: Callable[[I64], F64] | None = None
    held_out_steps: Callable[[I64], I64] | None = None
    held_out_latest: Callable[[I64], Tensor] | None = None
    series: Callable[[int], RawSeries] | None = None
    series_faults: Callable[..., Population] | None = None
    elsewhere: bool = False


@dataclass(frozen=True, kw_only=True)
class DataHistory:
    """What faults and concept drifts do to the data, and when.

    Attributes:
        faults: names of the active faults, in order; the `fault_counts` of cohorts have the same names.
        masks: clients -> by fault, one bool array a client that marks what the fault changed: readings [T, C] (training
            steps x channels) of a series, [n, *feature_shape] of examples, [n] of labels; None without faults.
        drift_levels: clients -> by concept drift, its present level for each client, float64 (K,), 0 to 1; None without
            drifts.
        schedule: round -> the population as it is in that round; None where the data do not change over rounds.
        events: round -> events (`kind`, `message` and more), one for each change in the data at its start.
        ground_truth: what the source of generated data knows about its clients and no model sees, for the record.
    """

    faults: tuple[str, ...] = ()
    masks: Callable[[I64], dict[str, list[Bool]]] | None = None
    drift_levels: Callable[[I64], dict[str, F64]] | None = None
    schedule: Callable[[int], Population] | None = None
    events: Callable[[int], Sequence[dict[str, Any]]] | None = None
    ground_truth: Callable[[], dict[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class Population:
    """All clients of an experiment and the central examples.

    The properties and methods below are for use from Python. Everything else is in the parts.

    Attributes:
        spec: what one example is.
        federation: facts about the federation.
        clients: what the clients hold.
        central: what the server holds.
        history: what faults and drifts do to the data, and when.
        objective: the known minimum; None where it is unknown.
    """

    spec: ExampleSpec
    federation: FederationFacts
    clients: ClientData
    central: CentralData = field(default_factory=CentralData)
    history: DataHistory = field(default_factory=DataHistory)
    objective: KnownObjective | None = None

    def __repr__(self) -> str:
        """Return name, clients and examples; the values may be many."""
        examples = f"{self.num_examples} training examples of shape {self.feature_shape}"
        return f"<Population {self.name!r}: {self.num_clients} clients, {examples}, {self.task}>"

    @property
    def name(self) -> str:
        """The data's name, for people."""
        return self.federation.name

    @property
    def task(self) -> Task:
        """The task; see `Task`."""
        return self.spec.task

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example's features."""
        return self.spec.feature_shape

    @property
    def outputs(self) -> int:
        """Classes, or width of the regression target."""
        return self.spec.outputs

    @property
    def sizes(self) -> I32:
        """Training examples of each client, int32 (N,)."""
        return self.federation.sizes

    @property
    def num_clients(self) -> int:
        """Number of clients N."""
        return len(self.sizes)

    @property
    def num_examples(self) -> int:
        """Training examples in all."""
        return int(self.sizes.sum(dtype=np.int64))

    @property
    def validation(self) -> Examples | None:
        """Central validation examples, or None."""
        return None if self.central.validation is None else self.central.validation.examples

    @property
    def test(self) -> Examples | None:
        """Central test examples, or None."""
        return None if self.central.test is None else self.central.test.examples

    def central_examples(self, part: CentralPart) -> Examples:
        """Return a part of the central examples, which the population must have."""
        found = self.validation if part == "validation" else self.test
        assert found is not None, f"the population has central {part} examples"
        return found

    def cohort(self, clients: I64) -> CohortData:
        """Return the training data of some clients, int64 (K,), with their `fault_counts`."""
        return self.clients.cohort(clients)

    def fault_counts(self, clients: I64) -> FaultCounts | None:
        """Return what faults changed in the training data of some clients; None where there are no faults.

        The counts are those of their cohorts, which are made `COUNTED_TOGETHER` clients at a time to save memory.
        """
        if not self.history.faults:
            return None
        blocks = range(0, max(1, len(clients)), COUNTED_TOGETHER)
        return join_fault_counts([self.cohort(clients[i : i + COUNTED_TOGETHER]).fault_counts for i in blocks])

    def during(self, round_index: int) -> Population:
        """Return the population as it is in a round (round 0 is before the first round)."""
        return self if self.history.schedule is None else self.history.schedule(round_index)

    def masks(self, clients: I64) -> dict[str, list[Bool]]:
        """Return, by fault, what the fault changed in each client's data: see `DataHistory`. Empty without faults."""
        return {} if self.history.masks is None else self.history.masks(clients)

    def places(self, clients: I64) -> Places:
        """Return where some clients are.

        Raises:
            DataError: they have no places.
        """
        if self.federation.places is None:
            raise DataError("world", "is missing, so the clients have no places", fix="Add a [world] section.")
        return self.federation.places(clients)
