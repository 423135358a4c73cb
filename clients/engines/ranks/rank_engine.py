"""The plain engine in one rank: it takes its share of each batch, and DistributedDataParallel adds the gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clients.core.errors import EngineError
from clients.core.examples import CohortData
from clients.engines.plain import PlainEngine, PreparedBatch
from clients.engines.ranks.batch_norm import share_statistics
from clients.engines.ranks.team import Team
from clients.training.path_measures import PathMeter
from clients.training.task import LearningTask
from clients.training.work import CohortUpdate, CohortWork


class RankEngine(PlainEngine):
    """Trains clients as the plain engine does, each batch split over the ranks of a team and into micro-batches.

    All ranks call the same methods with the same work. Each draws the whole batch, its augmentation and its masks, and
    passes its own share through the model. A rank without a share passes one example with the weight 0.

    Args:
        task: the task; its device is this rank's.
        team: the ranks.
    """

    def __init__(self, task: LearningTask, team: Team) -> None:
        self._team = team
        super().__init__(replace(task, device=team.device))

    def _renew(self) -> None:
        """Take a copy of the task's module, whose statistics and gradients are shared with the other ranks."""
        super()._renew()
        self._norms = share_statistics(self._module, self._team)
        self._model: Callable[[Tensor], Tensor] = self._module
        self._unsynced: Callable[[], AbstractContextManager[object]] = nullcontext
        if self._team.group is not None:
            parallel = _parallel(self._module, self._team, self.task)
            self._model, self._unsynced = parallel, parallel.no_sync

    def _backward(self, batch: PreparedBatch) -> tuple[Tensor, Tensor | int]:
        """Add the gradient of the batch's mean loss; return this rank's part of the sum of losses, and of the errors.

        DistributedDataParallel takes the mean over ranks, so each loss is weighted by ranks / examples of the batch.
        """
        count = len(batch.targets)
        start, stop = self._team.share(count)
        counts = stop > start
        pieces = _pieces(start, stop, self.task.local.micro_batch_size) if counts else [(0, 1)]
        weight = self._team.size / count if counts else 0.0
        total: Tensor = torch.zeros((), dtype=torch.float64, device=self.task.device)
        errors: Tensor | int = 0
        for norm in self._norms:
            norm.counts = counts
        for low, high in pieces:
            self._masks.share(low, high)
            part = batch.part(low, high)
            with nullcontext() if (low, high) == pieces[-1] else self._unsynced():
                losses, outputs = self._losses(self._model, part)
                (losses.sum() * weight).backward()  # type: ignore[no-untyped-call]
            if counts:
                total = total + losses.detach().sum(dtype=torch.float64)
                errors = errors + self._errors(outputs, part.targets)
        return total, errors

    def _result(
        self,
        k: int,
        work: CohortWork,
        data: CohortData,
        state: dict[str, Tensor],
        meter: PathMeter,
        counted: tuple[float, int, int, int],
        row: Tensor,
        before_last: Tensor | None,
    ) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Return a client's result with the losses and errors of all ranks."""
        total, seen, errors, steps = counted
        own = torch.tensor([total, errors], dtype=torch.float64, device=self.task.device)
        total, wrong = self._team.add(own).tolist()
        self._check_buffers()
        counted = (total, seen, round(wrong), steps)
        return super()._result(k, work, data, state, meter, counted, row, before_last)

    def _check_buffers(self) -> None:
        """Refuse buffers that ranks changed differently: such statistics are not those of one device.

        Raises:
            EngineError: some buffer of this rank differs from the mean over ranks by more than rounding.
        """
        if self._team.group is None or not self.task.buffers.size:
            return
        own = {n: b.detach().double() for n, b in self._module.named_buffers() if n in self.task.buffers.names}
        means = {n: self._team.add(held.clone()) / self._team.size for n, held in own.items()}
        near = {n: torch.allclose(means[n], held, rtol=1e-5, atol=1e-7, equal_nan=True) for n, held in own.items()}
        off = self._team.add(torch.tensor([float(not ok) for ok in near.values()], device=self.task.device))
        if off.any():  # on every rank
            name = [*own][int(off.argmax())]
            problem = f"is {self._team.size}, and the ranks changed the buffer {name!r} of the model differently"
            fix = "Set local.devices = 1; of statistics over a batch, those of nn.BatchNorm are shared."
            raise EngineError("local.devices", problem, fix=fix)


def _pieces(start: int, stop: int, most: int | None) -> list[tuple[int, int]]:
    """Return the micro-batches of a share.

    Example:
        >>> _pieces(3, 8, 2), _pieces(3, 8, None)
        ([(3, 5), (5, 7), (7, 8)], [(3, 8)])
    """
    size = most or stop - start
    return [(low, min(low + size, stop)) for low in range(start, stop, size)]


def _parallel(module: torch.nn.Module, team: Team, task: LearningTask) -> Any:
    """Return DistributedDataParallel around a module; it leaves buffers alone."""
    from torch.nn.parallel import DistributedDataParallel

    cards = [team.device.index] if team.device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of broadcast_buffers, which has no successor yet
        return DistributedDataParallel(
            module, device_ids=cards, process_group=team.group, broadcast_buffers=False,
            find_unused_parameters=bool(task.passes.unused or task.passes.only_plain),
        )  # fmt: skip
