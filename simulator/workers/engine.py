"""An engine and an evaluator whose work runs on a pool of workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.examples import Examples
from clients.core.population import CentralPart
from clients.engines.base import Engine
from clients.engines.evaluation import CHUNK, CohortEvaluation, Evaluation, Evaluator
from clients.engines.native.threads import threads_restored
from clients.engines.progress import Progress
from clients.training.local import count_steps
from clients.training.task import LearningTask
from clients.training.work import CohortUpdate, CohortWork
from simulator.workers import passes
from simulator.workers.dealing import Block, make_blocks
from simulator.workers.pool import WorkerPool
from simulator.workers.workplace import Share

BLOCKS_EACH = 4
"""The most blocks for each worker: enough to level out clients of unequal cost, few enough to keep sums few."""
PLAIN_TILES = 16
"""The most clients in a tile of the plain engine, where only memory depends on it."""
DEALT_SECONDS = 0.01
"""Central examples that one process evaluates in less time are not dealt. Dealing costs the server's process 1 to 6 ms
(models of a thousand to two million parameters, 2,048 to 40,000 examples), and a second worker saves at most half."""
DEALT_EXAMPLES = 8192
"""Clients with fewer examples are evaluated in this process. How they are batched changes their sums in the last bits,
so this follows from the data and not from a measured time."""


class WorkersEngine:
    """Runs a plain or stacked engine in every worker of a pool.

    Args:
        inner: the engine of this process, which is a worker too.
        pool: the workers.
    """

    def __init__(self, inner: Engine, pool: WorkerPool) -> None:
        self.inner, self.pool = inner, pool
        self.progress = None

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
        return self.pool.progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        self.pool.progress = progress
        self.inner.progress = None if progress is None else Share(progress)

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
        if self.task.passes.is_stateful:  # outputs depend on earlier passes
            return self.inner.evaluate(work)
        return passes.evaluate_clients(self.pool, work.params, work.buffers, work.clients, work.round_index)

    def gradients(self, work: CohortWork) -> Tensor:
        """Return each client's full-batch gradient at the broadcast parameters, [K, P]."""
        return passes.gradients(self.pool, work)

    def _steps(self, work: CohortWork) -> I64:
        task = self.task
        sizes = task.population.sizes[work.clients].astype(np.int64)
        return count_steps(task.local, sizes, work.clients, seed=task.seed, round_index=work.round_index)


class PooledEvaluator(Evaluator):
    """Evaluates many examples on a pool of workers, and few in this process.

    Blocks of central examples are those of one process, so that the means have its bits. Clients are dealt in parts;
    how their examples are batched then differs from one process, and sums agree with its within rounding.
    """

    def __init__(self, task: LearningTask, pool: WorkerPool) -> None:
        super().__init__(task)
        self._pool = pool
        self._loaded: tuple[Tensor, Tensor] | None = None
        self._block_seconds: float | None = None

    def load(self, params: Tensor, buffers: Tensor) -> None:
        """Load a model for the calls that follow."""
        super().load(params, buffers)
        self._loaded = params, buffers

    def on_central(self, part: CentralPart, round_index: int) -> Evaluation:
        """Evaluate the loaded model on the server's examples of a round; see `Evaluator.on_central`."""
        examples = self.task.population.during(round_index).central_examples(part)
        count, model = len(examples), self._dealt_model
        with threads_restored(self._pool.threads):  # those of the workers: who evaluates changes no bit
            if model is None or self._seconds(examples) < DEALT_SECONDS:
                return self.central(examples)
        self._begin(count)
        return passes.evaluate_central(self._pool, *model, part, count, round_index).mean()

    def draw(self, number: int) -> Tensor:
        """Return samples of the loaded model, made in this process; see `Evaluator.draw`."""
        with threads_restored(self._pool.threads):
            return super().draw(number)

    def clients(self, clients: I64, round_index: int = 0) -> CohortEvaluation:
        """Evaluate the loaded model on clients; see `Evaluator.clients`."""
        sizes, model = self.task.population.during(round_index).sizes[clients], self._dealt_model
        if model is None or int(sizes.sum(dtype=np.int64)) < DEALT_EXAMPLES or len(clients) < 2:
            return super().clients(clients, round_index)
        return passes.evaluate_clients(self._pool, *model, clients, round_index)

    def training_losses(self, blocks: Sequence[I64], round_index: int) -> Iterator[F64]:
        """Yield F_k of the loaded model for blocks of clients; see `Evaluator.training_losses`."""
        clients, model = np.concatenate([*blocks, np.zeros(0, np.int64)]), self._dealt_model
        examples = int(self.task.population.sizes[clients].sum(dtype=np.int64))
        if model is None or examples < DEALT_EXAMPLES or len(clients) < 2:
            yield from super().training_losses(blocks, round_index)
            return
        found = passes.training_losses(self._pool, *model, clients, round_index)
        yield from np.split(found, np.cumsum([len(block) for block in blocks])[:-1])

    @property
    def _dealt_model(self) -> tuple[Tensor, Tensor] | None:
        """The loaded model; None where its outputs depend on earlier passes, so that its work cannot be dealt."""
        return None if self.task.passes.is_stateful else self._loaded

    def _seconds(self, examples: Examples) -> float:
        """Return the seconds that central examples would take in this process; a block is timed once, warm."""
        if len(examples) <= CHUNK:
            return 0.0
        if self._block_seconds is None:
            block = Examples(examples.features[:CHUNK], examples.targets[:CHUNK])
            self._block_seconds = min(self._timed(block) for _ in range(2))
        return self._block_seconds * len(examples) / CHUNK

    def _timed(self, block: Examples) -> float:
        started = time.perf_counter()
        self.each(block)
        return time.perf_counter() - started
