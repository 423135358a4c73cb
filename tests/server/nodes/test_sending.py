"""Sending to nodes: in small parts, with looks for replies that become rarer the longer a round takes."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message, RecordDict

from clients.flower.shim import claim_identity, set_message_id
from server.nodes.sending import AT_ONCE, LONGEST_POLL, SHORTEST_POLL, Sender


class SlowGrid:
    """A grid whose nodes reply after some seconds of a clock that only sleeping moves."""

    def __init__(self, seconds: float) -> None:
        self.now, self._seconds = 0.0, seconds
        self.pushes: list[int] = []
        self.sleeps: list[float] = []
        self._sent: dict[str, tuple[float, Message]] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        given = list(messages)
        self.pushes.append(len(given))
        for message in given:
            set_message_id(message, f"m{message.metadata.dst_node_id}")
            self._sent[message.metadata.message_id] = (self.now, message)
        return [message.metadata.message_id for message in given]

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        sent = [self._sent[one] for one in ids]
        return [Message(RecordDict(), reply_to=message) for at, message in sent if self.now >= at + self._seconds]

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def sent(grid: SlowGrid, nodes: int, timeout: float = 1000.0) -> list[Message]:
    claim_identity()
    messages = [Message(RecordDict(), dst_node_id=node, message_type="train") for node in range(2, 2 + nodes)]
    sender = Sender(grid, timeout, clock=lambda: grid.now, sleep=grid.sleep)  # type: ignore[arg-type]
    return sender.send(messages)


def test_messages_go_in_parts_and_all_are_answered() -> None:
    grid = SlowGrid(0.0)
    replies = sent(grid, 2 * AT_ONCE + 1)
    assert grid.pushes == [AT_ONCE, AT_ONCE, 1]
    assert [reply.metadata.src_node_id for reply in replies] == list(range(2, 2 * AT_ONCE + 3))


def test_reply_is_found_soon_in_proportion_to_its_time() -> None:
    for seconds in (0.1, 1.0, 7.0, 500.0):
        grid = SlowGrid(seconds)
        assert len(sent(grid, 1)) == 1
        assert grid.now - seconds <= max(SHORTEST_POLL, min(0.11 * seconds, LONGEST_POLL)) + 1e-9
    assert min(grid.sleeps) == SHORTEST_POLL
    assert max(grid.sleeps) == LONGEST_POLL


def test_wait_ends_at_the_time_limit() -> None:
    grid = SlowGrid(1e9)
    assert sent(grid, 1, timeout=20.25) == []
    assert grid.now == 20.25
