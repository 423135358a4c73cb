"""A Flower grid of unknown nodes: random ids, replies in any order, one context for each node."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from clients.flower.shim import claim_identity, empty_run, set_message_id
from simulator.runs.run import Run


class StrangeGrid(Grid):
    """Nodes with 64-bit ids that appear one by one and reply in another order than that of their messages.

    Args:
        app: of all nodes.
        partitions: the config of each node, or its partition id.
        run_config: of the run.
        all_at_once: all nodes are there from the start.
    """

    def __init__(
        self,
        app: ClientApp,
        partitions: Sequence[object],
        run_config: dict[str, str] | None = None,
        *,
        all_at_once: bool = False,
    ) -> None:
        claim_identity()
        draw = random.Random(7)
        nodes = [draw.randrange(2**62, 2**64) for _ in partitions]
        self.contexts = {
            node: Context(1, node, _config(k), RecordDict(), run_config or {})
            for node, k in zip(nodes, partitions, strict=True)
        }
        self._replies: dict[str, Message] = {}
        self._app, self._draw, self._run = app, draw, empty_run()
        self._here = len(nodes) if all_at_once else 1

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(self, *arguments: object, **named: object) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        replies = list(self.send_and_receive(messages))
        self._replies |= {m.metadata.reply_to_message_id: m for m in replies}
        return [m.metadata.message_id for m in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [m for m in (self._replies.pop(i, None) for i in message_ids) if m is not None]

    def get_node_ids(self) -> Iterable[int]:
        self._here = min(self._here + 2, len(self.contexts))
        return list(self.contexts)[: self._here]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        received = list(messages)
        for i, message in enumerate(received):
            set_message_id(message, f"{id(message)}-{i}")
        return sorted((self._reply(m) for m in received), key=lambda _: self._draw.random())

    def _reply(self, message: Message) -> Message:
        try:
            return self._app(message, self.contexts[message.metadata.dst_node_id])
        except Exception as error:
            return Message(Error(code=2, reason=f"{type(error).__name__}: {error}"), reply_to=message)


def _config(value: object) -> dict[str, object]:
    """Return a node's config: as given, or with a partition id."""
    if isinstance(value, dict):
        return value
    return {} if value is None else {"partition-id": value}


def context(**run_config: str) -> Context:
    return Context(1, 1, {}, RecordDict(), dict(run_config))
