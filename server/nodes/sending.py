"""Sends messages to nodes and collects their replies, with a time limit, repeats, and a count of late replies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from clients.flower.messages import CohortMessages, repeated

SHORTEST_POLL, LONGEST_POLL, POLL_SHARE = 0.05, 1.0, 0.1
"""Seconds between looks for replies, at least and at most: between them a share of the time since the messages went."""
AT_ONCE = 4
"""Messages given to the grid at once. Nodes see all of them before their contents have been sent, and ask again and
again: with fifty at once the SuperLink answers nothing else for twenty seconds."""
OUTSTANDING = 10_000
"""Most messages whose late replies are still counted."""


@dataclass
class Sender:
    """Sends on a grid of real nodes. Flower's own `send_and_receive` looks every three seconds.

    Args:
        grid: the grid.
        timeout: seconds that a round waits.
        retries: how often those without a reply, and those that failed, are sent their message again.
        enough: (messages, replies) -> whether the replies suffice without a repeat.
        clock: monotonic seconds.
        sleep: waits for some seconds.

    Attributes:
        late: replies that came after their round, since the last `take_late`.
        repeats: messages sent again, since then.
    """

    grid: Grid
    timeout: float
    retries: int = 0
    enough: Callable[[Sequence[Message], Sequence[Message]], bool] = lambda _, replies: bool(replies)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    late: int = 0
    repeats: int = 0
    _outstanding: dict[str, None] = field(default_factory=dict)

    def send(self, messages: Sequence[Message]) -> list[Message]:
        """Send messages and return the replies of the time limit, at most one for each; errors are replies too."""
        messages = list(messages) if not isinstance(messages, CohortMessages) else messages
        waiting, replies = self._push(messages), []
        for left in range(self.retries, -1, -1):
            found, waiting = self._collect(waiting)
            failed = [(m, r) for m, r in found if r.has_error()]
            replies += [r for _, r in found if not r.has_error()]
            if not left or not (failed or waiting) or self.enough(messages, replies):
                replies += [r for _, r in failed]
                break
            again = [*(m for m, _ in failed), *waiting.values()]
            self._leave(waiting)
            self.repeats += len(again)
            repeat = messages.repeat if isinstance(messages, CohortMessages) else repeated
            waiting = self._push([repeat(m) for m in again])
        self._leave(waiting)
        return replies

    def take_late(self) -> tuple[int, int]:
        """Return late replies and repeated messages since the last call."""
        counts, self.late, self.repeats = (self.late, self.repeats), 0, 0
        return counts

    def _push(self, messages: Sequence[Message]) -> dict[str, Message]:
        """Push messages; return those that were accepted, by id."""
        if not len(messages):
            return {}
        made = list(messages)
        parts = [made[start : start + AT_ONCE] for start in range(0, len(made), AT_ONCE)]
        ids = [number for part in parts for number in self.grid.push_messages(part)]
        return {str(i): m for i, m in zip(ids, made, strict=False) if i}

    def _collect(self, waiting: dict[str, Message]) -> tuple[list[tuple[Message, Message]], dict[str, Message]]:
        """Wait for replies; return (message, reply) of those that came, and the messages that still wait."""
        found: list[tuple[Message, Message]] = []
        waiting, began = dict(waiting), self.clock()
        while waiting:
            for reply in self._pull(waiting):
                message = waiting.pop(reply.metadata.reply_to_message_id, None)
                if message is not None:
                    found.append((message, reply))
            passed = self.clock() - began
            if not waiting or passed >= self.timeout:
                break
            pause = min(max(SHORTEST_POLL, POLL_SHARE * passed), LONGEST_POLL)
            self.sleep(min(pause, self.timeout - passed))
        return found, waiting

    def _pull(self, waiting: dict[str, Message]) -> list[Message]:
        """Return the new replies; late ones of earlier messages are dropped and counted."""
        replies = []
        for reply in self.grid.pull_messages([*waiting, *self._outstanding]):
            if reply.metadata.reply_to_message_id in self._outstanding:
                del self._outstanding[reply.metadata.reply_to_message_id]
                self.late += reply.has_content()
            else:
                replies.append(reply)
        return replies

    def _leave(self, waiting: dict[str, Message]) -> None:
        """Stop waiting for messages; a reply that still comes is late."""
        self._outstanding |= dict.fromkeys(waiting)
        while len(self._outstanding) > OUTSTANDING:
            del self._outstanding[next(iter(self._outstanding))]
