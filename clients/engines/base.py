"""What an engine is: it runs the work of a cohort, tile by tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from clients.core.arrays import I64
from clients.training.work import CohortUpdate, CohortWork


class Engine(Protocol):
    """Runs a cohort's work. Every engine runs the same local rule on the same batches."""

    @property
    def name(self) -> str:
        """Its name in scenarios and records."""

    def tiles(self, work: CohortWork) -> Sequence[I64]:
        """Cut a cohort into the sets of clients that are trained together, as positions in `work.clients`."""

    def train(self, work: CohortWork, own: Mapping[str, Tensor]) -> tuple[CohortUpdate, dict[str, Tensor]]:
        """Train all clients of `work` (one tile): own vectors [K, P] in, the update and new own vectors out."""
