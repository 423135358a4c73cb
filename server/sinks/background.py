"""A sink whose thread delivers a run: the round loop only keeps references to its lines."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from clients.core.user_code import described

MOST_WAITING = 10_000
"""Rounds that may wait for the thread; one more, and the oldest is dropped."""
GATHER_SECONDS = 1.0
Line = Mapping[str, Any]


class BackgroundSink(ABC):
    """The observer. Its thread begins with the first round and ends with the run.

    Args:
        word: the sink's word in events (`<word>_failed`) and in `export --to`.
        patience: seconds that the end of the run waits for the thread.

    Attributes:
        facts: what runs, as in environment.json.
        before: the lines that a resumed run has recorded.
        outcome: the outcome; None until the run is over, and for a run that failed.
    """

    def __init__(self, word: str, patience: float) -> None:
        self.facts: Line = {}
        self.before: Sequence[Line] = ()
        self.outcome: Line | None = None
        self._word, self._patience = word, patience
        self._queue: deque[Line] = deque(maxlen=MOST_WAITING)
        self._closing = threading.Event()
        self._failure, self._failed = "", False
        self._round = self._dropped = 0
        self._tell: Callable[[dict[str, Any]], object] = lambda event: None
        self._thread: threading.Thread | None = None

    @abstractmethod
    def deliver(self) -> None:
        """Deliver the run, whose rounds come from `batches`: the thread's whole life. What it raises is announced."""

    @abstractmethod
    def failed(self, why: str) -> str:
        """Return the announcement of a failure: what was not delivered."""

    def late(self) -> str:
        """Give up, since the end of the run has waited long enough, and return why the run was not delivered."""
        return f"it did not take the run within {self._patience:g} seconds"

    def batches(self) -> Iterator[Iterator[Line]]:
        """Yield the rounds that have come, about once a second, until the run is over."""
        while True:
            is_last = self._closing.is_set()  # read before the queue is emptied: no round comes after it
            yield self._waiting()
            if is_last:
                return
            self._closing.wait(GATHER_SECONDS)

    def attached(self, tell: Callable[[dict[str, Any]], object]) -> None:
        """Take the function that announces events of the run."""
        self._tell = tell

    def run_started(self, facts: Line) -> None:
        """Take the facts, which name the run."""
        self.facts = facts

    def recorded_before(self, lines: Sequence[Line]) -> None:
        """Continue after the rounds that a resumed run has recorded."""
        self.before = lines

    def round_finished(self, line: Line) -> None:
        """Queue a round (about 1 us); announce a failure once."""
        self._round = int(line["round"])
        self._announce()
        self._dropped += len(self._queue) == self._queue.maxlen
        self._queue.append(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._word, daemon=True)
            self._thread.start()

    def run_finished(self, outcome: Line) -> None:
        """Deliver the rest and the outcome."""
        self.outcome = outcome
        self.close()
        self._announce()

    def close(self) -> None:
        """Deliver the rest; a second call does nothing."""
        if self._thread is None or self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._failure = self.late()

    def _waiting(self) -> Iterator[Line]:
        while self._queue:
            yield self._queue.popleft()

    def _work(self) -> None:
        try:
            self.deliver()
        except Exception as error:  # the run goes on, whatever fails
            self._failure = self._failure or described(error)
        if self._dropped and not self._failure:
            self._failure = f"it was too slow: {self._dropped:,} rounds were left out"

    def _announce(self) -> None:
        """Announce the failure of the thread; only the thread of the run may announce."""
        if self._failure and not self._failed:
            self._failed = True
            message = f"{self.failed(self._failure.rstrip('.'))} fedscape export RUN --to {self._word}"
            self._tell({"round": self._round, "kind": f"{self._word}_failed", "message": message})
