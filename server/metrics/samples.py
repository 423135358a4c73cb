"""Samples from a run's record: the same functions serve a live run and a record read later."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from server.dispersion.histograms import EDGES, Histogram
from server.metrics.readers import MOST_DISTRICTS, MOST_DRIFTS, MOST_FAULTS, at
from server.metrics.table import EXPORTER, OUTCOME, ROUND, RUN, Metric, series_names

Labels = tuple[tuple[str, str], ...]
MOST = {"faults": MOST_FAULTS, "concept_drift": MOST_DRIFTS, "districts": MOST_DISTRICTS}
"""The most names of each kind in a run's samples; the first names in its lines are taken."""


class Sample(NamedTuple):
    """One number of one series, without its time.

    Attributes:
        name: the name of the series, with its suffix.
        labels: (name, value) pairs of the metric's own labels.
        value: the number; nan and infinities are allowed.
    """

    name: str
    labels: Labels
    value: float


_sample = partial(tuple.__new__, Sample)  # as `Sample._make`, whose overhead is half of the time here


class RunFold:
    """Adds up counters and histograms, and bounds the number of names: a pure fold over a run's lines.

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
        """Observe the next line; return a copy with the sums so far under `so_far`."""
        self._sums = {name: total + (line.get(name) or 0) for name, total in self._sums.items()}
        for name, counts in counted_of(line):
            before = self._histograms.get(name) or Histogram(EDGES[name])
            self._histograms[name] = before.plus(counts, line[name]["mean"])
        shown = self._histograms
        if line.get("round") == 0:  # every counter starts with a sample of zero
            shown = {name: Histogram(edges) for name, edges in EDGES.items()}
        return {**line, "so_far": {**self._sums, **shown, **self._named(line)}}

    def _named(self, line: Mapping[str, Any]) -> dict[str, Any]:
        """Return the named parts of the line, for at most `MOST` names of each kind."""
        found: dict[str, Any] = {}
        for kind, most in MOST.items():
            if parts := line.get(kind):
                known = self._names[kind]
                for name in parts:
                    if len(known) < most:
                        known.add(name)
                found[kind] = {name: part for name, part in parts.items() if name in known}
        return found


def counted_of(line: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield the histograms of a line that this version knows, with whose measure the line has a mean."""
    for name, counts in (line.get("histograms") or {}).items():
        if name in EDGES and "mean" in (line.get(name) or {}) and all(map(_is_edge, counts)):
            yield name, counts


def _is_edge(word: str) -> bool:
    try:
        return not math.isnan(float(word))
    except ValueError:
        return False


def held(before: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the latest value of each key after a round: its own, else the last measured one.

    Example:
        >>> held({"round": 1, "federated_loss": 0.5}, {"round": 2, "train_loss": 0.25})
        {'round': 2, 'federated_loss': 0.5, 'train_loss': 0.25}
    """
    known = {**before, **line}
    for key, sibling in (("rounds_to_go", "rate"), ("overfitting", "criteria")):
        if sibling in line and key not in line:  # its absence is a result, not a missing measurement
            known.pop(key, None)
    return known


def samples(metrics: Sequence[Metric], source: Mapping[str, Any]) -> list[Sample]:
    """Return the samples of some metrics.

    Args:
        metrics: metrics of one source.
        source: the source that their `Metric.source` names.

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
    """Return the samples of a run's facts, from `run_started` (environment.json's `run`)."""
    return samples(RUN, facts)


def round_samples(line: Mapping[str, Any]) -> list[Sample]:
    """Return the samples of one round, from the result of `RunFold.observe` for its line."""
    return samples(ROUND, line)


def outcome_samples(outcome: Mapping[str, Any]) -> list[Sample]:
    """Return the samples of an outcome, from outcome.json."""
    return samples(OUTCOME, outcome)


def exporter_samples(state: Mapping[str, Any]) -> list[Sample]:
    """Return the samples of exporters: `memory`, and by sink the counts of `server.sinks.sender.Sent`."""
    return samples(EXPORTER, state)


def _histogram(metric: Metric, value: Histogram) -> Iterator[Sample]:
    """Yield a histogram's buckets, and its sum and count where it has them."""
    bucket, *others = series_names(metric)
    for words, number in metric.reader(value):
        yield Sample(bucket, _paired(metric.labels, words), number)
    for name, number in zip(others, (value.total, float(sum(value.counts))), strict=False):  # `others` may be empty
        yield Sample(name, (), number)


@lru_cache(maxsize=4096)
def _paired(names: tuple[str, ...], words: tuple[str, ...]) -> Labels:
    return tuple(zip(names, words, strict=True))
