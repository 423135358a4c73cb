"""Options of runs on real nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from clients.core.errors import require
from clients.core.numbers.bounds import AtMost, Within
from clients.core.options import check_at_least

Wait = Annotated[float, Within(0.0, 1e6, why="twelve days")]


@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """How long a run on Flower's nodes waits for them, and which replies it uses. Runs in one process do not read it.

    Attributes:
        own_data: whether each node brings data of its own, which the server never sees (`--node-config 'name="north"
            data="/path/north.csv"'`). [data] then says how they are read; its `path` names the server's own examples.
        count: how many nodes with their own data the run waits for.
        validates: whether the server has examples of its own, at `data.path`; if not, criteria look at what the clients
            hold out (`evaluation.federated_every`).
        join_seconds: how long the start waits until every client has a node.
        timeout_seconds: how long a round waits for replies. Later ones are dropped and counted.
        min_respondents: fewest clients of a round; a round with fewer is sent again to the others, up to `retries`
            times, and then the run ends as interrupted, to be resumed.
        retries: how often a round is sent again to clients that did not reply, or whose node failed.
        max_update_norm: an update whose distance from the broadcast model is longer is rejected; unset for no bound.
        exclude_after: after so many rejected replies a client is sent no more work; unset for never.
    """

    own_data: bool = False
    count: AtMost = 1
    validates: bool = True
    join_seconds: Wait = 120.0
    timeout_seconds: Wait = 3600.0
    min_respondents: AtMost = 1
    retries: AtMost = 1
    max_update_norm: Annotated[float, Within(0.0, 1e38, why="float32 holds no more")] | None = None
    exclude_after: AtMost | None = None

    def __post_init__(self) -> None:
        require(self.timeout_seconds > 0, "timeout_seconds", f"must be > 0, got {self.timeout_seconds}")
        check_at_least(self, 1, "min_respondents", "exclude_after", "count")
        check_at_least(self, 0, "retries", "join_seconds")
        norm = self.max_update_norm
        require(norm is None or norm > 0, "max_update_norm", f"must be > 0, got {norm}")
