"""Histograms with fixed buckets of one value for each client: counted each round, added up over a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate

import numpy as np

from clients.core.arrays import Array

SIZES = (1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
COSINES = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
EDGES: Mapping[str, tuple[float, ...]] = {"client_drift": SIZES, "distance": SIZES, "cosine": COSINES}
"""Measure -> the upper edges of its buckets. A value on an edge counts below it; the last bucket has no edge."""

INFINITE = "+Inf"
_ARRAYS = {name: np.array(edges) for name, edges in EDGES.items()}


def counted(columns: Mapping[str, Array | None]) -> dict[str, dict[str, int]]:
    """Count one value for each client into buckets, without empty ones (about 10 us for each measure).

    Args:
        columns: name -> values (K,), or None; names without buckets are ignored.

    Returns:
        Measure -> upper edge (`+Inf` for the last, which also counts nan) -> clients in that bucket, not cumulative.

    Example:
        >>> counted({"client_drift": np.array([0.02, 0.03, 0.2, 400.0]), "client": np.array([1, 2, 3, 4])})
        {'client_drift': {'0.03': 2, '0.3': 1, '+Inf': 1}}
    """
    found = {}
    for name, edges in _ARRAYS.items():
        values = columns.get(name)
        if values is not None:
            counts = np.bincount(np.searchsorted(edges, values), minlength=1).tolist()
            found[name] = {word: count for word, count in zip(_words(EDGES[name]), counts, strict=False) if count}
    return found


@dataclass
class Histogram:
    """Counts of one measure, added up over rounds.

    Attributes:
        counts: clients in each bucket, not cumulative; the bucket without an edge is last.
        total: sum of all values.
    """

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.edges) + 1)

    def plus(self, counts: Mapping[str, int], mean: float) -> Histogram:
        """Return this histogram with a round's counts added.

        Args:
            counts: the result of `counted`; a count at an unknown edge goes to the next higher edge.
            mean: the mean of the round's values.

        Example:
            >>> Histogram((1.0, 2.0)).plus({"1.0": 3, "+Inf": 1}, mean=1.5)
            Histogram(edges=(1.0, 2.0), counts=[3, 0, 1], total=6.0)
        """
        new = list(self.counts)
        for word, count in counts.items():
            edge = math.inf if word == INFINITE else float(word)
            new[next((i for i, ours in enumerate(self.edges) if edge <= ours), len(self.edges))] += count
        return Histogram(self.edges, new, self.total + mean * sum(counts.values()))

    def cumulative(self) -> list[tuple[str, int]]:
        """Return (upper edge, clients at or below it) as Prometheus defines it; the last edge is `+Inf`."""
        return list(zip(_words(self.edges), accumulate(self.counts), strict=True))


@cache
def _words(edges: tuple[float, ...]) -> list[str]:
    return [*map(repr, edges), INFINITE]
