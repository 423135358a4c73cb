"""The race of engines: candidates are timed in turn, and those that are clearly beaten drop out.

Another process can slow any sample down, by a factor of a hundred where two threads wait for each other. So rounds of
the race go through all candidates, each is judged by the median of its samples, and none drops out after one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from simulator.engines.probe import Cost, Sample, plain_round, stacked_round
from simulator.engines.timing import Candidate, Timing

RACE_SECONDS = 1.2
"""The most seconds of timed steps of a race; where steps are heavy, each candidate is still timed once."""
WORTH = 0.2
"""After three samples of each, a race takes at most this share of the run's predicted training."""
ENOUGH, MOST = 3, 7
"""Samples of each candidate after which a short run's race ends, and any race."""
BEATEN = 1.5
"""A candidate that takes this many times as long as the best drops out."""
HOPELESS = 3.0
"""A wider tile is not timed after one that takes this many times as long as the best."""
TIE = 1.05
"""Candidates that take at most this many times as long as the best are equal: the smaller one is chosen."""


@dataclass(eq=False)
class Entrant:
    """A candidate in the race.

    Attributes:
        candidate: what is timed.
        timing: its samples.
        sample: the cohort for which its seconds are predicted.
        narrower: the next narrower tile with the same threads; None for the narrowest and for the plain engine.
    """

    candidate: Candidate
    timing: Timing
    sample: Sample
    narrower: Entrant | None = None

    @property
    def cost(self) -> Cost:
        """Its cost by the samples so far."""
        return self.timing.cost

    @property
    def alone(self) -> Cost:
        """The cost of the narrowest tile with the same threads."""
        return self.cost if self.narrower is None else self.narrower.alone

    @property
    def seconds(self) -> float:
        """The predicted seconds of a round, by the samples so far."""
        if self.candidate.engine == "plain":
            return plain_round(self.sample, self.cost, self.candidate.width)
        return stacked_round(self.sample, self.cost, self.candidate.width, self.alone)

    @property
    def size(self) -> tuple[int, int]:
        """What is smaller is preferred where times are equal: clients held together, then threads."""
        return (0 if self.candidate.engine == "plain" else self.candidate.width), self.candidate.threads


def race(entrants: Sequence[Entrant], rounds: int, budget: float = RACE_SECONDS) -> list[Entrant]:
    """Time candidates in turn, and return those that were timed.

    Args:
        entrants: the candidates; of tiles with the same threads the narrower first.
        rounds: of the run: a short one is not worth a long race.
        budget: seconds of timed steps.
    """
    for entrant in entrants:
        if _may_start(entrant, entrants, budget):
            entrant.timing.warm_up()
    running = timed = [e for e in entrants if e.timing.is_warm]
    for number in range(1, MOST + 1):
        behind = [e for e in running if e.timing.repeats < number]
        for entrant in behind if number == 1 else sorted(behind, key=_seconds):
            if number <= 2 or _spent(timed) + entrant.timing.sample_seconds <= budget:
                entrant.timing.repeat()
        best = min(map(_seconds, timed))
        running = [e for e in running if e.timing.repeats < 2 or e.seconds <= BEATEN * best]
        over = _spent(timed) >= (min(budget, WORTH * best * rounds) if number >= ENOUGH else budget)
        if number >= 2 and (over or len(running) == 1):
            break
    return timed


def choose(entrants: Iterable[Entrant], seconds: Callable[[Entrant], float] | None = None) -> Entrant:
    """Return the fastest candidate; of those that are about equal, the smallest.

    Args:
        entrants: timed candidates.
        seconds: by which they are compared; the predicted seconds of a round by default.
    """
    judged = [(e, (seconds or _seconds)(e)) for e in entrants]
    best = min(value for _, value in judged)
    return min((e for e, value in judged if value <= TIE * best), key=lambda e: e.size)


def _may_start(entrant: Entrant, entrants: Sequence[Entrant], budget: float) -> bool:
    """Return whether to time a candidate: a wider tile must not be expected to take all the time, or to lose."""
    narrower = entrant.narrower
    if narrower is None:
        return True
    if not narrower.timing.is_warm:
        return False
    known = [e for e in entrants if e.timing.repeats >= 2]
    if narrower in known and narrower.seconds > HOPELESS * min(map(_seconds, known)):
        return False
    expected = narrower.timing.first_seconds * entrant.candidate.width / narrower.candidate.width
    return 2 * expected <= budget - _spent(entrants)


def _seconds(entrant: Entrant) -> float:
    return entrant.seconds


def _spent(entrants: Iterable[Entrant]) -> float:
    return sum(e.timing.spent for e in entrants)
