"""The global objective f(w) = sum p_k F_k(w) + penalties: the training objective at one model, over all clients.

F_k is the mean training loss over client k's examples of a round: with class weights and focal loss, without dropout
and augmentation, in evaluation mode. `gradients` of the engines are of the same losses, in training mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from clients.core.arrays import F64, I32, I64
from clients.engines.evaluation import Evaluator
from clients.training.optimizers import penalty

CLIENTS_TOGETHER, EXAMPLES_TOGETHER = 256, 65_536
"""The most clients, and about the most examples, whose data are made at once."""


@dataclass(frozen=True)
class Objective:
    """The value of the global objective.

    Attributes:
        loss: sum p_k F_k.
        penalty: l1 |w|_1 + l2 |w|^2 / 2.
    """

    loss: float
    penalty: float

    @property
    def value(self) -> float:
        """What the run minimises."""
        return self.loss + self.penalty


def global_objective(
    evaluator: Evaluator, params: Tensor, buffers: Tensor, *, weights: F64, round_index: int
) -> Objective:
    """Measure f at a model, on the clients' training data of a round; clients are made a few hundred at a time.

    Args:
        evaluator: of the task, whose [local] has the penalties and the remedies in the loss.
        params: the model's parameters [P].
        buffers: its buffers [Q].
        weights: p_k, float64 (N,), with sum 1; a client of weight 0 is left out.
        round_index: the round whose data count.
    """
    population = evaluator.task.population.during(round_index)
    evaluator.load(params, buffers)
    chosen = np.flatnonzero(weights).astype(np.int64)
    if evaluator.progress is not None:
        sizes = population.sizes[chosen]
        evaluator.progress.begin("the global objective", int(sizes.sum(dtype=np.int64)), "examples")
    total, blocks = 0.0, list(blocks_of(chosen, population.sizes))
    for block, losses in zip(blocks, evaluator.training_losses(blocks, round_index), strict=True):
        total += float(weights[block] @ losses)
    return Objective(total, penalty(params, evaluator.task.local))


def blocks_of(clients: I64, sizes: I32) -> Iterator[I64]:
    """Yield clients in blocks whose data fit into memory together; a block has at least one client.

    Example:
        >>> [block.tolist() for block in blocks_of(np.arange(4), np.array([3, 70_000, 2, 5], np.int32))]
        [[0], [1], [2, 3]]
    """
    start = 0
    while start < len(clients):
        block = clients[start : start + CLIENTS_TOGETHER]
        fits = int(np.searchsorted(np.cumsum(sizes[block], dtype=np.int64), EXAMPLES_TOGETHER, side="right"))
        block = block[: max(1, fits)]
        yield block
        start += len(block)
