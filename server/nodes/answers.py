"""What nodes answer to a query."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord

from clients.core.arrays import I64
from clients.core.channels import Channel
from clients.core.errors import StrategyError
from clients.core.examples import Task
from clients.core.population_parts import ExampleSpec
from clients.core.shown.text import excerpt, presentable
from clients.flower.decoding import whole_numbers
from clients.flower.messages import CHANNELS, CLIENTS, CONFIG, NAME, NAMES, OUTPUTS, SHAPE, SIZES, TASK

MOST_CLIENTS = 1_000_000
"""The most clients of a node with data of its own."""
MOST_SIDES, MOST_NUMBERS = 8, 1_000_000
"""The most dimensions of an example, and the most numbers in it, or outputs."""


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


def read_answer(reply: Message, most: int = MOST_CLIENTS) -> Answer:
    """Read a node's answer to a query.

    Args:
        reply: the reply.
        most: the most clients that the node may hold.

    Raises:
        StrategyError: the node failed, or it names no client: it runs another app.
    """
    node = reply.metadata.src_node_id
    if reply.has_error():
        raise StrategyError("nodes", f"node {node} failed its query: {excerpt(str(reply.error.reason))}")
    records = list(reply.content.metric_records.values())
    listed = [record for record in records if isinstance(record.get(CLIENTS), list)]
    if len(listed) == 1:
        try:
            clients, sizes = _clients(listed[0], most)
            names, name, form = _described(reply, most)
            return Answer(node, clients, sizes, names, name, form)
        except ValueError as error:
            problem = f"node {node} answers its query with {error}"
            raise StrategyError("nodes", problem, fix="Start the SuperNodes with fedscape's ClientApp.") from None
    named = [record["client"] for record in records if "client" in record]
    if len(named) == 1 and isinstance(named[0], int):
        return Answer(node, np.array([named[0]], np.int64))
    got = f"got {named[0]!r:.60}" if named else "it has none"
    fix = (
        "Start the SuperNodes with fedscape's ClientApp, or answer queries with MetricRecord({'client': partition_id})."
    )
    raise StrategyError("nodes", f"node {node} must answer a query with its client, a whole number; {got}", fix=fix)


def _clients(record: MetricRecord, most: int) -> tuple[I64, I64]:
    """Return a node's clients and their sizes.

    Raises:
        ValueError: they are no whole numbers, too many, or not as many sizes as clients.
    """
    clients, sizes = record[CLIENTS], record.get(SIZES)
    assert isinstance(clients, list)
    if not isinstance(sizes, list) or not len(sizes) == len(clients) <= most:
        count = len(sizes) if isinstance(sizes, list) else 0
        raise ValueError(f"{len(clients):,} clients and {count:,} sizes; it may hold at most {most:,}")
    return whole_numbers(clients, "clients that are no whole numbers"), whole_numbers(sizes, "sizes that are none")


def _described(reply: Message, most: int) -> tuple[tuple[str, ...], str, ExampleSpec | None]:
    """Return the names of the clients, the node's name and the form of its examples, as far as the node states them.

    Raises:
        ValueError: the form is none that a table has.
    """
    config = reply.content.config_records.get(CONFIG, ConfigRecord())
    listed, shape = config.get(NAMES), config.get(SHAPE)
    names = tuple(_short(name) for name in listed[:most]) if isinstance(listed, list) else ()
    form = None
    task, outputs = config.get(TASK), config.get(OUTPUTS)
    if isinstance(shape, list) and isinstance(outputs, int) and task in get_args(Task):
        sides = tuple(whole_numbers(shape[: MOST_SIDES + 1], "a shape that is no whole numbers").tolist())
        numbers = math.prod(sides)
        if len(sides) > MOST_SIDES or min(sides, default=1) < 1 or max(numbers, outputs) > MOST_NUMBERS or outputs < 1:
            raise ValueError(f"examples of shape {list(sides)} with {outputs} outputs")
        channels = config.get(CHANNELS)
        listed = channels[:MOST_NUMBERS] if isinstance(channels, list) else []
        known = tuple(Channel(name=_short(channel)) for channel in listed)
        form = ExampleSpec(task=task, feature_shape=sides, outputs=outputs, channels=known)  # type: ignore[arg-type]
    return names, _short(config.get(NAME, "")), form


def _short(text: object) -> str:
    return presentable(str(text)[:200])
