"""The cohort of a round: a pure function of (seed, round)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I32, I64
from clients.core.errors import UserError
from server.algorithms.options import AlgorithmOptions


@dataclass(frozen=True)
class Cohort:
    """The clients of a round, increasing, and how often each was drawn (1 without replacement); both int64 (K,)."""

    clients: I64
    draws: I64


class CohortSampler:
    """Draws cohorts.

    Args:
        options: cohort size and sampling.
        sizes: training examples of each client, (N,); empty clients are never drawn.
        seed: root seed.
        shares: weights of the clients in the objective (N,), with which `by_examples` draws; None for their examples.

    Raises:
        UserError: the cohort is larger than the clients that have data.
    """

    def __init__(self, options: AlgorithmOptions, sizes: I32, seed: int, *, shares: F64 | None = None) -> None:
        busy = int(np.count_nonzero(sizes))
        self.size = busy if options.cohort is None else options.cohort
        if options.sampling == "uniform" and self.size > busy:
            empty = len(sizes) - busy
            raise UserError(
                "algorithm.cohort",
                f"must be at most the {busy} clients that have data"
                f"{f' ({empty} of {len(sizes)} are empty)' if empty else ''}, got {self.size}",
                fix="Set a smaller cohort, or more clients in [partition] or [data].",
            )
        self._by_examples = options.sampling == "by_examples"
        self._seed, self._sizes = seed, sizes
        self._busy = None if busy == len(sizes) else np.flatnonzero(sizes).astype(np.int64)
        by_weight = np.cumsum(sizes, dtype=np.int64) if shares is None else np.cumsum(shares * (sizes > 0))
        self._ends = by_weight if self._by_examples else None
        self._last: tuple[int, Cohort] | None = None

    def draw(self, round_index: int) -> Cohort:
        """Return the cohort of a round (from 1)."""
        if self._last is None or self._last[0] != round_index:  # a round asks twice
            self._last = round_index, self._drawn(round_index)
        return self._last[1]

    def _drawn(self, round_index: int) -> Cohort:
        key = streams.keys(self._seed, "cohort", round_index)
        if self._ends is not None:
            points = streams.uniforms(key, self.size) * self._ends[-1]
            last = int(np.searchsorted(self._ends, self._ends[-1]))  # a sum of real weights may round up to a point
            drawn = np.minimum(np.searchsorted(self._ends, points, side="right").astype(np.int64), last)
            clients, draws = np.unique(drawn, return_counts=True)
            return Cohort(clients, draws.astype(np.int64))
        population = len(self._sizes) if self._busy is None else len(self._busy)
        chosen = streams.choose(key, population, self.size)
        clients = chosen if self._busy is None else self._busy[chosen]
        return Cohort(clients, np.ones(len(clients), np.int64))
