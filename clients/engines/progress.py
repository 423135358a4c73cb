"""Progress inside a round: engines count the work that they have done; a listener gets the counts of a long phase."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

QUIET_SECONDS = 2.0
"""A phase that takes fewer seconds is not reported."""
EVERY_SECONDS = 0.2
"""Seconds between two reports."""


class Progress:
    """Counts the work of one phase at a time: local training, or an evaluation.

    It never changes a number. Where no one listens there is no `Progress`, and engines count nothing.

    Args:
        listener: called with `phase`, `done`, `of`, `unit` and `seconds` (since the phase began), at most every
            `EVERY_SECONDS`; after `conclude` also with `round` None.
        clock: returns seconds.

    Example:
        >>> times = iter([0.0, 1.0, 3.0])
        >>> progress = Progress(lambda facts: print(facts["phase"], facts["done"], facts["of"]), lambda: next(times))
        >>> progress.begin("training", 20, "batches")
        >>> progress.add(5)
        >>> progress.add(5)
        training 10 20
    """

    def __init__(self, listener: Callable[[dict[str, Any]], object], clock: Callable[[], float] = time.perf_counter):
        self._listener, self._clock = listener, clock
        self._phase, self._unit, self._of, self._done = "", "", 0, 0
        self._began, self._next, self._concluding = 0.0, 0.0, False

    def begin(self, phase: str, of: int, unit: str) -> None:
        """Begin a phase with so many units of work."""
        self._phase, self._unit, self._of, self._done = phase, unit, of, 0
        self._began = self._clock()
        self._next = self._began + QUIET_SECONDS

    def add(self, count: int) -> None:
        """Count work that is done."""
        self._done += count
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY_SECONDS
        facts = {
            "phase": self._phase,
            "done": self._done,
            "of": self._of,
            "unit": self._unit,
            "seconds": now - self._began,
        }
        self._listener(facts | ({"round": None} if self._concluding else {}))

    def conclude(self) -> None:
        """Report from now on that the rounds are over."""
        self._concluding = True
