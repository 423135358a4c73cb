"""Queries of nodes: a reply without fedscape's answer is named, with the node and the fix."""

from __future__ import annotations

import re

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from strange_grid import StrangeGrid

from clients.core.errors import StrategyError
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
