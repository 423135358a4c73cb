"""The local training of a tile by a kernel, with the measures along each client's path."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.examples import CohortData
from clients.engines.native.kernel import Kernel, Trained
from clients.engines.progress import Progress
from clients.training.local import Batches
from clients.training.path_measures import MeasuredPaths
from clients.training.task import LearningTask
from clients.training.work import CohortWork


class KernelRun:
    """Trains a tile of K clients, in decreasing order of steps, by plain SGD. It draws nothing."""

    def __init__(
        self,
        kernel: Kernel,
        task: LearningTask,
        work: CohortWork,
        data: CohortData,
        batches: Batches,
        progress: Progress | None,
    ) -> None:
        self._kernel, self._task, self._work = kernel, task, work
        self._data, self._batches, self._progress = data, batches, progress
        self._trained: Trained | None = None

    def play(self) -> None:
        """Take every local step."""
        task = self._task
        lr = task.local.lr(self._work.round_index)
        self._trained = self._kernel.train(
            self._data.features, self._data.targets, self._batches, self._work.params, lr=lr,
            shrink=1 - lr * task.local.l2, advance=self._progress.add if self._progress else None,
        )  # fmt: skip

    @property
    def meter(self) -> MeasuredPaths:
        """The measures along each client's path."""
        found = self._result
        return MeasuredPaths(self._batches.steps, found.gradients, found.distances, found.ends)

    @property
    def _result(self) -> Trained:
        assert self._trained is not None, "play comes first"
        return self._trained

    def flat_params(self) -> Tensor:
        """Return the local parameters [K, P]."""
        return self._result.params

    def flat_buffers(self) -> Tensor:
        """Return the local buffers [K, 0]."""
        return self._work.buffers.new_zeros(self._work.num_clients, 0)

    def mean_loss(self) -> Tensor:
        """Return each client's mean example loss over its local training, float64 [K]; nan without examples."""
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(self._result.losses / self._batches.counts.sum(1))

    def errors(self) -> I64:
        """Return the wrongly classified examples of each client's local training, int64 (K,); -1 where not counted."""
        if not self._task.count_errors:
            return np.full(self._work.num_clients, -1)
        return self._result.wrong
