"""The time a round's samples carry: the round's number, the fleet's simulated time, or the time of day.

On the round clock round r lies r seconds after 2000-01-01T00:00:00Z, so that several runs lie on one axis. The
simulated clock starts there too. Neither begins in 1970, where tools stumble over zero, nor now: a clock that runs
ahead of the time of day spoils a Prometheus for everyone else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from clients.core.errors import UserError, require, unknown_name

Clock = Literal["round", "simulated", "wall"]
CLOCKS: tuple[Clock, ...] = get_args(Clock)
EPOCH_MS = 946_684_800_000
"""2000-01-01T00:00:00Z in milliseconds."""
SLACK_MS = 1_000
"""How far after now a time may lie: clocks are read in another order than they are compared."""


@dataclass(frozen=True)
class Ending:
    """Milliseconds after the last round at which a run's series end, between that round and where a next would be.

    Attributes:
        outcome: what the run came to.
        ended: the rounds' series end.
        over: the outcome's series end; None leaves them to the reader's lookback, so that alerts see them.
    """

    outcome: int
    ended: int
    over: int | None


ENDINGS: Mapping[Clock, Ending] = {
    "round": Ending(250, 500, 1500),
    "simulated": Ending(1, 2, 1002),
    "wall": Ending(1, 2, None),
}


class Timeline:
    """Gives every round its time, in milliseconds since 1970; later rounds get later times, by 1 ms at least.

    Args:
        clock: which time.
        now: the time of day in seconds.

    Example:
        >>> timeline = Timeline("simulated")
        >>> [timeline.stamp({"simulated_seconds_total": t}) - EPOCH_MS for t in (0.0, 1.5, 1.5)]
        [0, 1500, 1501]
    """

    def __init__(self, clock: Clock, *, now: Callable[[], float] = time.time) -> None:
        require(clock in CLOCKS, "clock", unknown_name(clock, CLOCKS, "a clock"))
        self.clock: Clock = clock
        self.last = -1
        self._now = now

    def stamp(self, line: Mapping[str, Any]) -> int:
        """Return the time of the next line of the record.

        Raises:
            UserError: an older version made the record and did not write down what the clock needs.
        """
        if self.clock == "round":
            at = EPOCH_MS + 1000 * int(line["round"])
        elif self.clock == "simulated":
            seconds = float(line["simulated_seconds_total"])
            at = EPOCH_MS + round(1000 * seconds) if math.isfinite(seconds) else self.last + 1
        elif "finished_at" in line:
            at = round(1000 * line["finished_at"])
        else:
            raise UserError("clock", "is 'wall', and the record does not say when its rounds ended", fix="Use 'round'.")
        self.last = max(at, self.last + 1)
        return self.last

    def is_future(self, at: int) -> bool:
        """Return whether a time lies after now, where no sample may be sent."""
        return at > 1000 * self._now() + SLACK_MS
