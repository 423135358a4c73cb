"""The Flower ClientApp of fedscape: a node's clients, trained on the node. See `clients.flower.answering`.

This module imports no torch: where a local service answers, the process of a message only passes it on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from clients.flower.forwarding import forward
from clients.flower.node_config import read_node_config
from clients.service.owner import find_owner

if TYPE_CHECKING:
    from clients.flower.answering import ClientTask, OwnData

Load = Callable[[str, "OwnData | None", Context], "ClientTask"]
"""(text of the scenario in the message, or empty; the node's own data; Flower's context) -> the task."""


def make_client_app(load: Load, service: str = "") -> ClientApp:
    """Return the ClientApp.

    Args:
        load: makes the task. It is called for every message. It should cache slow parts in its module, because
            Flower's simulation sends the app to its workers again each time.
        service: "module:function" of what answers in a local service, on a SuperNode that does not turn it off; empty
            for none.
    """
    app = ClientApp()

    def reply(kind: str, message: Message, context: Context) -> Message:
        node = read_node_config(context.node_config)
        if service and node.service and (owner := find_owner()) is not None:
            return forward(kind, message, context, owner, service)
        from clients.flower.answering import answer

        def task(text: str, own: OwnData | None) -> ClientTask:
            return load(text, own, context)

        return Message(answer(kind, message.content, node, task, context.state), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return reply(MessageType.TRAIN, message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return reply(MessageType.EVALUATE, message, context)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return reply(MessageType.QUERY, message, context)

    return app
