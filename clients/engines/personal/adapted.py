"""Evaluation after adaptation: each client trains the model for a few steps, and evaluates it on what it holds out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from clients.core.arrays import I64
from clients.engines.base import Engine
from clients.engines.evaluation import CohortEvaluation, Evaluator
from clients.training.options import LocalOptions
from clients.training.task import LearningTask
from clients.training.work import CohortWork


class AdaptedEvaluator:
    """Trains clients from the server's model by plain local training, and scores each one's own model.

    The steps are those of `[local]` in the round that follows: its optimiser, rate, batches. Nothing of them is kept.

    Args:
        task: the learning task.
        engine: trains clients, on another task than its own.
        steps: local steps of each client.
    """

    def __init__(self, task: LearningTask, engine: Engine, steps: int) -> None:
        self._task = replace(task, local=adapting(task.local, steps))
        self._engine, self._evaluator = engine.with_task(self._task), Evaluator(self._task)

    def evaluate(self, params: Tensor, buffers: Tensor, clients: I64, after_round: int) -> CohortEvaluation:
        """Return the evaluation of some clients, each with its own parameters.

        Args:
            params: the server's model [P].
            buffers: its buffers [Q].
            clients: those that adapt it, int64 (K,).
            after_round: the round after which the model is measured; its data count.
        """
        work = CohortWork(round_index=max(1, after_round), clients=clients, params=params, buffers=buffers)
        losses, scores, examples = np.zeros(len(clients)), np.zeros(len(clients)), np.zeros(len(clients), np.int64)
        where = "test"
        for tile in self._engine.tiles(work):
            update, _ = self._engine.train(replace(work, clients=clients[tile]), {})
            for k, own, kept in zip(tile, update.params, update.buffers, strict=True):
                self._evaluator.load(own, kept)
                found = self._evaluator.clients(clients[k : k + 1], after_round)
                losses[k], scores[k], examples[k] = found.loss[0], found.score[0], found.num_examples[0]
                where = found.evaluated_on
        return CohortEvaluation(clients, examples, losses, scores, where)


def adapting(local: LocalOptions, steps: int) -> LocalOptions:
    """Return local training of so many steps for every client.

    Example:
        >>> adapting(LocalOptions(local_epochs=3, partial_work=0.5), 4).local_steps
        4
    """
    return replace(local, local_steps=steps, local_epochs=None, partial_work=0.0, buffers="average")
