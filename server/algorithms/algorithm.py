"""An algorithm: local rule, uplink, aggregation and server transform, joined."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from clients.core.errors import UserError
from clients.training.rules import PLAIN, LocalRule
from clients.training.uplink import IDENTITY, Uplink
from clients.training.work import LocalWork
from server.algorithms.aggregation import Aggregation, weighted_mean
from server.algorithms.transforms import ServerTransform, sgd


@dataclass(frozen=True)
class Algorithm:
    """How a federation learns; a row of the table, or one of your own for `fedscape.simulate(algorithm=...)`.

    Attributes:
        name: for people and the record.
        local: what a client does to its gradients, and what it remembers.
        uplink: what clients send of their updates.
        aggregation: how the updates become one.
        server: how that moves the server's parameters.

    Raises:
        UserError: the local rule reads a vector that the server transform does not remember.

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
        missing = sorted(set(self.local.broadcast) - set(self.server.init(torch.zeros(1))))
        if missing:
            problem = f"reads {missing[0]!r}, which the server transform {self.server.name!r} does not remember"
            raise UserError("local.broadcast", problem, fix="Return it from the transform's init and update.")

    @property
    def signature(self) -> str:
        """What it consists of, as text: two algorithms that differ in a part or an option have different ones."""
        parts = (self.local.signature, self.uplink.name, self.aggregation.name, self.server.name)
        return f"{self.name}: {'; '.join(parts)}"

    @property
    def local_work(self) -> LocalWork:
        """The half of it that clients run."""
        return LocalWork(self.local, self.uplink)
