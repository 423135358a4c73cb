"""Readers of metrics: one function for each shape of a value, which yields (label values, value)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from server.convergence.condition import KINDS
from server.dispersion.histograms import Histogram
from server.dispersion.summary import LEVELS

Values = Iterator[tuple[tuple[str, ...], float]]
Reader = Callable[[Any], Values]

STATES = ("running", "converged", "diverged", "stopped", "interrupted")
MOST_LAYERS, MOST_CLASSES, MOST_RANKS = 16, 32, 5
MOST_FAULTS, MOST_DRIFTS, MOST_DISTRICTS = 16, 8, 32
MOST_WORKERS = 32
REST = "rest"
_QUANTILES = {name: f"{level:g}" for name, level in {**LEVELS, "p10": 0.1, "p90": 0.9}.items()}


def scalar(value: Any) -> Values:
    """Read a number; None gives nothing."""
    if value is not None:
        yield (), float(value)


def mean(value: Any) -> Values:
    """Read the mean of a summary over clients."""
    if value is not None and "mean" in value:
        yield (), value["mean"]


def best_loss(value: Any) -> Values:
    """Read the validation loss of the best model; nothing where another measure chose it."""
    if value is not None and value.get("metric") == "validation_loss":
        yield (), float(value["value"])


def levels(value: Any) -> Values:
    """Read exact quantiles."""
    for name, quantile in _QUANTILES.items() if value is not None else ():
        if name in value:
            yield (quantile,), value[name]


def named(**keys: str) -> Reader:
    """Make a reader of several numbers of a mapping, each under its label value."""

    def read(value: Any) -> Values:
        for label, key in keys.items() if value is not None else ():
            if value.get(key) is not None:
                yield (label,), float(value[key])

    return read


def each(value: Any) -> Values:
    """Read every number of a mapping, with its key as label value."""
    for name, number in (value or {}).items():
        yield (name,), float(number)


def ranked(what: str) -> Reader:
    """Make a reader of `value`, or `client` (the index), of the worst clients by rank; 1 is the worst."""

    def read(value: Any) -> Values:
        for rank, found in enumerate((value or ())[:MOST_RANKS], start=1):
            if what in found:
                yield (str(rank),), float(found[what])

    return read


def by_layer(what: str, *, squared: bool = False) -> Reader:
    """Make a reader of a number by layer. Above 16 layers, those after the 15th are summed (or their squares are)."""

    def read(value: Any) -> Values:
        found = [(layer, float(parts[what])) for layer, parts in (value or {}).items() if what in parts]
        shown = MOST_LAYERS - 1 if len(found) > MOST_LAYERS else len(found)
        for layer, number in found[:shown]:
            yield (layer,), number
        if rest := [number for _, number in found[shown:]]:
            yield (REST,), math.hypot(*rest) if squared else math.fsum(rest)

    return read


def by_name(what: str) -> Reader:
    """Make a reader of one number of each named part that has it; `RunFold` bounds the names."""

    def read(value: Any) -> Values:
        for name, parts in (value or {}).items():
            if parts.get(what) is not None:
                yield (name,), float(parts[what])

    return read


def by_position(value: Any) -> Values:
    """Read a list of numbers by their position; after the 32nd there are none."""
    for number, found in enumerate((value or ())[:MOST_WORKERS]):
        yield (str(number),), float(found)


def by_class(value: Any) -> Values:
    """Read a number by class; a class without examples gives nothing."""
    for number, share in enumerate((value or ())[:MOST_CLASSES]):
        if share is not None:
            yield (str(number),), float(share)


def criterion(what: str) -> Reader:
    """Make a reader of one number by criterion."""

    def read(value: Any) -> Values:
        for name, status in (value or {}).items():
            if what in status:
                yield (name,), float(status[what])

    return read


def criterion_state(value: Any) -> Values:
    """Read 0 for not measured yet, 1 not met, 2 met but not for long enough, 3 holds."""
    for name, status in (value or {}).items():
        measured = math.isfinite(status.get("threshold", math.nan))
        yield (name,), 3.0 if status.get("holds") else float(measured) + float(status.get("held", 0) > 0)


def kind(value: Any) -> Values:
    """Read 1 under the kind of a condition; nothing where it is unknown here."""
    if value is not None and value.get("kind") in KINDS:
        yield (value["kind"],), 1.0


def either(*keys: str) -> Reader:
    """Make a reader of the first number that a mapping has, of several keys."""

    def read(value: Any) -> Values:
        yield from scalar(next((value[key] for key in keys if key in (value or {})), None))

    return read


def rate(what: Mapping[str, str]) -> Reader:
    """Make a reader of parts of the fitted rate; nan where a fit found no trend, so that no older fit is shown."""

    def read(value: Any) -> Values:
        for label, key in what.items() if value is not None else ():
            yield ((label,) if label else ()), float(value.get(key, math.nan))

    return read


def rounds_to_go(line: Any) -> Values:
    """Read rounds to the target from the line; nan where the fit gives none."""
    if "rate" in line:
        left = line.get("rounds_to_go") or {}
        for bound in ("low", "estimate", "high"):
            yield (bound,), float(left.get(bound, math.nan))


def overfitting(line: Any) -> Values:
    """Read from the line whether the criterion `gap` detects overfitting; nothing where it is not configured."""
    if "gap" in (line.get("criteria") or {}):
        yield (), float("overfitting" in line)


def running(line: Any) -> Values:
    """Read every state of a run that is still running."""
    return state("running")


def state(value: Any) -> Values:
    """Read 1 for the state of a run, 0 for the others."""
    for word in STATES:
        yield (word,), float(word == value)


def histogram(value: Histogram | None) -> Values:
    """Read cumulative buckets; count and sum have other suffixes of the metric."""
    for edge, count in value.cumulative() if value is not None else ():
        yield (edge,), float(count)


def facts(**keys: str) -> Reader:
    """Make a reader of 1 with values of a mapping as label values, in this order; a missing value is empty."""
    paths = [tuple(key.split(".")) for key in keys.values()]

    def read(value: Any) -> Values:
        yield tuple(_word(at(value, path)) for path in paths), 1.0

    return read


def at(value: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a path in nested mappings; None where absent."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _word(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
