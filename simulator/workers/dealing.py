"""Deals blocks of clients to workers by their cost, which is learnt from measured times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64, I64

FORGETTING = 0.9
"""Weight of the earlier rounds beside the newest, in the fit of costs and in the speeds of workers."""


@dataclass(frozen=True)
class Block:
    """Tiles of clients that one worker trains one after another.

    Attributes:
        tiles: positions in the cohort of each tile.
        longest: local steps of the longest client of each tile, added up.
        steps: local steps of all its clients.
    """

    tiles: Sequence[I64]
    longest: int
    steps: int

    @property
    def places(self) -> I64:
        """Positions in the cohort of all its clients, tile after tile."""
        return np.concatenate(self.tiles)


def make_blocks(tiles: Sequence[I64], steps: I64, most: int) -> list[Block]:
    """Join consecutive tiles to at most `most` blocks of about equal local steps.

    Blocks follow from the cohort and the plan alone, so a sum over blocks does not depend on who trains them.

    Args:
        tiles: positions in the cohort of each tile.
        steps: local steps of each client of the cohort, int64 (K,).
        most: the most blocks.

    Example:
        >>> tiles = [np.array([0]), np.array([1]), np.array([2])]
        >>> [[len(t) for t in block.tiles] for block in make_blocks(tiles, np.array([4, 2, 2]), 2)]
        [[1], [1, 1]]
    """
    cost = np.array([max(1, int(steps[tile].sum())) for tile in tiles], np.float64)
    middle = np.cumsum(cost) - cost / 2
    number = np.minimum((middle * most / cost.sum()).astype(np.int64), most - 1)
    blocks = []
    for n in np.unique(number):
        own = [tiles[i] for i in np.flatnonzero(number == n).tolist()]
        longest = sum(int(steps[tile].max(initial=0)) for tile in own)
        blocks.append(Block(own, longest, int(sum(int(steps[tile].sum()) for tile in own))))
    return blocks


def deal(costs: F64, speeds: Sequence[float]) -> list[list[int]]:
    """Deal jobs to workers, the longest first, each to the worker that would finish it first.

    Args:
        costs: seconds of each job at speed 1.
        speeds: of each worker.

    Returns:
        For each worker its jobs, in increasing order.

    Example:
        >>> deal(np.array([1.0, 3.0, 2.0]), [1.0, 1.0])
        [[1], [0, 2]]
    """
    finish = np.zeros(len(speeds))
    dealt: list[list[int]] = [[] for _ in speeds]
    for job in np.argsort(-costs, kind="stable").tolist():
        then = finish + costs[job] / np.asarray(speeds)
        chosen = int(np.argmin(then))
        finish[chosen] = then[chosen]
        dealt[chosen].append(job)
    return [sorted(jobs) for jobs in dealt]


class CostModel:
    """Learns the seconds of a block, a x longest + b x steps, and how fast each worker is beside the others.

    A tile takes a local step of all its clients at once: a part of its time does not depend on how many they are.
    """

    def __init__(self) -> None:
        self._squares = np.zeros((2, 2))
        self._products = np.zeros(2)
        self._speeds: dict[int, float] = {}
        self.coefficients = np.array([0.0, 1.0])

    def seconds(self, blocks: Sequence[Block]) -> F64:
        """Return the seconds of each block on a worker of speed 1, up to a factor before the first measurement."""
        facts = np.array([(b.longest, b.steps) for b in blocks], np.float64).reshape(-1, 2)
        return np.asarray(np.maximum(facts @ self.coefficients, 1e-9), np.float64)

    def speeds(self, ranks: Sequence[int]) -> list[float]:
        """Return the speeds of some workers."""
        return [self._speeds.get(rank, 1.0) for rank in ranks]

    def learn(self, measured: Sequence[tuple[int, Block, float]]) -> None:
        """Take in the measured (worker, block, seconds) of a round."""
        if not measured:
            return
        facts = np.array([(b.longest, b.steps) for _, b, _ in measured], np.float64)
        seconds = np.array([s for _, _, s in measured])
        ranks = np.array([rank for rank, _, _ in measured])
        factor = np.array(self.speeds(ranks.tolist()))
        self._squares = FORGETTING * self._squares + facts.T @ facts
        self._products = FORGETTING * self._products + facts.T @ (seconds * factor)
        self.coefficients = _non_negative(self._squares, self._products)
        foreseen = self.seconds([b for _, b, _ in measured])
        for rank in np.unique(ranks).tolist():
            own = ranks == rank
            found = float(foreseen[own].sum() / max(seconds[own].sum(), 1e-9))
            self._speeds[rank] = FORGETTING * self._speeds.get(rank, 1.0) + (1 - FORGETTING) * min(
                max(found, 0.1), 10.0
            )


def _non_negative(squares: F64, products: F64) -> F64:
    """Return the non-negative least squares solution of two coefficients."""
    both = np.linalg.lstsq(squares, products, rcond=1e-12)[0]
    if (both >= 0).all() and both.any():
        return np.asarray(both, np.float64)
    alone = [products[i] / squares[i, i] if squares[i, i] > 0 else 0.0 for i in range(2)]
    gain = [products[i] * alone[i] for i in range(2)]
    best = np.zeros(2)
    best[int(np.argmax(gain))] = alone[int(np.argmax(gain))]
    return best
