"""An engine whose work runs on a pool of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from clients.core.arrays import I64
from clients.engines.base import Engine
from clients.engines.evaluation import CHUNK, CohortEvaluation, Evaluator
from clients.engines.progress import Progress
from clients.training.local import count_steps
from clients.training.task import LearningTask
from clients.training.work import CohortUpdate, CohortWork
from simulator.workers.dealing import Block, make_blocks
from simulator.workers.pool import WorkerPool

BLOCKS_EACH = 4
"""The most blocks for each worker: enough to level out clients of unequal cost, few enough to keep sums few."""
PLAIN_TILES = 16
"""The most clients in a tile of the plain engine, where only memory depends on it."""


class WorkersEngine:
    """Runs a plain or stacked engine in every worker of a pool.

    Args:
        inner: the engine of this process, which is a worker too.
        pool: the workers.
    """

    def __init__(self, inner: Engine, pool: WorkerPool) -> None:
        self.inner, self.pool = inner, pool

    @property
    def name(self) -> str:
        """The name of the engine that each worker runs."""
        return self.inner.name

    @property
    def task(self) -> LearningTask:
        """The learning task."""
        return self.inner.task

    @property
    def progress(self) -> Progress | None:
        """Counts the work of all workers."""
        return self.inner.progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        self.inner.progress = self.pool.progress = progress

    def with_task(self, task: LearningTask) -> Engine:
        """Return an engine for another task in this process: workers have one task."""
        return self.inner.with_task(task)

    def tiles(self, work: CohortWork) -> Sequence[I64]:
        """Split the cohort into at least as many tiles as there are workers of the plan, where it has the clients."""
        size = self.pool.size
        if self.inner.name == "plain":
            most = min(PLAIN_TILES, max(1, work.num_clients // (BLOCKS_EACH * size)))
            return np.array_split(np.arange(work.num_clients), -(-work.num_clients // most))
        tiles = self.inner.tiles(work)
        if len(tiles) >= min(size, work.num_clients):
            return tiles
        steps = self._steps(work)
        order = np.argsort(-steps, kind="stable")
        cost = np.maximum(steps[order], 1).astype(np.float64)
        number = ((np.cumsum(cost) - cost / 2) * size / cost.sum()).astype(np.int64)
        return [np.sort(order[number == n]) for n in np.unique(number)]

    def blocks(self, work: CohortWork) -> list[Block]:
        """Return the cohort's tiles, joined to blocks that are dealt to workers."""
        return make_blocks(self.tiles(work), self._steps(work), BLOCKS_EACH * self.pool.size)

    def train(self, work: CohortWork, client_state: Mapping[str, Tensor]) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Train one tile in this process."""
        return self.inner.train(work, client_state)

    def evaluate(self, work: CohortWork) -> CohortEvaluation:
        """Evaluate the broadcast model on each client's examples."""
        return self.pool.evaluate(work.params, work.buffers, work.clients, work.round_index)

    def gradients(self, work: CohortWork) -> Tensor:
        """Return each client's full-batch gradient at the broadcast parameters, [K, P]."""
        return self.pool.gradients(work)

    def _steps(self, work: CohortWork) -> I64:
        task = self.task
        sizes = task.population.sizes[work.clients].astype(np.int64)
        return count_steps(task.local, sizes, work.clients, seed=task.seed, round_index=work.round_index)


class PooledEvaluator(Evaluator):
    """Evaluates clients with many examples on a pool of workers, and anything else in this process."""

    def __init__(self, task: LearningTask, pool: WorkerPool) -> None:
        super().__init__(task)
        self._pool = pool
        self._loaded: tuple[Tensor, Tensor] | None = None

    def load(self, params: Tensor, buffers: Tensor) -> None:
        """Load a model for the calls that follow."""
        super().load(params, buffers)
        self._loaded = params, buffers

    def clients(self, clients: I64, round_index: int = 0) -> CohortEvaluation:
        """Evaluate the loaded model on clients; see `Evaluator.clients`."""
        sizes = self.task.population.during(round_index).sizes[clients]
        if self._loaded is None or int(sizes.sum(dtype=np.int64)) < 2 * CHUNK or len(clients) < self._pool.size:
            return super().clients(clients, round_index)
        return self._pool.evaluate(*self._loaded, clients, round_index)
