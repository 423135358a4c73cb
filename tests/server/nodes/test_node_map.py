"""Queries of nodes: a reply without fedscape's answer is named, with the node and the fix."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from strange_grid import StrangeGrid

from clients.core.errors import StrategyError
from clients.flower.messages import CONFIG, OUTPUTS, SHAPE, TASK
from clients.flower.shim import SUPERLINK_NODE, claim_identity, set_message_id
from server.nodes.node_map import NodeMap


def grid_answering(content: RecordDict | Exception) -> StrangeGrid:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        if isinstance(content, Exception):
            raise content
        return Message(content, reply_to=message)

    return StrangeGrid(app, [0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (RecordDict(), "a whole number; it has none"),
        (RecordDict({"config": ConfigRecord({"client": 0})}), "a whole number; it has none"),
        (RecordDict({"metrics": MetricRecord({"id": 0})}), "a whole number; it has none"),
        (RecordDict({"metrics": MetricRecord({"client": 0.0})}), "a whole number; got 0.0"),
        (RecordDict({"metrics": MetricRecord({"client": [0, 1]})}), "a whole number; got [0, 1]"),
        (RecordDict({"metrics": MetricRecord({"client": 7})}), "holds client 7, which is taken or unknown"),
        (ValueError("no\x1b[2J file"), r"failed its query: ValueError: no\x1b[2J file"),
    ],
)
def test_node_that_names_no_client_is_named(content: RecordDict | Exception, words: str) -> None:
    with pytest.raises(StrategyError, match=rf"^nodes: node \d+ .*{re.escape(words)}") as error:
        NodeMap(1).on(grid_answering(content))
    assert "\x1b" not in str(error.value)


def test_first_reply_with_the_metric_counts_among_other_records() -> None:
    other = RecordDict({"a": MetricRecord({"load": 1.0}), "metrics": MetricRecord({"client": 0})})
    assert NodeMap(1).on(grid_answering(other)) is not None


def census(clients: object, sizes: object, **more: object) -> RecordDict:
    numbers = {"clients": clients, "sizes": sizes, **more}
    return RecordDict({"metrics": MetricRecord(numbers)})  # type: ignore[arg-type]


HOSTILE: list[tuple[RecordDict, str]] = [
    (census([math.nan], [10.0]), "clients that are no whole numbers"),
    (census([0.5], [10.0]), "clients that are no whole numbers"),
    (census([2**64 - 1], [10]), "clients that are no whole numbers"),
    (census([1], [math.inf]), "sizes that are none"),
    (census([1], [10, 10]), "1 clients and 2 sizes"),
    (census([1], 10), "1 clients and 0 sizes"),
    (census([0] * 1_000_000, [0] * 1_000_000), "1,000,000 clients and 1,000,000 sizes; it may hold at most 2"),
    (census([1], [10**12]), "has 1000000000000 training examples of client 1, and the scenario 10"),
    (census([1], [-10]), "has -10 training examples of client 1"),
    (census([-1], [10]), "holds client -1, which is taken or unknown"),
    (census([7], [10]), "holds client 7, which is taken or unknown"),
    (census([1, 1], [10, 10]), "which is taken or unknown"),
]


@pytest.mark.parametrize(("content", "words"), HOSTILE)
def test_hostile_answer_to_a_query_is_named(content: RecordDict, words: str) -> None:
    with pytest.raises(StrategyError, match=re.escape(words)) as error:
        NodeMap(2, sizes=np.array([10, 10], np.int32)).on(grid_answering(content))
    assert len(str(error.value)) < 500


class Joining(StrangeGrid):
    """A node that holds both clients; others join later with answers of their own, or none."""

    def __init__(self) -> None:
        self.answers: dict[int, RecordDict | None] = {}
        self.queries: Counter[int] = Counter()
        app = ClientApp()

        @app.query()
        def query(message: Message, context: Context) -> Message:
            return Message(census([0, 1], [10, 10]), reply_to=message)

        super().__init__(app, [0])

    def join(self, content: RecordDict | None) -> int:
        node = len(self.answers) + 100
        self.answers[node] = content
        return node

    def get_node_ids(self) -> Iterable[int]:
        return [*super().get_node_ids(), *self.answers]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        received = list(messages)
        self.queries.update(m.metadata.dst_node_id for m in received)
        late = [m for m in received if m.metadata.dst_node_id in self.answers]
        replies = list(super().send_and_receive([m for m in received if m not in late]))
        for message in late:
            set_message_id(message, f"late-{id(message)}")
            content = self.answers[message.metadata.dst_node_id]
            replies += [Message(content, reply_to=message)] if content is not None else []
        return replies


@pytest.mark.parametrize("content", [*(content for content, _ in HOSTILE), census([0], [10]), RecordDict()])
def test_hostile_node_that_joins_later_gets_no_client_and_ends_nothing(content: RecordDict) -> None:
    grid, nodes = Joining(), NodeMap(2, sizes=np.array([10, 10], np.int32), wait_seconds=1.0)
    before = nodes.on(grid)(np.array([0, 1]))
    late = grid.join(content)
    for _ in range(2):
        after = nodes.on(grid)(np.array([0, 1]))
        assert [(p.node, p.clients.tolist()) for p in after] == [(p.node, p.clients.tolist()) for p in before]
    assert grid.queries[late] == 1, "a refused node is not queried again"


def test_node_that_joins_later_and_is_silent_is_queried_once() -> None:
    grid, nodes = Joining(), NodeMap(2, sizes=np.array([10, 10], np.int32), wait_seconds=0.1)
    nodes.on(grid)
    late = grid.join(None)
    for _ in range(3):
        nodes.on(grid)
    assert grid.queries[late] == 1, "it would hold up every round"


def test_node_with_the_clients_of_a_living_one_is_refused_until_that_one_leaves() -> None:
    class Leaving(Joining):
        gone = False

        def get_node_ids(self) -> Iterable[int]:
            return list(self.answers) if self.gone else super().get_node_ids()

    grid, nodes = Leaving(), NodeMap(2, sizes=np.array([10, 10], np.int32), wait_seconds=1.0)
    nodes.on(grid)
    late = grid.join(census([0, 1], [10, 10]))
    nodes.on(grid)
    nodes.on(grid)
    assert nodes.take_refusals() == [f"node {late} holds client 0, which is taken or unknown"]
    assert nodes.take_refusals() == []
    grid.gone = True
    assert [(p.node, p.clients.tolist()) for p in nodes.on(grid)(np.array([0, 1]))] == [(late, [0, 1])]
    assert nodes.take_refusals() == []


def test_node_that_goes_while_it_is_queried_is_not_an_error() -> None:
    """The SuperLink answers for it, with an error."""

    class Going(Joining):
        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            received = list(messages)
            replies = list(super().send_and_receive(received))
            for message in received:
                if message.metadata.dst_node_id in self.answers:
                    replies.append(Message(Error(5, "Node Unavailable"), reply_to=message))
                    vars(replies[-1].metadata)["_src_node_id"] = SUPERLINK_NODE
            return replies

    grid, nodes = Going(), NodeMap(2, sizes=np.array([10, 10], np.int32), wait_seconds=1.0)
    nodes.on(grid)
    grid.join(None)
    nodes.on(grid)
    assert nodes.take_refusals() == []


class Listed(Grid):
    """Nodes with given ids, each with one client; those that are gone are not listed."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids, self.gone = list(ids), set[int]()
        self._replies: list[Message] = []

    set_run = run = create_message = send_and_receive = None  # type: ignore[assignment]

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self.ids if node not in self.gone]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            set_message_id(message, str(message.metadata.dst_node_id))
            client = self.ids.index(message.metadata.dst_node_id)
            self._replies.append(Message(census([client], [10]), reply_to=message))
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies, self._replies = self._replies, []
        return replies


@pytest.mark.parametrize("ids", [(20, 10, 30), (2**63 + 5, 10, 2**64 - 1), (2**63 + 5, 2**63 + 9, 2**63 + 1)])
@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_clients_of_every_other_node_get_work_where_some_are_gone(ids: tuple[int, ...], gone: tuple[int, ...]) -> None:
    """Whatever the order of the ids: Flower draws them from 64 bits, and ours are kept with a sign."""
    claim_identity()
    grid, nodes = Listed(ids), NodeMap(3, sizes=np.full(3, 10, np.int32), wait_seconds=1.0)
    nodes.on(grid)
    grid.gone = {ids[k] for k in gone}
    made = nodes.on(grid)(np.arange(3))
    left = [k for k in range(3) if k not in gone]
    assert [(parcel.node, parcel.clients.tolist()) for parcel in made] == [(ids[k], [k]) for k in left]
    assert nodes.take_lost() == list(gone)


def test_answer_of_another_form_is_refused() -> None:
    for shape, outputs in (([10**9], 2), ([10**4] * 3, 2), ([1] * 100, 2), ([0], 2), ([4], 10**9), ([4], -1)):
        config = ConfigRecord({SHAPE: shape, OUTPUTS: outputs, TASK: "classification"})
        content = RecordDict({**census([0], [1]), CONFIG: config})
        with pytest.raises(StrategyError, match="answers its query with examples of shape"):
            NodeMap(1).on(grid_answering(content))
