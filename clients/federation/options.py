"""Options of what is done to features before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from clients.core.errors import require
from clients.core.options import STRICT, check_at_least


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """What is done to the features before anything is trained on them. A channel is their last axis.

    Attributes:
        normalise: "none"; "client": each client subtracts the mean and divides by the deviation of its own training
            readings, a held-out example by those of the client it comes from; "federated": by those of all clients.
            Where a client's readings of a channel do not vary, the federation's deviation is taken; where these do not
            vary either, only the mean is subtracted. Where nobody owns an example, or the owner has no training
            examples, the federation's mean and deviation are taken. Targets stay as they are: a forecast of readings
            from a client's own normalised ones has to find the client's level again, and is worse for it.
        select: "none", or which channels are kept: those of largest "variance" (of the readings as they come, in their
            own units, before they are normalised), or of largest "mutual_information" with the class.
        keep: how many channels.
        bins: bins of a reading for mutual information, of equal width over 2.5 deviations on either side of the mean.
        statistics_clients: at most so many clients tell their sums and counts; chosen by seed.
    """

    __pydantic_config__: ClassVar = STRICT
    normalise: Literal["none", "client", "federated"] = "none"
    select: Literal["none", "variance", "mutual_information"] = "none"
    keep: int | None = None
    bins: int = 16
    statistics_clients: int = 1000

    def __post_init__(self) -> None:
        selects = self.select != "none"
        check_at_least(self, 1, "keep")
        require(selects or self.keep is None, "keep", "needs `select`", fix='Say by what: select = "variance".')
        require(not selects or self.keep is not None, "keep", f"must be given with select = {self.select!r}")
        check_at_least(self, 2, "bins")
        check_at_least(self, 1, "statistics_clients")
