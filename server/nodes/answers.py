"""What nodes answer to a query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from flwr.app import ConfigRecord, Message

from clients.core.arrays import I64
from clients.core.channels import Channel
from clients.core.errors import StrategyError
from clients.core.examples import Task
from clients.core.population_parts import ExampleSpec
from clients.core.shown.text import presentable
from clients.flower.messages import CHANNELS, CLIENTS, CONFIG, NAME, NAMES, OUTPUTS, SHAPE, SIZES, TASK


@dataclass(frozen=True)
class Answer:
    """A node's answer to a query.

    Attributes:
        node: Flower's id.
        clients: those that it holds, (K,).
        sizes: their training examples, (K,); None where it does not say.
        names: their names; empty where it does not say.
        name: the node's name; empty where it does not say.
        form: what an example of its own data is; None where it does not say.
    """

    node: int
    clients: I64
    sizes: I64 | None = None
    names: tuple[str, ...] = field(default=())
    name: str = ""
    form: ExampleSpec | None = None


def read_answer(reply: Message) -> Answer:
    """Read a node's answer to a query.

    Raises:
        StrategyError: the node failed, or it names no client: it runs another app.
    """
    node = reply.metadata.src_node_id
    if reply.has_error():
        raise StrategyError("nodes", f"node {node} failed its query: {presentable(str(reply.error.reason))}")
    records = list(reply.content.metric_records.values())
    listed = [record[CLIENTS] for record in records if isinstance(record.get(CLIENTS), list)]
    if len(listed) == 1:
        clients = np.array(listed[0], np.int64)
        sizes = next((values for r in records if isinstance(values := r.get(SIZES), list)), None)
        given = None if sizes is None or len(sizes) != len(clients) else np.array(sizes, np.int64)
        return Answer(node, clients, given, *_described(reply))
    named = [record["client"] for record in records if "client" in record]
    if len(named) == 1 and isinstance(named[0], int):
        return Answer(node, np.array([named[0]], np.int64))
    got = f"got {named[0]!r:.60}" if named else "it has none"
    fix = (
        "Start the SuperNodes with fedscape's ClientApp, or answer queries with MetricRecord({'client': partition_id})."
    )
    raise StrategyError("nodes", f"node {node} must answer a query with its client, a whole number; {got}", fix=fix)


def _described(reply: Message) -> tuple[tuple[str, ...], str, ExampleSpec | None]:
    """Return the names of the clients, the node's name and the form of its examples, as far as the node states them."""
    config = reply.content.config_records.get(CONFIG, ConfigRecord())
    listed, shape = config.get(NAMES), config.get(SHAPE)
    names = tuple(presentable(str(name))[:200] for name in listed) if isinstance(listed, list) else ()
    form = None
    task, outputs = config.get(TASK), config.get(OUTPUTS)
    if isinstance(shape, list) and isinstance(outputs, int) and task in get_args(Task):
        channels = config.get(CHANNELS)
        known = tuple(Channel(name=presentable(str(c))[:200]) for c in channels) if isinstance(channels, list) else ()
        form = ExampleSpec(task=task, feature_shape=tuple(map(int, shape)), outputs=outputs, channels=known)  # type: ignore[arg-type]
    return names, presentable(str(config.get(NAME, "")))[:200], form
