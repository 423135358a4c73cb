"""The Flower ClientApp of fedscape: a node's clients, trained on the node. See `clients.flower.answering`."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.flower.answering import ClientTask, OwnData, answer
from clients.flower.messages import EVALUATE, QUERY, TRAIN
from clients.flower.node_config import read_node_config

Load = Callable[[str, OwnData | None, Context], ClientTask]
"""(text of the scenario in the message, or empty; the node's own data; Flower's context) -> the task."""


def make_client_app(load: Load) -> ClientApp:
    """Return the ClientApp.

    Args:
        load: makes the task. It is called for every message. It should cache slow parts in its module, because
            Flower's simulation sends the app to its workers again each time.
    """
    app = ClientApp()

    def reply(kind: str, message: Message, context: Context) -> Message:
        node = read_node_config(context.node_config)

        def task(text: str, own: OwnData | None) -> ClientTask:
            return load(text, own, context)

        return Message(answer(kind, message.content, node, task, context.state), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return reply(TRAIN, message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return reply(EVALUATE, message, context)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return reply(QUERY, message, context)

    return app
