"""Examples, the data of a cohort, and what faults changed in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64

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
class FaultCounts:
    """What faults changed in the training data of K clients.

    Attributes:
        changed: by fault, the share of each client's readings (or labels) that it changed, float64 (K,).
        effect: by fault, how much it changed, in the fault's own measure, float64 (K,); 0 where it changed nothing.
    """

    changed: Mapping[str, F64]
    effect: Mapping[str, F64]

    def take(self, positions: I64) -> FaultCounts:
        """Return the counts of the clients at some positions.

        Example:
            >>> counts = FaultCounts({"noise": np.array([0.5, 0.0])}, {"noise": np.array([2.0, 0.0])})
            >>> counts.take(np.array([1, 0])).changed["noise"].tolist()
            [0.0, 0.5]
        """
        return FaultCounts(
            {name: values[positions] for name, values in self.changed.items()},
            {name: values[positions] for name, values in self.effect.items()},
        )


def join_fault_counts(parts: Sequence[FaultCounts | None]) -> FaultCounts | None:
    """Join the counts of several parts, part after part; None if any part has none, or has those of other faults."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts) or any(part.changed.keys() != known[0].changed.keys() for part in known):
        return None
    return FaultCounts(
        {name: np.concatenate([part.changed[name] for part in known]) for name in known[0].changed},
        {name: np.concatenate([part.effect[name] for part in known]) for name in known[0].effect},
    )


@dataclass(frozen=True)
class CohortData:
    """The examples of K clients. Examples that are already in memory are not copied.

    Client j owns `rows[offsets[j]:offsets[j + 1]]`. The order of a client's rows never depends on the other clients.

    Attributes:
        features: tensor [n, *feature_shape] that holds the examples, and possibly others.
        targets: the same of the targets.
        rows: indices into `features` and `targets`, client after client, int64 (M,).
        offsets: where each client's rows start, and where the last one's end, int64 (K + 1,).
        fault_counts: what faults changed in the examples, for the K clients; None where there are no faults.
    """

    features: Tensor
    targets: Tensor
    rows: I64
    offsets: I64
    fault_counts: FaultCounts | None = None

    @property
    def sizes(self) -> I64:
        """Number of examples of each client, shape (K,)."""
        return np.diff(self.offsets)

    def client(self, j: int) -> Examples:
        """Return client j's examples (a copy)."""
        index = torch.from_numpy(self.rows[self.offsets[j] : self.offsets[j + 1]])
        return Examples(self.features[index], self.targets[index])

    def client_fault_counts(self, j: int) -> FaultCounts | None:
        """Return what faults changed in client j's examples; None where there are no faults."""
        return None if self.fault_counts is None else self.fault_counts.take(np.array([j], np.int64))


Cohort = Callable[[I64], CohortData]
"""Clients (K,) -> their data."""
