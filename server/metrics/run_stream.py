"""A run as samples with their times, round by round: what remote write sends, and what an OpenMetrics file holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from server.metrics.samples import Labels, RunFold, Sample, outcome_samples, round_samples, run_samples
from server.metrics.timeline import ENDINGS, Clock, Timeline

Series = tuple[str, Labels]


@dataclass(frozen=True)
class Moment:
    """Samples of one time.

    Attributes:
        at: milliseconds since 1970.
        samples: their labels are the metric's own.
        ends: series that end here.
    """

    at: int
    samples: Sequence[Sample]
    ends: Sequence[Series] = ()

    def __len__(self) -> int:
        """Return how many samples it sends, ends of series included."""
        return len(self.samples) + len(self.ends)

    def series(self) -> Iterator[Series]:
        """Iterate over the series that have something at this time."""
        yield from ((sample.name, sample.labels) for sample in self.samples)
        yield from self.ends

    def only(self, series: Set[Series]) -> Moment:
        """Return the part of it that is of some series."""
        samples = [sample for sample in self.samples if (sample.name, sample.labels) in series]
        return Moment(self.at, samples, [key for key in self.ends if key in series])


@dataclass(frozen=True)
class Waiting:
    """A round that was given its time, and is not yet made into samples.

    Attributes:
        at: milliseconds since 1970.
        told: what `RunFold.observe` made of its line.
    """

    at: int
    told: Mapping[str, Any]


class RunStream:
    """Makes a run's moments. Taking a round in is cheap; making its samples can be done elsewhere and later.

    Args:
        facts: what is known before the first round (environment.json's `run`).
        clock: which time the samples carry.

    Attributes:
        labels: labels that all its series have: `run_id` and `clock`.
    """

    def __init__(self, facts: Mapping[str, Any], clock: Clock) -> None:
        self.labels: Labels = (("run_id", str(facts.get("run_id", "run"))), ("clock", clock))
        self.timeline = Timeline(clock)
        self._constant = run_samples(facts)
        self._fold = RunFold()
        self._seen: set[Series] = set()

    def take(self, line: Mapping[str, Any]) -> Waiting:
        """Take in the next line of the record: its time, and what is added up so far (about 10 us)."""
        return Waiting(self.timeline.stamp(line), self._fold.observe(line))

    def make(self, waiting: Waiting) -> Moment:
        """Make a round's samples (about 300 us); rounds in any thread, in their order."""
        found = [*self._constant, *round_samples(waiting.told)]
        self._seen.update((s.name, s.labels) for s in found)
        return Moment(waiting.at, found)

    def end(self, outcome: Mapping[str, Any]) -> list[Moment]:
        """Return the moments after the last round: what it came to, then the ends of all series made.

        An interrupted run's may go on, in time before `over`: all its series end at once.
        """
        offsets, last = ENDINGS[self.timeline.clock], self.timeline.last
        final = outcome_samples(outcome)
        names = [(s.name, s.labels) for s in final]
        rounds = sorted(self._seen - set(names))
        moments = [Moment(last + offsets.outcome, final)]
        if offsets.over is None:
            return [*moments, Moment(last + offsets.ended, (), rounds)]
        if outcome.get("outcome") == "interrupted":
            return [*moments, Moment(last + offsets.ended, (), [*rounds, *names])]
        return [*moments, Moment(last + offsets.ended, (), rounds), Moment(last + offsets.over, (), names)]


def recorded_moments(
    facts: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], outcome: Mapping[str, Any] | None, clock: Clock
) -> tuple[RunStream, Iterable[Moment]]:
    """Return a recorded run's stream and, one at a time, its moments; without ends where it has no outcome yet."""
    stream = RunStream(facts, clock)

    def moments() -> Iterable[Moment]:
        for line in lines:
            yield stream.make(stream.take(line))
        if outcome is not None:
            yield from stream.end(outcome)

    return stream, moments()
