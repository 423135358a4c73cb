"""The time of a round's samples: the number of the round, simulated time, or the time of day.

On the round clock round r lies r seconds after 2000-01-01T00:00:00Z, so that several runs share one axis. The simulated
clock starts at the same moment. Neither starts in 1970, because some tools fail at time zero. Neither starts now,
because samples ahead of the time of day make a Prometheus reject the samples of other programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from clients.core.errors import UserError, require, unknown_name

Clock = Literal["round", "simulated", "wall"]
CLOCKS: tuple[Clock, ...] = get_args(Clock)
EPOCH_MS = 946_684_800_000
"""2000-01-01T00:00:00Z in milliseconds."""
LATEST = 1e12
"""Seconds from which on a time is taken for a wrong number; 64 bits hold a thousand times as many."""
_SECONDS = {
    "simulated": ("simulated_seconds_total", "simulated times of rounds"),
    "wall": ("finished_at", "end times of rounds"),
}
SLACK_MS = 1_000
"""How far after now a time may lie, because clocks are read at different moments."""


@dataclass(frozen=True)
class Ending:
    """Milliseconds from the last round to the end of a run's series, all before a next round would follow.

    Attributes:
        outcome: time of the outcome's samples.
        ended: end of the rounds' series.
        over: end of the outcome's series; None lets them last for the reader's lookback, so that alerts see them.
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
    """Gives every round a time in milliseconds since 1970, at least 1 ms after the round before.

    Args:
        clock: the clock.
        now: returns the time of day in seconds.

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
            UserError: an older version made the record, and the record lacks what the clock needs.
        """
        if self.clock == "round":
            at = EPOCH_MS + 1000 * int(line["round"])
        else:
            key, what = _SECONDS[self.clock]
            seconds = line.get(key)
            if seconds is None:
                problem = f"is {self.clock!r}, and the record has no {what}"
                raise UserError("clock", problem, fix="Use 'round'.")
            start = EPOCH_MS if self.clock == "simulated" else 0
            at = start + round(1000 * seconds) if abs(seconds) < LATEST else self.last + 1
        self.last = max(at, self.last + 1)
        return self.last

    def is_future(self, at: int) -> bool:
        """Return whether a time lies in the future, for which no sample may be sent."""
        return at > 1000 * self._now() + SLACK_MS
