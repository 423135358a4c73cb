"""The protocol of engines, which run the work of a cohort tile by tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from clients.core.arrays import I64
from clients.engines.evaluation import CohortEvaluation
from clients.engines.progress import Progress
from clients.training.task import LearningTask
from clients.training.work import CohortUpdate, CohortWork


class Engine(Protocol):
    """Runs a cohort's work. Every engine runs the same local rule on the same batches.

    Attributes:
        progress: counts local steps and evaluated examples; None where no one listens.
    """

    progress: Progress | None

    @property
    def name(self) -> str:
        """The engine's name in scenarios and records."""

    @property
    def task(self) -> LearningTask:
        """The learning task."""

    def with_task(self, task: LearningTask) -> Engine:
        """Return an engine of the same kind and settings for another task."""

    def tiles(self, work: CohortWork) -> Sequence[I64]:
        """Split a cohort into sets of clients that are trained together, as positions in `work.clients`."""

    def train(self, work: CohortWork, client_state: Mapping[str, Tensor]) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Train all clients of `work` (one tile).

        Args:
            work: the tile.
            client_state: the states of its clients, each [K, P], with "buffers" where clients keep their own.

        Returns:
            The update, and the new client state.
        """

    def evaluate(self, work: CohortWork) -> CohortEvaluation:
        """Evaluate the broadcast model on the examples of each client of `work`."""

    def gradients(self, work: CohortWork) -> Tensor:
        """Return each client's full-batch gradient at the broadcast parameters, without dropout, [K, P]."""
