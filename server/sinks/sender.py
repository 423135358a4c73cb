"""Sends the moments of a run to a receiver, repeats what may succeed later, and counts what was taken or refused."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.metrics.run_stream import Moment
from server.metrics.samples import Labels
from server.sinks.receiver import Answer, Receiver
from server.sinks.write_request import RequestEncoder

BATCH = 50
"""Moments a request."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the second try, doubled up to the longest."""
MOST_PARTS, PARTS_IN_VAIN = 200, 15
"""Requests that one refused batch is split into at most, and how many of them may be refused before any is taken."""
BATCHES_IN_VAIN = 5
"""Batches refused whole, one after another, before nothing more is sent."""

Part = Sequence[Moment]


@dataclass
class Sent:
    """Counts of a run's samples and rounds that were sent or not.

    Attributes:
        sent: samples taken.
        refused: samples that will never be taken.
        dropped: rounds given up without an answer.
        failed: requests not answered, or answered with an error.
        waiting: rounds not yet sent.
        end_lost: whether the samples of the run's end were not taken.
        words: the newest reason why something was not taken.
        hopeless: whether the receiver takes nothing at all.
    """

    sent: int = 0
    refused: int = 0
    dropped: int = 0
    failed: int = 0
    waiting: int = 0
    end_lost: bool = False
    words: str = ""
    hopeless: bool = False

    @property
    def complete(self) -> bool:
        """Whether every sample was taken."""
        return not (self.refused or self.dropped or self.waiting or self.end_lost)


class Sender:
    """Sends batches of one run.

    Args:
        receiver: where to send them.
        labels: labels that every series has.
        is_future: whether a time lies in the future, where no sample may be sent.
        pause: waits for a number of seconds; returns False to break off.
        tally: the counts, which it updates.
    """

    def __init__(
        self,
        receiver: Receiver,
        labels: Labels,
        *,
        is_future: Callable[[int], bool],
        pause: Callable[[float], bool],
        tally: Sent,
    ) -> None:
        self.receiver, self.tally = receiver, tally
        self._encoder = RequestEncoder(labels)
        self._is_future, self._pause = is_future, pause
        self._in_vain = 0

    def send(self, moments: Sequence[Moment]) -> bool:
        """Send moments in one request, and repeat it until they are taken or refused.

        Returns:
            False where sending was broken off, or the receiver takes nothing at all: then none of them is counted.
        """
        past = [moment for moment in moments if not self._is_future(moment.at)]
        found = self._insist(past)
        if found is None:
            return False
        if len(past) < len(moments):
            self.tally.words = "its time lies in the future"
            self.tally.refused += _count(moments) - _count(past)
        if found.kind == "taken":
            self.tally.sent += _count(past)
            self._in_vain = 0
        else:
            self._in_vain = 0 if self._rescue(past) else self._in_vain + 1
            self.tally.hopeless = self._in_vain >= BATCHES_IN_VAIN
        return True

    def _insist(self, part: Part) -> Answer | None:
        """Send until the part is taken or refused; return None where sending was broken off or is hopeless."""
        body, pause = self._encoder.body(part), FIRST_PAUSE
        if not body:
            return Answer("taken")
        if not self._pause(0.0):
            return None
        while True:
            found = self.receiver.post(body)
            if found.kind != "taken":
                self.tally.failed, self.tally.words = self.tally.failed + 1, found.words
            if found.kind == "hopeless":
                self.tally.hopeless = True
                return None
            if found.kind != "later":
                return found
            if not self._pause(pause):
                return None
            pause = min(2 * pause, LONGEST_PAUSE)

    def _rescue(self, refused: Part) -> bool:
        """Send a refused batch in smaller and smaller parts, since a receiver takes a request whole or not at all.

        A part is cut by time and, where both halves are refused, by series: either a moment or a series is wrong.

        Returns:
            Whether any sample was taken.
        """
        parts, requests, before = deque([refused]), 0, self.tally.sent
        while parts:
            part, bad = parts.popleft(), list[Part]()
            for halves in (_by_time(part), _by_series(part)):
                vain = requests >= PARTS_IN_VAIN and self.tally.sent == before
                if halves and requests < MOST_PARTS and not vain:
                    requests += len(halves)
                    bad = [half for half in halves if not self._taken(half)]
                    if len(bad) < len(halves):
                        break
            else:
                if not bad:
                    self.tally.refused += _count(part)
                    continue
            parts.extend(bad)
        return self.tally.sent > before

    def _taken(self, part: Part) -> bool:
        found = self._insist(part)
        if found is None or found.kind != "taken":
            return False
        self.tally.sent += _count(part)
        return True


def _count(part: Part) -> int:
    return sum(map(len, part))


def _by_time(part: Part) -> list[Part]:
    """Halve a part by time; one moment has no halves."""
    middle = len(part) // 2
    return [part[:middle], part[middle:]] if middle else []


def _by_series(part: Part) -> list[Part]:
    """Halve a part by series; one series has no halves."""
    series = list(dict.fromkeys(key for moment in part for key in moment.series()))
    middle = len(series) // 2
    halves = (frozenset(series[:middle]), frozenset(series[middle:])) if middle else ()
    return [[smaller for moment in part if len(smaller := moment.only(half))] for half in halves]
