"""What a tuning found, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.tuning.findings import Flatness, TrialRow, Tuned
from simulator.tuning.measures import measure_of
from simulator.tuning.parameters import Value


def value_text(tuned: Tuned, value: float, at_least: bool = False) -> str:
    """Return a value of the measure as people read it.

    Args:
        tuned: the tuning.
        value: the value.
        at_least: whether it is a lower bound.
    """
    return f"{'≥ ' if at_least else ''}{measure_of(tuned.measure).shown(value)}"


def values_text(values: dict[str, Value] | object) -> str:
    """Return the values of parameters: `local.local_lr 0.05, algorithm.kind fedavg`."""
    assert isinstance(values, dict)
    return ", ".join(f"{key} {_shown(value)}" for key, value in values.items()) or "no parameter"


def trial_line(row: TrialRow, tuned: Tuned) -> str:
    """Return one line for a trial that ended."""
    result = row.error or "ended early"
    if row.value is not None:
        result = value_text(tuned, row.value, row.at_least)
    return f"trial {row.number:>3}   {result:<12}   {values_text(dict(row.values))}"


def summary(tuned: Tuned) -> Iterator[str]:
    """Yield the lines that tell what a tuning found."""
    name = measure_of(tuned.measure).spoken
    states = {"complete": "complete", "pruned": "ended early", "failed": "failed"}
    counts = [f"{tuned.count(state)} {word}" for state, word in states.items() if tuned.count(state)]
    seeds = ", ".join(map(str, tuned.seeds))
    yield f"{len(tuned.trials)} trials ({', '.join(counts) or 'none ended'}), median of the {name} over seeds {seeds}"
    if tuned.value is not None:
        before = ""
        if tuned.untuned is not None:
            before = f"; the scenario's own values: {value_text(tuned, tuned.untuned)}"
        yield f"best: {value_text(tuned, tuned.value, tuned.at_least)} with {values_text(dict(tuned.best))}{before}"
        yield f"{tuned.as_good} of {tuned.count('complete')} trials are within {tuned.within:.0%} of the best:"
        yield from (f"  {part.key}: {flat_text(part)}" for part in tuned.flatness)
    yield from tuned.notes


def flat_text(part: Flatness) -> str:
    """Return how flat the optimum is along a parameter, and how much the parameter matters."""
    if part.choices:
        spread = " or ".join(part.choices)
    elif part.low == part.high:
        spread = f"{part.low:.4g} alone"
    else:
        spread = f"{part.low:.4g} to {part.high:.4g}"
    weight = "" if part.importance is None else f" (importance {part.importance:.0%})"
    return f"{spread}{weight}"


def _shown(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
