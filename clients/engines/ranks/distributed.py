"""The engine of a client with several devices: this process is rank 0, and forks the others."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.errors import EngineError
from clients.engines.base import Engine
from clients.engines.evaluation import CohortEvaluation, Evaluator
from clients.engines.native.threads import threads_restored
from clients.engines.plain import PlainEngine
from clients.engines.progress import Progress
from clients.engines.ranks.crew import Crew, is_same
from clients.engines.ranks.rank_engine import RankEngine
from clients.engines.ranks.splitting import check_split, count_devices, is_split
from clients.engines.ranks.team import alone
from clients.processes.forking import can_fork
from clients.training.task import LearningTask
from clients.training.work import CohortUpdate, CohortWork, LocalWork

T = TypeVar("T")
_MOST_KNOWN = 3
"""Rules, beside plain training and the newest, that ranks know."""


class DistributedEngine:
    """Trains clients one after another, each over all devices, with the numbers of the plain engine within rounding.

    The ranks start with the first work, or with `start`. After a failure of a rank the next work starts new ones.

    Args:
        task: the learning task; on a card, the ranks take the cards from `task.device` on.
        threads: torch's threads of each rank; None shares those of this process.

    Attributes:
        devices: number of ranks.
        threads: torch's threads of each.

    Raises:
        EngineError: batches of the model cannot be split, or there are fewer devices.
    """

    name = "plain"

    def __init__(self, task: LearningTask, threads: int | None = None) -> None:
        self.task, self.devices = task, count_devices(task)
        if self.devices > 1 and not can_fork():
            problem = f"is {self.devices}, and ranks are forked, which works on Linux only"
            raise EngineError("local.devices", problem, fix="Set local.devices = 1.")
        check_split(task, self.devices)
        self.progress: Progress | None = None
        self.threads = threads or max(1, torch.get_num_threads() // self.devices)
        self._crew: Crew | None = None
        self._rank_0: RankEngine | None = None
        self._evaluator: Evaluator | None = None
        self._known: list[LocalWork] = [LocalWork()]
        self._end: Callable[[], object] = lambda: None

    @property
    def pids(self) -> list[int]:
        """The processes of ranks 1, 2, ... that run now."""
        return [] if self._crew is None else [*self._crew.pids.values()]

    def tiles(self, work: CohortWork) -> Sequence[I64]:
        """Split a cohort into tiles of sixteen clients; only memory depends on the size."""
        return np.array_split(np.arange(work.num_clients), max(1, -(-work.num_clients // 16)))

    def with_task(self, task: LearningTask) -> Engine:
        """Return an engine for another task."""
        return local_engine(task, self.threads)

    def evaluate(self, work: CohortWork) -> CohortEvaluation:
        """Evaluate the broadcast model on each client's examples, on the first device; see `Engine.evaluate`."""
        if self._evaluator is None:
            self._evaluator = Evaluator(self.task)
        self._evaluator.progress = self.progress
        return self._evaluator.evaluate(work)

    def train(self, work: CohortWork, client_state: Mapping[str, Tensor]) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Train each client of `work`; see `Engine.train`.

        Raises:
            EngineError: a rank was killed, or failed.
        """
        return self._together("train", work, client_state, lambda engine: engine.train(work, client_state))

    def gradients(self, work: CohortWork) -> Tensor:
        """Return each client's full-batch gradient at the broadcast parameters, without dropout, [K, P]."""
        return self._together("gradients", work, {}, lambda engine: engine.gradients(work))

    def start(self, local: LocalWork | None = None) -> None:
        """Start the ranks, with a rule and an uplink that they then know. On cards, do so before any other use."""
        if local is not None and not any(is_same(known, local) for known in self._known):
            self._known = [self._known[0], *self._known[1:][-_MOST_KNOWN:], local]
            self.close()
        if self._rank_0 is not None:
            return
        if self.devices == 1:
            self._rank_0 = RankEngine(self.task, alone(self.task))
            return
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            problem = f"is {self.devices}, and CUDA is in use, after which ranks cannot be forked"
            raise EngineError("local.devices", problem, fix="Start the program anew.")
        with threads_restored(self.threads):
            crew = self._crew = Crew(self.task, self._known, self.devices, self.threads)
            self._end = weakref.finalize(self, crew.close)
            self._rank_0 = RankEngine(self.task, crew.team)

    def close(self) -> None:
        """End the ranks."""
        self._end()
        self._crew = self._rank_0 = None

    def _together(self, job: str, work: CohortWork, state: Mapping[str, Tensor], run: Callable[[RankEngine], T]) -> T:
        """Run some work on all ranks."""
        self.start(LocalWork(work.rule, work.uplink))
        assert self._rank_0 is not None, "the ranks have started"
        self._rank_0.progress = self.progress
        if self._crew is None:
            return run(self._rank_0)
        with threads_restored(self.threads), self._failing(self._crew):
            self._crew.send(job, work, state)
            found = run(self._rank_0)
            self._crew.wait()
        return found

    @contextmanager
    def _failing(self, crew: Crew) -> Iterator[None]:
        """End the ranks after any error, and turn one of a connection into the reason why the other rank is gone.

        Raises:
            EngineError: a rank was killed, or failed.
        """
        try:
            yield
        except BaseException as error:
            why = crew.why() if _is_of_connection(error) else ""
            crew.kill()
            self._crew = self._rank_0 = None
            if not why:
                raise
            fix = "The next work starts new ranks."
            raise EngineError("local.devices", f"is {self.devices}, and {why}", fix=fix) from error


def _is_of_connection(error: BaseException) -> bool:
    """Return whether an error comes from the connection of ranks, and not from the model or the rule."""
    text = str(error).lower()
    return isinstance(error, OSError) or (isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text))


def local_engine(task: LearningTask, threads: int | None = None) -> PlainEngine | DistributedEngine:
    """Return the engine that trains clients one by one: over several devices, or in micro-batches, where configured."""
    return DistributedEngine(task, threads) if is_split(task) else PlainEngine(task)
