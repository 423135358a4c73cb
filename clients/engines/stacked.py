"""The stacked engine: the clients of a tile train as one tensor program.

Clients are sorted by their number of local steps, and the active prefix shrinks as they finish. So the cost follows the
steps that clients take. Where the examples of a batch are independent, weights of 0 hide the padding of partial
batches. Otherwise (batch normalisation) clients are grouped by batch length, so that padding never changes a number.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.examples import CohortData
from clients.engines.batch import Program
from clients.engines.cards.examples import ExampleStore
from clients.engines.evaluation import CohortEvaluation, Evaluator
from clients.engines.finishing import finish
from clients.engines.native.choice import has_kernel, kernel_in, obstacle_of
from clients.engines.native.kernel import Kernel
from clients.engines.native.run import KernelRun
from clients.engines.programs import make_program
from clients.engines.progress import Progress
from clients.engines.tile_run import TileRun, TileSetup
from clients.training.class_balance import draw_batches
from clients.training.client_states import BUFFERS
from clients.training.local import Batches, count_steps
from clients.training.optimizers import stacked_optimizer
from clients.training.remedies import class_weight_table
from clients.training.rules import LocalRule
from clients.training.task import LearningTask, probe_examples
from clients.training.work import CohortUpdate, CohortWork

N = TypeVar("N", bound=np.generic)


class StackedEngine:
    """Trains a tile of clients at once.

    Args:
        task: the learning task.
        tile: clients trained together; None takes the whole cohort.
        program: computes gradients; chosen for the module by default.
        native: whether the default program has a kernel in C, where there is one.
    """

    name = "stacked"

    def __init__(
        self,
        task: LearningTask,
        *,
        tile: int | None = None,
        program: Program | None = None,
        native: bool = False,
    ) -> None:
        self.task, self.tile = task, tile
        features = probe_examples(task.population, task.dtype).features
        self.program = program or make_program(task, features, native=native)
        self._optimizer, self._examples = stacked_optimizer(task.local), ExampleStore(task.device)
        self.progress: Progress | None = None

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.task)

    def with_task(self, task: LearningTask) -> StackedEngine:
        """Return a stacked engine of the same tile for another task, with a program of its own."""
        return StackedEngine(task, tile=self.tile, native=has_kernel(self.program))

    def evaluate(self, work: CohortWork) -> CohortEvaluation:
        """Evaluate the broadcast model on each client's examples; see `Engine.evaluate`."""
        self._evaluator.progress = self.progress
        return self._evaluator.evaluate(work)

    def tiles(self, work: CohortWork) -> Sequence[I64]:
        """Split the cohort, sorted by local steps, into tiles of at most `tile` clients."""
        if self.tile is None or work.num_clients <= self.tile:
            return [np.arange(work.num_clients)]
        sizes = self.task.population.sizes[work.clients].astype(np.int64)
        steps = count_steps(self.task.local, sizes, work.clients, seed=self.task.seed, round_index=work.round_index)
        order = np.argsort(-steps, kind="stable")
        return [np.sort(part) for part in np.array_split(order, -(-work.num_clients // self.tile))]

    def train(self, work: CohortWork, client_state: Mapping[str, Tensor]) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Train all clients of `work`; see `Engine.train`."""
        started = time.perf_counter()
        task = self.task
        data = task.population.during(work.round_index).cohort(work.clients)
        steps = count_steps(task.local, data.sizes, work.clients, seed=task.seed, round_index=work.round_index)
        order = None if (steps[:-1] >= steps[1:]).all() else np.argsort(-steps, kind="stable")
        batches = draw_batches(task.local, data, steps, work.clients, seed=task.seed, round_index=work.round_index)
        weights = class_weight_table(task, data)
        work_in_order, sorted_state = work, {n: v.clone() for n, v in client_state.items()}
        if order is not None:
            index = torch.from_numpy(order)
            batches = Batches(batches.rows[order], batches.counts[order], steps[order])
            weights = weights[index] if weights is not None else None
            sorted_state = {n: v[index] for n, v in client_state.items()}
            work_in_order = replace(work, clients=work.clients[order])
        with torch.no_grad():
            kernel = self._kernel(work.rule)
            run: TileRun | KernelRun
            if kernel is None:
                run = TileRun(self._setup(), work_in_order, data, batches, sorted_state, weights)
            else:
                run = KernelRun(kernel, task, work_in_order, data, batches, self.progress)
            run.play()
            return self._result(work, data, run, order, steps, client_state, started)

    def _setup(self) -> TileSetup:
        return TileSetup(self.task, self.program, self._optimizer, self._examples, self.progress)

    def _kernel(self, rule: LocalRule) -> Kernel | None:
        """Return the kernel that takes all local steps of a tile; None if they are taken one by one."""
        return None if obstacle_of(self.task.local, rule) else kernel_in(self.program)

    def gradients(self, work: CohortWork) -> Tensor:
        """Return each client's full-batch gradient at the broadcast parameters, without dropout, [K, P]."""
        data = self.task.population.during(work.round_index).cohort(work.clients)
        whole = replace(self.task.local, batch_size="full", local_steps=1, local_epochs=None, partial_work=0.0,
                        sampling="shuffle")  # fmt: skip
        steps = np.minimum(data.sizes, 1)
        batches = draw_batches(whole, data, steps, work.clients, seed=0, round_index=work.round_index)
        weights = class_weight_table(self.task, data, of_objective=True)
        out = work.params.new_zeros(work.num_clients, self.task.parameters.size)
        width = batches.rows.shape[2] if batches.rows.size else 1
        chunk = max(1, 4_000_000 // max(1, width * int(np.prod(data.features.shape[1:], dtype=np.int64))))
        for start in range(0, work.num_clients, chunk):
            part = slice(start, start + chunk)
            piece = Batches(batches.rows[part], batches.counts[part], steps[part])
            some = weights[part] if weights is not None else None
            run = TileRun(self._setup(), replace(work, clients=work.clients[part]), data, piece, {}, some, noisy=False)
            busy = int(piece.steps.sum())
            if busy == len(piece.steps):
                with torch.no_grad():
                    out[part] = self.task.parameters.flatten(run.gradients(0, busy)[0], lead=1)
            else:
                for k in np.flatnonzero(piece.steps):
                    alone = replace(work, clients=work.clients[start + k : start + k + 1])
                    out[start + k] = self.gradients(alone)[0]
        return out

    def _result(
        self,
        work: CohortWork,
        data: CohortData,
        run: TileRun | KernelRun,
        order: I64 | None,
        steps: I64,
        client_state: Mapping[str, Tensor],
        started: float,
    ) -> tuple[CohortUpdate, dict[str, Tensor]]:
        task = self.task
        back = None if order is None else torch.from_numpy(np.argsort(order, kind="stable"))

        def restore(sorted_rows: Tensor) -> Tensor:
            there = sorted_rows if back is None else sorted_rows[back.to(sorted_rows.device)]
            return there.to(work.params.device)

        def restored(sorted_values: npt.NDArray[N]) -> npt.NDArray[N]:
            return sorted_values if back is None else sorted_values[back.numpy()]

        params, buffers = restore(run.flat_params()), restore(run.flat_buffers())
        last = restore(run.before_last) if isinstance(run, TileRun) and run.before_last is not None else None
        done = finish(task, self.gradients, work, params, steps, client_state, last)
        if task.local.buffers == "local" and task.buffers.size:
            done.client_state[BUFFERS] = buffers
        update = CohortUpdate(
            clients=work.clients,
            params=done.params,
            buffers=buffers,
            num_examples=data.sizes,
            local_steps=steps,
            train_loss=restore(run.mean_loss()).cpu().numpy(),
            train_errors=restored(run.errors()),
            client_drift=restored(run.meter.drift()),
            gradient_norm=restored(run.meter.gradient_norm()),
            extras=done.extras,
            fault_counts=data.fault_counts,
            seconds=time.perf_counter() - started,
        )
        return update, done.client_state
