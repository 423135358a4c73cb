"""Which of our messages a wrapper's messages are, so that replies to them are checked as replies to ours are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from flwr.app import Message

from clients.flower.messages import CLIENTS, CohortMessages, Parcel


class CopiedMessages(CohortMessages):
    """A wrapper's messages as a cohort's: each is for the clients of the message of ours that it copies.

    A message is a copy if it is the same object, or goes to the same node for the same clients. Any other message is
    for no client, so no reply to it is used.

    Args:
        ours: the messages that our strategy made.
        sent: those that the wrapper made of them.
    """

    def __init__(self, ours: CohortMessages, sent: Sequence[Message]) -> None:
        same = {id(message): parcel for message, parcel in zip(ours, ours.parcels, strict=True)}
        alike = {(parcel.node, _listed(parcel.config.get(CLIENTS))): parcel for parcel in ours.parcels}
        found = [same.get(id(message)) or alike.get(_address(message)) or _for_nobody(message) for message in sent]
        places = np.unique(np.concatenate([np.zeros(0, np.int64), *(parcel.clients for parcel in found)]))
        parcels = [replace(parcel, clients=np.searchsorted(places, parcel.clients)) for parcel in found]
        work = replace(ours.work, clients=ours.work.clients[places])
        super().__init__(ours.kind, work, ours.arrays, ours.config, lambda _: parcels, ours.begin,
                         needs_rows=ours.needs_rows)  # fmt: skip
        self._sent = list(sent)

    def _make(self) -> list[Message]:
        return self._sent


def _address(message: Message) -> tuple[int, tuple[object, ...]]:
    """Return the node and the clients that a message names."""
    config = {key: value for record in message.content.config_records.values() for key, value in record.items()}
    return message.metadata.dst_node_id, _listed(config.get(CLIENTS))


def _listed(clients: object) -> tuple[object, ...]:
    return tuple(clients) if isinstance(clients, list) else ()


def _for_nobody(message: Message) -> Parcel:
    return Parcel(message.metadata.dst_node_id, np.zeros(0, np.int64))
