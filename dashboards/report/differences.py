"""The comparison of two arms as a table: one row for each measure, with the changes of the second against the first.

The statistics are `dashboards.statistics`. One pair has no interval and no p, so its table has no columns for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dashboards.report.compared_measures import Measure
from dashboards.report.formats import count
from dashboards.report.run_data import RunData
from dashboards.statistics.comparing import Comparison, compare_arms, corrected
from dashboards.statistics.wording import change, interval, p_value

CENSORED = (
    "Where runs missed their target, times are censored: means are restricted to what a run needs within the stated "
    "limit, medians are Kaplan and Meier's, and p is of the paired log-rank test."
)
HEADLINES = ("rounds_to_target",)
"""Measures that have a sentence at the top, beside the first one of the table."""


def seed_of(run: RunData) -> int | None:
    """Return a run's seed; None where neither its facts nor its scenario have one."""
    tables = run.scenario.get("run")
    found = run.facts.get("seed", tables.get("seed") if isinstance(tables, dict) else None)
    return found if isinstance(found, int) else None


def comparisons(arms: Sequence[tuple[str, Sequence[RunData]]], measures: Sequence[Measure]) -> list[list[Comparison]]:
    """Return for each arm but the first its comparisons with the first, one for each measure.

    Args:
        arms: at least two: name, and runs that have a seed.
        measures: what is compared. The p of one measure are corrected for the number of arms compared by it.
    """
    rows = [[_row(run, measures) for run in runs] for _, runs in arms]
    by_measure = [
        corrected(compare_arms(rows[0], other, measure, names=(arms[0][0], name))
                  for (name, _), other in zip(arms[1:], rows[1:], strict=True))
        for measure in measures
    ]  # fmt: skip
    return [list(of_arm) for of_arm in zip(*by_measure, strict=True)]


def _row(run: RunData, measures: Sequence[Measure]) -> dict[str, Any]:
    """Return a run as a row of a study's table."""
    row: dict[str, Any] = {"seed": seed_of(run)}
    for measure in measures:
        row |= {measure.key: measure.of(run), f"{measure.key}_at_least": measure.at_least(run)}
    return row


def table(found: Sequence[Comparison]) -> dict[str, Any]:
    """Return `columns` and `rows` of the comparisons of two arms; without intervals where no measure has two pairs.

    Measures without a pair of numbers are left out, and those whose target every run missed.
    """
    known = [one for one in found if one.pairs and not _all_missed(one)]
    first, second = found[0].first, found[0].second
    if all(one.pairs == 1 for one in known):
        return {
            "columns": ["measure", first, second, "change", "pairs"],
            "rows": [[one.quantity.name, *_means(one), _change(one), _pairs(one)] for one in known],
        }
    return {
        "columns": ["measure", first, second, "change", "95% interval", "p", "direction", "pairs"],
        "rows": [
            [one.quantity.name, *_means(one), _change(one), _interval(one), _p(one), _direction(one), _pairs(one)]
            for one in known
        ],
    }


def sentences(found: Sequence[Comparison]) -> list[str]:
    """Return the first measure of the table as a sentence, and those of `HEADLINES`."""
    known = [one for one in found if one.pairs and not _all_missed(one)]
    return [one.sentence for i, one in enumerate(known) if not i or one.quantity.key in HEADLINES]


def _all_missed(one: Comparison) -> bool:
    return one.censored is not None and one.censored.first.misses == one.censored.second.misses == one.censored.n


def _means(one: Comparison) -> list[str]:
    """Return the mean of each arm over the pairs; of a censored one restricted, with the median and the misses."""
    shown = one.quantity.shown
    if one.censored is None:
        assert one.paired is not None
        return [shown(one.paired.first_mean), shown(one.paired.second_mean)]
    cells = []
    for mean, curve in ((one.censored.first_mean, one.censored.first), (one.censored.second_mean, one.censored.second)):
        median = "" if math.isnan(curve.median) else f"median {shown(curve.median)}, "
        cells.append(f"{shown(mean)} ({median}missed in {curve.misses} of {one.censored.n})" if curve.misses else
                     f"{shown(mean)} ({median.removesuffix(', ')})")  # fmt: skip
    return cells


def _change(one: Comparison) -> str:
    return change(one) if one.censored is None else f"{change(one)} within {one.quantity.shown(one.censored.horizon)}"


def _interval(one: Comparison) -> str:
    return interval(one) or ("one pair" if one.pairs == 1 else "the same in each")


def _p(one: Comparison) -> str:
    return "–" if one.pairs == 1 else p_value(one.p_corrected)


def _direction(one: Comparison) -> str:
    """Return in how many pairs the second is higher, lower, or cannot be compared."""
    numbers = one.paired or one.censored
    assert numbers is not None
    unknown = one.censored.unknown if one.censored else 0
    if not numbers.higher + numbers.lower + unknown:
        return "no difference"
    words = f"higher in {numbers.higher}, lower in {numbers.lower}"
    return f"{words}, unknown in {unknown}" if unknown else words


def _pairs(one: Comparison) -> str:
    """Return the number of pairs, and in how many of them an arm has no number."""
    words = count(one.pairs, "pair") if one.pairs == one.common else f"{one.pairs} of {count(one.common, 'pair')}"
    absent = ((one.first, one.first_absent), (one.second, one.second_absent))
    parts = [f"{name} has none in {number}" for name, number in absent if number]
    return f"{words} ({', '.join(parts)})" if parts else words
