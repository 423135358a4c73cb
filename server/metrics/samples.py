"""From a run's record to samples: one function, so that a live run and its record read later give the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from server.dispersion.histograms import EDGES, Histogram
from server.metrics.readers import MOST_DISTRICTS, MOST_DRIFTS, MOST_FAULTS, at
from server.metrics.table import EXPORTER, OUTCOME, ROUND, RUN, Metric, series_names

Labels = tuple[tuple[str, str], ...]
MOST = {"faults": MOST_FAULTS, "concept_drift": MOST_DRIFTS, "districts": MOST_DISTRICTS}
"""How many names of a kind a run's samples may have: the first that its lines tell of."""


class Sample(NamedTuple):
    """One number of one series, without its time.

    Attributes:
        name: the series' name, suffix included.
        labels: (name, value) pairs of the metric's own labels.
        value: the number; nan and infinities are numbers.
    """

    name: str
    labels: Labels
    value: float


_sample = partial(tuple.__new__, Sample)  # what `Sample._make` does, and the half of all the time here


class RunFold:
    """Adds up what counters and histograms show, and bounds what is shown by name: a pure fold over a run's lines.

    Example:
        >>> fold = RunFold()
        >>> fold.observe({"round": 1, "respondents": 3, "failures": 1})["so_far"]["respondents"]
        3
        >>> fold.observe({"round": 2, "respondents": 4, "failures": 0})["so_far"]["respondents"]
        7
    """

    def __init__(self) -> None:
        self._sums = {"respondents": 0, "failures": 0}
        self._histograms: dict[str, Histogram] = {}
        self._names: dict[str, set[str]] = {kind: set() for kind in MOST}

    def observe(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Take in the next line; return it with the sums so far under `so_far` (lines are not changed)."""
        self._sums = {name: total + (line.get(name) or 0) for name, total in self._sums.items()}
        for name, counts in (line.get("histograms") or {}).items():
            before = self._histograms.get(name) or Histogram(EDGES[name])
            self._histograms[name] = before.plus(counts, line[name]["mean"])
        shown = self._histograms
        if line.get("round") == 0:  # what is counted from zero is first seen at zero
            shown = {name: Histogram(edges) for name, edges in EDGES.items()}
        return {**line, "so_far": {**self._sums, **shown, **self._named(line)}}

    def _named(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the line tells by name, of no more names than there may be."""
        found: dict[str, Any] = {}
        for kind, most in MOST.items():
            if told := line.get(kind):
                known = self._names[kind]
                for name in told:
                    if len(known) < most:
                        known.add(name)
                found[kind] = {name: parts for name, parts in told.items() if name in known}
        return found


def held(before: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known after a round: what it did not measure is as it was last measured.

    Example:
        >>> held({"round": 1, "federated_loss": 0.5}, {"round": 2, "train_loss": 0.25})
        {'round': 2, 'federated_loss': 0.5, 'train_loss': 0.25}
    """
    known = {**before, **told}
    for key, told_with in (("rounds_to_go", "rate"), ("overfitting", "criteria")):
        if told_with in told and key not in told:  # absent, it says something
            known.pop(key, None)
    return known


def samples(metrics: Sequence[Metric], source: Mapping[str, Any]) -> list[Sample]:
    """Return the samples of some metrics.

    Args:
        metrics: metrics of one source.
        source: what they are read from, as `Metric.source` says.

    Example:
        >>> [(s.name, s.value) for s in samples(RUN[2:4], {"rounds": 20, "clients": 100})]
        [('fedscape_rounds_budget', 20.0), ('fedscape_population_clients', 100.0)]
    """
    found: list[Sample] = []
    for metric in metrics:
        value = at(source, metric.path)
        if value is None:
            continue
        if metric.kind == "histogram":
            found += _histogram(metric, value)
        else:
            name, labels = metric.full_name, metric.labels
            found += [_sample((name, _paired(labels, words), number)) for words, number in metric.reader(value)]
    return found


def run_samples(facts: Mapping[str, Any]) -> list[Sample]:
    """Return what is known before the first round, from `run_started`'s facts (environment.json's `run`)."""
    return samples(RUN, facts)


def round_samples(told: Mapping[str, Any]) -> list[Sample]:
    """Return what one round says, from what `RunFold.observe` made of its line."""
    return samples(ROUND, told)


def outcome_samples(outcome: Mapping[str, Any]) -> list[Sample]:
    """Return what a run came to, from outcome.json."""
    return samples(OUTCOME, outcome)


def exporter_samples(state: Mapping[str, Any]) -> list[Sample]:
    """Return what exporters say of themselves: `memory`, and by sink what `server.sinks.sender.Sent` counts."""
    return samples(EXPORTER, state)


def _histogram(metric: Metric, value: Histogram) -> Iterator[Sample]:
    """Read a histogram's buckets, and its sum and count where it has them."""
    bucket, *others = series_names(metric)
    for words, number in metric.reader(value):
        yield Sample(bucket, _paired(metric.labels, words), number)
    for name, number in zip(others, (value.total, float(sum(value.counts))), strict=False):  # or no others
        yield Sample(name, (), number)


@lru_cache(maxsize=4096)
def _paired(names: tuple[str, ...], words: tuple[str, ...]) -> Labels:
    return tuple(zip(names, words, strict=True))
