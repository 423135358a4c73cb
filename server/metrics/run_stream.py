"""A run as timed samples, round by round, for remote write and OpenMetrics files."""

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
        samples: samples with the metric's own labels.
        ends: series that end here.
    """

    at: int
    samples: Sequence[Sample]
    ends: Sequence[Series] = ()

    def __len__(self) -> int:
        """Return the number of samples, with ends of series."""
        return len(self.samples) + len(self.ends)

    def series(self) -> Iterator[Series]:
        """Iterate over the series that have a sample or end at this time."""
        yield from ((sample.name, sample.labels) for sample in self.samples)
        yield from self.ends

    def only(self, series: Set[Series]) -> Moment:
        """Return the part that belongs to these series."""
        samples = [sample for sample in self.samples if (sample.name, sample.labels) in series]
        return Moment(self.at, samples, [key for key in self.ends if key in series])


@dataclass(frozen=True)
class Waiting:
    """A round with its time, before its samples are made.

    Attributes:
        at: milliseconds since 1970.
        line: the result of `RunFold.observe` for its line.
    """

    at: int
    line: Mapping[str, Any]


class RunStream:
    """Makes the moments of a run. `take` is cheap; `make` may run later and in another thread.

    Args:
        facts: the facts before the first round (environment.json's `run`).
        clock: the clock of the samples' times.

    Attributes:
        labels: labels of all its series: `run_id` and `clock`.
    """

    def __init__(self, facts: Mapping[str, Any], clock: Clock) -> None:
        self.labels: Labels = (("run_id", str(facts.get("run_id", "run"))), ("clock", clock))
        self.timeline = Timeline(clock)
        self._constant = run_samples(facts)
        self._fold = RunFold()
        self._seen: set[Series] = set()

    def take(self, line: Mapping[str, Any]) -> Waiting:
        """Observe the next line of the record; return its time and the sums so far (about 10 us)."""
        return Waiting(self.timeline.stamp(line), self._fold.observe(line))

    def make(self, waiting: Waiting) -> Moment:
        """Make a round's samples (about 300 us), in any thread, in order of rounds."""
        found = [*self._constant, *round_samples(waiting.line)]
        self._seen.update((s.name, s.labels) for s in found)
        return Moment(waiting.at, found)

    def end(self, outcome: Mapping[str, Any]) -> list[Moment]:
        """Return the moments after the last round: the outcome, then the ends of all series.

        An interrupted run may be resumed, and then has samples before `over`. So all its series end at once.
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
    """Return a recorded run's stream and an iterator over its moments; without an outcome, series do not end."""
    stream = RunStream(facts, clock)

    def moments() -> Iterable[Moment]:
        for line in lines:
            yield stream.make(stream.take(line))
        if outcome is not None:
            yield from stream.end(outcome)

    return stream, moments()
