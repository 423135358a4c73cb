"""Passes a message to the node's local service, so that its own process imports no torch; and reads it there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict

from clients.core.errors import ServiceError, StrategyError
from clients.flower.shim import content_of, serialized
from clients.service.asking import Service
from clients.service.owner import Owner
from clients.service.place import place_of
from clients.service.turns import turn

_FAILED = 2
"""Flower's error code of a ClientApp that raised an exception."""
_LENGTH = 8
_LEAST_SECONDS = 1.0


def forward(kind: str, message: Message, context: Context, owner: Owner, answer: str) -> Message:
    """Return the local service's reply to a message; an error of Flower with the reason where it fails.

    Args:
        kind: `MessageType.TRAIN`, `EVALUATE` or `QUERY`.
        message: the message.
        context: Flower's; its state is sent too, and holds what the answer left in it.
        owner: the SuperNode, with which the service ends.
        answer: "module:function" of what answers in the service.
    """
    sent = message.metadata
    seconds = max(_LEAST_SECONDS, sent.created_at + sent.ttl - time.time())
    node = {"node_config": dict(context.node_config), "run_config": dict(context.run_config)}
    try:
        service = Service(place_of(owner), owner, answer)
        with turn():
            reply = service.ask(kind, node, packed(message.content, context.state), seconds)
        content, state = unpacked(reply)
    except (ServiceError, StrategyError) as error:
        return Message(Error(code=_FAILED, reason=str(error)), reply_to=message)
    for name, record in state.items():
        context.state[name] = record
    return Message(content, reply_to=message)


def packed(content: RecordDict, state: RecordDict) -> bytes:
    """Return a message's content and a node's state as bytes."""
    first = serialized(content)
    return len(first).to_bytes(_LENGTH, "little") + first + serialized(state)


def unpacked(data: bytes) -> tuple[RecordDict, RecordDict]:
    """Return the content and the state that `packed` wrote.

    Raises:
        StrategyError: the bytes hold none.
    """
    size = int.from_bytes(data[:_LENGTH], "little")
    if len(data) < _LENGTH + size:
        raise StrategyError("message", f"has {len(data)} bytes, and its content should have {size}")
    try:
        return content_of(data[_LENGTH : _LENGTH + size]), content_of(data[_LENGTH + size :])
    except Exception as error:  # protobuf and Flower raise several kinds
        raise StrategyError("message", f"is no content of a message: {type(error).__name__}") from error


def config_in(node: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a config that `forward` sent."""
    found = node.get(name)
    return found if isinstance(found, Mapping) else {}
