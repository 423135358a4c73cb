"""Sends a run's moments to a receiver: what is refused is told from what may be tried again, and both are counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.receiver import Answer, Receiver
from server.run_stream import Moment, Series
from server.samples import Labels
from server.write_request import RequestEncoder

BATCH = 50
"""Moments a request."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the second try, doubled up to the longest."""
MOST_PARTS, PARTS_IN_VAIN = 100, 15
"""Requests that one refused batch is split into at most, and how many of them may be refused before any is taken."""
BATCHES_IN_VAIN = 5
"""Batches refused whole, one after another, before nothing more is sent."""

Part = list[tuple[Series, list[bytes]]]


@dataclass
class Sent:
    """What became of a run's samples.

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
        receiver: to whom.
        labels: labels that every series has.
        is_future: whether a time lies where no sample may be sent.
        pause: waits so many seconds; False breaks off.
        tally: counts.
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
        """Send moments in one request, and again until it is answered for good.

        Returns:
            False where it was broken off, or nothing can be sent there: then nothing of it is counted.
        """
        past = [moment for moment in moments if not self._is_future(moment.at)]
        part: Part = list(self._encoder.split(past).items())
        found = self._insist(part)
        if found is None:
            return False
        if len(past) < len(moments):
            self.tally.words = "its time lies in the future"
            self.tally.refused += sum(map(len, moments)) - sum(map(len, past))
        if found.kind == "taken":
            self.tally.sent += _count(part)
            self._in_vain = 0
        else:
            taken = self._split(part)
            self._in_vain = 0 if taken else self._in_vain + 1
            self.tally.hopeless = self._in_vain >= BATCHES_IN_VAIN
        return True

    def _insist(self, part: Part) -> Answer | None:
        """Send until it is taken or refused; None where it was broken off or is hopeless."""
        if not part:
            return Answer("taken")
        body, pause = self._encoder.body(part), FIRST_PAUSE
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

    def _split(self, refused: Part) -> bool:
        """Send a refused batch in ever smaller parts, as a receiver takes a request whole or not at all."""
        parts, asked, taken = deque(_halves(refused)), 0, False
        while parts:
            part = parts.popleft()
            in_vain = not taken and asked >= PARTS_IN_VAIN
            found = None if in_vain or asked >= MOST_PARTS else self._insist(part)
            asked += 1
            if found is not None and found.kind == "taken":
                taken = True
                self.tally.sent += _count(part)
            elif found is None or _count(part) == 1:
                self.tally.refused += _count(part)
            else:
                parts.extend(_halves(part))
        if _count(refused) == 1:
            self.tally.refused += 1
        return taken


def _count(part: Part) -> int:
    return sum(len(points) for _, points in part)


def _halves(part: Part) -> list[Part]:
    """Halve a part by series, and where it has only one by time; a single sample has no halves."""
    if len(part) > 1:
        return [part[: len(part) // 2], part[len(part) // 2 :]]
    series, points = part[0]
    middle = len(points) // 2
    return [[(series, points[:middle])], [(series, points[middle:])]] if middle else []
