"""Options of the normalisation and selection of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.numbers.bounds import AtMost
from clients.core.options import check_at_least, unread_of


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """How features are normalised and selected before training. Channels are their last axis.

    Attributes:
        normalise: "none"; "client": each client subtracts the mean and divides by the deviation of its own training
            readings, and a held-out example uses those of its client; "federated": uses those of all clients. If a
            client's readings of a channel do not vary, the federation's deviation is used; if these do not vary either,
            only the mean is subtracted. An example without an owner, or whose owner has no training examples, uses the
            federation's mean and deviation. Targets are not normalised: with "client", a forecast has to find the
            client's level again, and is less accurate.
        select: "none", or which channels are kept: those of largest "variance" (of the readings in their own units,
            before normalisation), or of largest "mutual_information" with the class.
        keep: how many channels.
        bins: bins of a reading for mutual information, of equal width over 2.5 deviations on either side of the mean.
        statistics_clients: the most clients that send their sums and counts; chosen by seed.
    """

    normalise: Literal["none", "client", "federated"] = "none"
    select: Literal["none", "variance", "mutual_information"] = "none"
    keep: int | None = None
    bins: int = 16
    statistics_clients: AtMost = 1000

    def __post_init__(self) -> None:
        selects = self.select != "none"
        check_at_least(self, 1, "keep")
        require(selects or self.keep is None, "keep", "needs `select`", fix='Give a criterion: select = "variance".')
        require(not selects or self.keep is not None, "keep", f"must be given with select = {self.select!r}")
        check_at_least(self, 2, "bins")
        check_at_least(self, 1, "statistics_clients")

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that other keys leave without one."""
        found = unread_of(self.select, {"bins": ("mutual_information",)}, "select")
        if self.select == "none" and self.normalise == "none":
            found["statistics_clients"] = "`normalise` and `select` are 'none', so no client sends statistics"
        return found
