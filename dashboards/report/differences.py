"""The differences of two variants, pair by pair: their mean, Student's interval, and their direction.

A run that missed its target is counted at its budget of rounds. So a difference from a run that reached it is a bound,
and a miss is higher than each hit below that budget. Where both variants miss in different pairs, the mean has no
bound and is not shown. A run without a number (a diverged one has no score) makes no pair; the row says how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.report.compared_measures import Measure
from dashboards.report.formats import count, is_number, number
from dashboards.report.run_data import RunData

CONFIDENCE = 0.95
CENSORED = (
    "A run that missed its target is counted at its budget of rounds, so ≥ and ≤ mark bounds, and intervals are of "
    "these counts."
)
Pair = tuple[RunData, RunData]


@dataclass(frozen=True)
class _Value:
    """A number, and whether it is only a lower bound."""

    value: float
    is_bound: bool


def _value(measure: Measure, run: RunData) -> _Value | None:
    if is_number(found := measure.of(run)):
        return _Value(float(found), False)
    least = measure.at_least(run)
    return None if least is None else _Value(least, True)


def difference_row(measure: Measure, both: Sequence[Pair], names: tuple[str, str]) -> list[str] | None:
    """Return one row: the mean difference, its interval, the direction of the differences, the number of pairs.

    Args:
        measure: what is compared.
        both: pairs of a run of the first variant and one of the second, which is compared with it.
        names: of the variants.

    Returns:
        None where no pair has two numbers, or every run missed its target.
    """
    found = [(_value(measure, one), _value(measure, two)) for one, two in both]
    known = [(a, b) for a, b in found if a is not None and b is not None]
    if all(a.is_bound and b.is_bound for a, b in known):
        return None
    shown, pairs = measure.shown, _pairs_in_words(found, names)
    way = _direction(known)
    differences = np.array([b.value - a.value for a, b in known])
    below, above = any(a.is_bound and not b.is_bound for a, b in known), any(b.is_bound for a, b in known)
    if any(a.is_bound for a, _ in known) and above:
        return [measure.name, "–", "no bound: both missed", way, pairs]
    bound = "≥ " if above else "≤ " if below else ""
    interval = "one pair" if len(known) == 1 else _interval(differences, shown)
    return [measure.name, bound + _signed(float(differences.mean()), shown), interval, way, pairs]


def _direction(known: Sequence[tuple[_Value, _Value]]) -> str:
    """Return in how many pairs the second number is higher, lower, or cannot be compared."""
    ways = [_way(a, b) for a, b in known]
    up, down, unknown = ways.count("higher"), ways.count("lower"), ways.count("unknown")
    words = "no difference" if not up + down + unknown else f"higher in {up}, lower in {down}"
    return f"{words}, unknown in {unknown}" if unknown else words


def _way(a: _Value, b: _Value) -> str:
    """Return how b compares with a; a bound is higher than any number up to it."""
    if a.is_bound and b.is_bound:
        return "unknown"
    if a.is_bound:
        return "lower" if b.value <= a.value else "unknown"
    if b.is_bound:
        return "higher" if a.value <= b.value else "unknown"
    return "higher" if b.value > a.value else "lower" if b.value < a.value else "equal"


def _pairs_in_words(found: Sequence[tuple[_Value | None, _Value | None]], names: tuple[str, str]) -> str:
    """Return the number of pairs, and in how many of them a variant missed its target or has no number."""
    used = sum(a is not None and b is not None for a, b in found)
    words = count(used, "pair") if used == len(found) else f"{used} of {count(len(found), 'pair')}"
    sides = list(zip(*found, strict=True))
    parts = []
    for name, side in zip(names, sides, strict=True):
        missed, absent = sum(v is not None and v.is_bound for v in side), sum(v is None for v in side)
        parts += [f"{name} missed it in {missed}"] if missed else []
        parts += [f"{name} has none in {absent}"] if absent else []
    return f"{words} ({', '.join(parts)})" if parts else words


def sentence(pair: Mapping[str, Any]) -> str:
    """Return the first row of a table of pairs as a sentence."""
    name, mean, interval, way, pairs = pair["rows"][0]
    return f"{pair['title']}: {name} {mean} ({interval}), {way} {'in' if way == 'no difference' else 'of'} {pairs}"


def _interval(differences: Any, shown: Callable[[float], str]) -> str:
    """Return Student's interval for the mean."""
    n, mean = len(differences), float(differences.mean())
    from scipy.special import stdtrit  # the import takes a tenth of a second, and only a comparison needs it

    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * float(differences.std(ddof=1)) / math.sqrt(n)
    return f"{_signed(mean - half, shown)} to {_signed(mean + half, shown)}"


def _signed(value: float, shown: Callable[[float], str]) -> str:
    """Return a number with its sign.

    Example:
        >>> from dashboards.report.formats import data_size, share
        >>> _signed(-1500.0, data_size), _signed(0.25, number), _signed(0.0, share), _signed(2e-4, share)
        ('−1.5 kB', '+0.25', '0.000', '+2e-4')
    """
    text = shown(abs(value))
    if value and not any(digit in text for digit in "123456789"):  # too small for a fixed number of decimals
        text = number(abs(value))
    return f"−{text}" if value < 0 else f"+{text}" if value > 0 else text
