"""Sends every round of a live run to a remote-write receiver, from a thread of its own that never blocks the run.

The round loop only puts a reference into a bounded queue. Rounds that could not be sent are counted and reported at the
end. The record has them, and `fedscape export RUN --to remote-write` sends the same samples again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from server.metrics.run_stream import Moment, RunStream, Waiting, recorded_moments
from server.metrics.timeline import Clock, Timeline
from server.sinks.receiver import Receiver
from server.sinks.sender import BATCH, Sender, Sent

MOST_WAITING = 10_000
"""Rounds that may wait; one more, and the oldest is dropped."""
GATHER_SECONDS = 1.0
"""Pause between requests, so that short rounds travel together."""
PATIENCE = 5.0
"""Seconds that the end of a run waits for what is still to be sent."""

_log = logging.getLogger("fedscape.remote_write")
Tell = Callable[[dict[str, Any]], object]


class RemoteWriter:
    """The observer.

    Args:
        url: the receiver, such as `http://127.0.0.1:9090/api/v1/write`.
        clock: which time the samples carry.
        token: a bearer token, where the receiver needs one.
        patience: seconds that the end of the run waits for samples to be sent.
        timeout: seconds for a whole request.
        most_waiting: rounds that may wait.

    Attributes:
        tally: counts of the samples and rounds that were sent or not.

    Raises:
        UserError: the URL, the token or the clock is not valid.
    """

    name = "remote_write"

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = "round",
        token: str | None = None,
        patience: float = PATIENCE,
        timeout: float = 10.0,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        Timeline(clock)  # an unknown clock is refused before the run starts
        self._receiver = Receiver(url, token=token, timeout=timeout)
        self._clock: Clock = clock
        self._patience, self._most = patience, most_waiting
        self.tally = Sent()
        self._queue: deque[Waiting] = deque()
        self._in_flight = 0
        self._before: Sequence[Waiting] = ()
        self._outcome: Mapping[str, Any] | None = None
        self._closing, self._giving_up = threading.Event(), threading.Event()
        self._stream: RunStream | None = None
        self._thread: threading.Thread | None = None
        self._tell: Tell = lambda event: None
        self._round, self._troubled = 0, False

    @property
    def waiting(self) -> int:
        """Rounds queued or sent that have no answer yet."""
        return len(self._queue) + self._in_flight

    def attached(self, tell: Tell) -> None:
        """Take the function that announces events of the run."""
        self._tell = tell

    def run_started(self, facts: Mapping[str, Any]) -> None:
        """Take the facts that give every sample its labels."""
        self._stream = RunStream(facts, self._clock)

    def recorded_before(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Continue after the rounds that a resumed run has recorded: its counters, and the series that must end."""
        assert self._stream is not None
        self._before = [self._stream.take(line) for line in lines]

    def round_finished(self, line: Mapping[str, Any]) -> None:
        """Queue a round (about 10 us)."""
        assert self._stream is not None
        self._round = int(line["round"])
        waiting = self._stream.take(line)
        if self._thread is None:
            self._start(self._stream)
        if self.tally.hopeless:
            self.tally.dropped += 1
        else:
            if len(self._queue) >= self._most:
                self._next(1)
                self.tally.dropped += 1
            self._queue.append(waiting)
        if self.tally.failed and not self._troubled:
            self._troubled = True
            self._say("remote_write_failing", f"remote write: {self.tally.words}; the run goes on")

    def run_finished(self, outcome: Mapping[str, Any]) -> None:
        """Send the queued rounds, the outcome and the ends of all series; announce what could not be sent."""
        self._outcome = outcome
        self.close()
        if not self.tally.complete:
            self._say("samples_not_sent", not_sent(self.tally, self._receiver, self._clock))

    def close(self) -> None:
        """Send the queued rounds for as long as patience lasts, then stop; a second call does nothing."""
        if self._thread is None:
            self._receiver.close()
            return
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(self._patience)
        self._giving_up.set()  # the thread closes its connection itself: it may be waiting on it for an answer
        self._thread.join(0.5)
        self.tally.waiting = self.waiting

    def _say(self, kind: str, message: str) -> None:
        self._tell({"round": self._round, "kind": kind, "message": message})

    def _start(self, stream: RunStream) -> None:
        self._thread = threading.Thread(target=self._work, args=(stream,), name="remote-write", daemon=True)
        self._thread.start()

    def _work(self, stream: RunStream) -> None:
        """Send until the end: the thread's whole life."""
        sender = Sender(
            self._receiver, stream.labels, is_future=stream.timeline.is_future, pause=self._pause, tally=self.tally
        )
        self.tally.end_lost = True
        try:
            for waiting in self._before:
                stream.make(waiting)
            while not self.tally.hopeless:
                closing = self._closing.is_set()  # read before the queue is emptied: no round comes after it
                if not self._send_waiting(stream, sender):
                    break
                if closing:
                    self.tally.end_lost = self._outcome is not None and not sender.send(stream.end(self._outcome))
                    break
                self._closing.wait(GATHER_SECONDS)
        except Exception as error:
            _log.exception("the thread of remote write failed")
            self.tally.words, self.tally.hopeless = type(error).__name__, True
            self.tally.dropped += self._in_flight
        self._in_flight = 0
        self._receiver.close()

    def _send_waiting(self, stream: RunStream, sender: Sender) -> bool:
        """Send until no round waits; return False where sending was broken off."""
        while batch := self._next(BATCH):
            self._in_flight = len(batch)
            if not sender.send([stream.make(waiting) for waiting in batch]):
                self.tally.dropped += len(batch)
                return False
            self._in_flight = 0
        return True

    def _next(self, count: int) -> list[Waiting]:
        """Take the oldest rounds from the queue; the other thread may take some at the same time."""
        taken: list[Waiting] = []
        with suppress(IndexError):
            while len(taken) < count:
                taken.append(self._queue.popleft())
        return taken

    def _pause(self, seconds: float) -> bool:
        """Wait before another try, shorter once the run is over; return False once patience is over."""
        if self._closing.is_set():
            return not self._giving_up.wait(min(seconds, 0.2))
        self._closing.wait(seconds)
        return True


def not_sent(tally: Sent, receiver: Receiver, clock: Clock) -> str:
    """Return a sentence on what was not sent, and the command that sends it again."""
    rounds = tally.dropped + tally.waiting
    lost = [f"{rounds} {'round was' if rounds == 1 else 'rounds were'} not sent"] if rounds else []
    lost += ["the end of its series was not sent"] if tally.end_lost and not rounds else []
    lost += [f"{tally.refused} samples were refused"] if tally.refused else []
    again = f"fedscape export RUN --to remote-write --url {receiver.name} --clock {clock}"
    hidden = " (complete the URL: its login and query are not shown)" if receiver.hides else ""
    return f"remote write: {' and '.join(lost)} ({tally.words or 'no answer yet'}). To send all again: {again}{hidden}"


def send_recorded(
    receiver: Receiver,
    facts: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    outcome: Mapping[str, Any] | None,
    clock: Clock,
    *,
    patience: float = 30.0,
) -> Sent:
    """Send a recorded run. Samples that the live run sent are sent again; receivers accept them unchanged.

    Args:
        receiver: where to send it; it is closed at the end.
        facts: environment.json's `run`.
        lines: the record.
        outcome: outcome.json; with None the series get no ends.
        clock: which time the samples carry.
        patience: seconds that a batch may wait for an answer.

    Returns:
        Counts of the samples and rounds that were sent or not.
    """
    stream, moments = recorded_moments(facts, lines, outcome, clock)
    tally, since = Sent(), [0.0]

    def pause(seconds: float) -> bool:
        time.sleep(seconds)
        return time.monotonic() - since[0] < patience

    sender = Sender(receiver, stream.labels, is_future=stream.timeline.is_future, pause=pause, tally=tally)
    rounds = len(lines)  # the moments after them are the end of the run
    for batch in _batches(moments):
        since[0] = time.monotonic()
        if tally.hopeless or not sender.send(batch):
            tally.dropped += min(rounds, len(batch))
            tally.end_lost = tally.end_lost or rounds < len(batch)
            tally.hopeless = True
        rounds -= min(rounds, len(batch))
    receiver.close()
    return tally


def _batches(moments: Iterable[Moment]) -> Iterator[list[Moment]]:
    remaining = iter(moments)
    while batch := list(islice(remaining, BATCH)):
        yield batch
