"""Which replies of nodes are used: an update must be the work that was sent, finite, and within bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from torch import Tensor

from clients.core.arrays import I32, I64
from clients.core.shown.text import excerpt
from clients.flower.codec import Codec
from clients.flower.decoding import Check, Rejection, number
from clients.flower.messages import METRICS, ROUND, CohortMessages
from clients.training.options import LocalOptions
from clients.training.work import CohortUpdate
from server.nodes.bounds import ReplyBounds
from server.nodes.plausibility import impossible_counts, impossible_faults, impossible_metrics, impossible_steps

REJECTED, EXCLUDED = "update_rejected", "client_excluded"
"""Kinds of events."""


@dataclass
class Admission:
    """Checks updates, counts rejections, and excludes clients that have too many.

    Args:
        sizes: training examples of each client (N,), as declared.
        max_norm: longest distance of an update from the broadcast model; None for no bound.
        exclude_after: rejections after which a client is sent no more work; None for never.
        local: local training, as the algorithm runs it, from which the possible local steps follow; None for no check.
        faults: round -> names of the faults in the clients' data; None for no check.

    Attributes:
        offences: rejected updates of each client.
    """

    sizes: I32
    max_norm: float | None = None
    exclude_after: int | None = None
    local: LocalOptions | None = None
    faults: Callable[[int], Collection[str]] | None = None
    offences: Counter[int] = field(default_factory=Counter)

    def check(self, sent: CohortMessages, codec: Codec) -> Check:
        """Return the check of the replies to a round's messages."""
        anchor, round_index, answered = sent.work.params, sent.work.round_index, set[int]()
        vectors = len(sent.work.rule.returns)
        faults = self.faults(round_index) if self.faults is not None else None

        def before(reply: Message) -> str:
            meant = sent.clients_of(reply)
            bounds = ReplyBounds.of(len(meant), codec.most_bytes(len(meant), vectors))
            return other_clients(reply, meant) or bounds.problem_of(reply.content)

        def after(reply: Message, update: CohortUpdate) -> str:
            problem = (
                _misfit(sent.clients_of(reply), update, answered)
                or _other_round(reply, round_index)
                or _not_finite(update)
                or impossible_counts(update, self.sizes)
                or impossible_steps(reply, update, self.local)
                or impossible_metrics(reply, update)
                or impossible_faults(update, faults)
                or self._too_long(update, anchor)
            )
            answered.update([] if problem else update.clients.tolist())
            return problem

        return Check(before, after)

    def reject(self, sent: CohortMessages, rejected: Sequence[Rejection]) -> list[dict[str, Any]]:
        """Count rejections and return their events."""
        events: list[dict[str, Any]] = []
        round_index = sent.work.round_index
        for one in rejected:
            clients = sent.clients_of(one.reply).tolist()
            before = set(self.excluded)
            self.offences.update(clients)
            message = f"the update of node {one.node} for {named_clients(clients)} is not used: {excerpt(one.reason)}"
            events.append({"round": round_index, "kind": REJECTED, "message": message, "clients": clients})
            if new := sorted(set(self.excluded) - before):
                message = f"{named_clients(new)} get no more work: {self.exclude_after} updates were rejected"
                events.append({"round": round_index, "kind": EXCLUDED, "message": message, "clients": new})
        return events

    def replay(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Count the rejections of a record again, as a resumed run does."""
        for event in events:
            if event.get("kind") == REJECTED:
                self.offences.update(int(client) for client in event.get("clients", ()))

    @property
    def excluded(self) -> list[int]:
        """The clients that are sent no more work, increasing."""
        least = self.exclude_after
        return [] if least is None else sorted(client for client, n in self.offences.items() if n >= least)

    def admitted(self, clients: I64) -> I64:
        """Return a cohort without the clients that are excluded."""
        return clients[~np.isin(clients, self.excluded)] if self.exclude_after is not None else clients

    def _too_long(self, update: CohortUpdate, anchor: Tensor) -> str:
        if self.max_norm is None:
            return ""
        lengths = torch.linalg.vector_norm(update.params.double() - anchor.double(), dim=1)
        k = int(lengths.argmax())
        if lengths[k] <= self.max_norm:
            return ""
        return (f"client {update.clients[k]} moved the model by {lengths[k]:.4g}, "
                f"above nodes.max_update_norm = {self.max_norm:g}")  # fmt: skip


def other_clients(reply: Message, meant: I64) -> str:
    """Return why a reply cannot be for the clients that its node was sent work for, before its lists are read."""
    if not len(meant):
        return "it answers no message of this round to its node"
    record = next(iter(reply.content.metric_records.values()), None)
    named = record.get("client") if record is not None else None
    count = len(named) if isinstance(named, list) else 1
    return (
        f"it is for {count:,} clients, and {named_clients(meant.tolist())} were sent work"
        if count != len(meant)
        else ""
    )


def _misfit(meant: I64, update: CohortUpdate, answered: set[int]) -> str:
    if not np.array_equal(np.sort(update.clients), meant):
        return f"it is for {named_clients(update.clients.tolist())}, and {named_clients(meant.tolist())} were sent work"
    twice = answered.intersection(update.clients.tolist())
    return f"client {min(twice)} has answered already" if twice else ""


def _other_round(reply: Message, round_index: int) -> str:
    """Return why a reply is of another round; a reply that names none is taken by the message that it answers."""
    record = reply.content.metric_records.get(METRICS)
    named = record.get(ROUND) if record is not None else None
    if named is None or number(named) == round_index:
        return ""
    return f"it is of round {named!r:.20}, and the round is {round_index}"


def _not_finite(update: CohortUpdate) -> str:
    parts = {"parameters": update.params, "buffers": update.buffers} | dict(update.extras)
    for name, rows in parts.items():
        finite = torch.isfinite(rows).all(dim=1)
        if not finite.all():
            client = update.clients[int((~finite).nonzero()[0])]
            return f"{name} of client {client} are not finite"
    return ""


def named_clients(clients: Sequence[int]) -> str:
    """Return clients as a text, such as "clients 4, 5"."""
    if not clients:
        return "no client"
    shown = ", ".join(map(str, clients[:8]))
    more = f", ... ({len(clients)} in all)" if len(clients) > 8 else ""
    return f"client{'s' if len(clients) > 1 else ''} {shown}{more}"
