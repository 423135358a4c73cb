"""An algorithm: a local rule, an uplink, an aggregation and a server transform."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from clients.core.errors import UserError, require, require_kind
from clients.training.rules import PLAIN, LocalRule
from clients.training.uplink import IDENTITY, Uplink
from clients.training.work import LocalWork
from server.algorithms.aggregation import Aggregation, weighted_mean
from server.algorithms.transforms import ServerTransform, sgd


@dataclass(frozen=True)
class Algorithm:
    """A federated algorithm: a row of the table, or your own for `fedscape.simulate(algorithm=...)`.

    Attributes:
        name: name in displays and records.
        local: how a client changes its gradients, and the state it keeps.
        uplink: how clients send their updates.
        aggregation: combines the updates into one.
        server: moves the server's parameters by the aggregate.

    Raises:
        UserError: a part is of the wrong type, or the local rule reads a vector that the server transform does not
            keep.

    Example:
        >>> Algorithm("mine").server.name
        'sgd 1'
    """

    name: str
    local: LocalRule = PLAIN
    uplink: Uplink = IDENTITY
    aggregation: Aggregation = field(default_factory=weighted_mean)
    server: ServerTransform = field(default_factory=sgd)

    def __post_init__(self) -> None:
        is_name = isinstance(self.name, str)
        require(is_name, "name", "must be text", fix='Pass a name first: fs.Algorithm("mine", local=...).')
        rule = "Make it with @fs.local_rule() over (gradient, params, anchor, broadcast, state), or fs.proximal(0.1)."
        require_kind(self.local, LocalRule, "local", fix=rule)
        require_kind(self.uplink, Uplink, "uplink", fix="Make it with fs.top_k(0.1).")
        means = "Make it with fs.weighted_mean(), fs.coordinate_median() or fs.clipped(...)."
        require_kind(self.aggregation, Aggregation, "aggregation", fix=means)
        require_kind(
            self.server, ServerTransform, "server", fix="Make it with fs.sgd(1.0), fs.adam(0.01), fs.chain(...)."
        )
        missing = sorted(set(self.local.broadcast) - set(self.server.init(torch.zeros(1))))
        if missing:
            problem = f"reads {missing[0]!r}, which the server transform {self.server.name!r} does not keep"
            raise UserError("local.broadcast", problem, fix="Return it from the transform's init and update.")

    @property
    def signature(self) -> str:
        """What it consists of, as text: two algorithms that differ in a part or an option have different ones."""
        parts = (self.local.signature, self.uplink.name, self.aggregation.name, self.server.name)
        return f"{self.name}: {'; '.join(parts)}"

    @property
    def local_work(self) -> LocalWork:
        """The half of the algorithm that clients run."""
        return LocalWork(self.local, self.uplink)
