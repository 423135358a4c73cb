"""Recognises a strategy that waits for what can never happen.

The clients of a grid in one process are there from the start, and answer at once. So a strategy that polls the grid
(for its nodes, or for replies that are not there) and sends nothing in between sees the same answer for ever. A slow
strategy is none of this: it computes or sends between two polls, and no time limit applies to it.
"""

from __future__ import annotations

import time
from types import FrameType

from clients.core.errors import StrategyError

FLOWER_POLLS = 3
"""Polls by one call of a function of Flower's: its loops do nothing but wait."""
IDLE_ROUNDS, IDLE_POLLS = 2, 30
"""Polls in a row by any other code, with a pause before each: so many for each client, and at least so many. A loop
over the clients, which may wait for a file or a server at each, polls once for each client."""
IDLE_SECONDS, BUSY_SECONDS, BUSY_SHARE = 0.01, 0.004, 0.2
"""A pause is at least so long. The thread that polls computes at most so many seconds in it, which a busy machine does
not change, and all threads of the process together compute at most this share of it."""
BUSY_ROUNDS, BUSY_POLLS = 100, 10_000
"""Polls in a row without a pause: so many for each client, and at least so many."""


class WaitWatch:
    """Counts polls of a grid between two messages.

    Args:
        clients: the number of the grid's nodes, which never changes.
    """

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self.moved()

    def moved(self) -> None:
        """Begin to count anew: messages were sent, or replies were returned."""
        self._polls = self._idle = self._by_frame = 0
        self._frame: FrameType | None = None
        self._at: tuple[float, float, float] | None = None

    def polled(self, caller: FrameType, what: str) -> None:
        """Count a poll.

        Args:
            caller: the frame of the code that polls.
            what: what it polls for: "nodes" or "replies".

        Raises:
            StrategyError: the strategy waits for ever.
        """
        self._polls += 1
        self._count_idle()
        is_flower = str(caller.f_globals.get("__name__", "")).startswith("flwr.")
        self._by_frame = self._by_frame + 1 if is_flower and caller is self._frame else 1
        self._frame = caller if is_flower else None  # of other code no frame is kept: it would keep its arrays
        waits = is_flower and self._by_frame >= FLOWER_POLLS
        waits = waits or self._idle >= max(IDLE_ROUNDS * self._clients, IDLE_POLLS)
        if waits or self._polls >= max(BUSY_ROUNDS * self._clients, BUSY_POLLS):
            polls, wanted = self._polls, caller.f_locals.get("min_available_nodes") if is_flower else None
            self.moved()
            raise _waits(what, caller.f_code.co_name, polls, self._clients, wanted)

    def _count_idle(self) -> None:
        now, before = (time.monotonic(), time.thread_time(), time.process_time()), self._at
        self._at = now
        if before is not None:
            wall, own, all_threads = (after - start for after, start in zip(now, before, strict=True))
            is_pause = wall >= IDLE_SECONDS and own <= BUSY_SECONDS and all_threads <= BUSY_SHARE * wall
            self._idle = self._idle + 1 if is_pause else 0


def _waits(what: str, function: str, polls: int, clients: int, wanted: object) -> StrategyError:
    if what == "replies":
        problem = f"waits for ever in {function}: it pulled {polls:,} times for replies that do not exist"
        return StrategyError("strategy", problem, fix="Pull the ids that push_messages returned; they are answered.")
    number = f"{wanted} nodes" if isinstance(wanted, int) else "nodes"
    problem = f"waits for ever in {function}: it looked {polls:,} times for {number} and sent nothing"
    fix = f"Let it wait for at most {clients:,} nodes: lower its fractions to 1, and its minimum numbers of nodes."
    return StrategyError("strategy", f"{problem}, and this grid has {clients:,} at all times", fix=fix)
