"""Drops arms that cannot win before all seeds are played, where a study asks for it.

Decisions are made at a number of seeds, once every remaining arm has played them. They follow from the rows alone, so
they do not depend on the order in which runs end, and a study that was killed makes them again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from dashboards.report.compared_measures import Measure
from dashboards.statistics.comparing import compare_arms, corrected
from simulator.studies.arms import Arm
from simulator.studies.options import EarlyOptions
from simulator.studies.rows import FAILED, FINISHED, Rows


@dataclass
class Standing:
    """Where a study with early stopping is.

    Attributes:
        arms: names of the arms that go on.
        seeds: how many seeds of them may be played now.
        dropped: why the others were dropped, by name.
    """

    arms: list[str]
    seeds: int
    dropped: dict[str, str] = field(default_factory=dict)


def standing(
    options: EarlyOptions, arms: Sequence[Arm], seeds: Sequence[int], rows: Rows, measure: Measure
) -> Standing:
    """Return which arms go on, and how many seeds of them may be played.

    Args:
        options: [early] of the study.
        arms: all arms.
        seeds: all seeds.
        rows: of the runs, by key.
        measure: by which arms are compared; its `better` is not None.
    """
    found = Standing([arm.name for arm in arms], len(seeds))
    if options.kind == "off":
        return found
    by_name = {arm.name: arm for arm in arms}
    count = options.seeds
    while count < len(seeds) and len(found.arms) > 1:
        played = {name: [rows.get(by_name[name].key(seed)) for seed in seeds[:count]] for name in found.arms}
        if not all(row is not None and row["state"] in (*FINISHED, FAILED) for own in played.values() for row in own):
            found.seeds = count
            return found
        lines = {name: _lines(seeds, own, measure) for name, own in played.items()}
        worse = (
            _halved(lines, options, measure)
            if options.kind == "successive_halving"
            else _beaten(lines, options, measure)
        )
        for name, why in worse.items():
            found.dropped[name] = f"stopped early after {count} seeds: {why}"
        found.arms = [name for name in found.arms if name not in worse]
        count = math.ceil(count / options.keep) if options.kind == "successive_halving" else count + 1
    return found


def _lines(seeds: Sequence[int], rows: Sequence[Any], measure: Measure) -> list[dict[str, Any]]:
    """Return the rows of an arm as a table of `measure` by seed."""
    return [
        {"seed": seed, measure.key: (row.get("measures") or {}).get(measure.key),
         f"{measure.key}_at_least": (row.get("at_least") or {}).get(measure.key)}
        for seed, row in zip(seeds, rows, strict=False)
    ]  # fmt: skip


def _score(lines: Sequence[Mapping[str, Any]], measure: Measure) -> tuple[float, float]:
    """Return what arms are ranked by, lower first: the median, where a run without a number is the worst."""
    sign = -1.0 if measure.better == "higher" else 1.0
    values = [line[measure.key] for line in lines]
    scores = [math.inf if value is None else sign * value for value in values]
    known = [value for value in scores if math.isfinite(value)]
    return median(scores), sum(known) / len(known) if known else math.inf


def _halved(lines: Mapping[str, Any], options: EarlyOptions, measure: Measure) -> dict[str, str]:
    """Return the arms that successive halving drops, with the reason."""
    ranked = sorted(lines, key=lambda name: _score(lines[name], measure))  # equal ones keep their order
    kept = max(1, math.ceil(len(ranked) * options.keep))
    why = f"not among the best {kept} of {len(ranked)} by the median of {measure.spoken}"
    return dict.fromkeys(ranked[kept:], why)


def _beaten(lines: Mapping[str, Any], options: EarlyOptions, measure: Measure) -> dict[str, str]:
    """Return the arms that are worse than the best beyond chance, with the comparison."""
    best = min(lines, key=lambda name: _score(lines[name], measure))
    others = [name for name in lines if name != best]
    found = corrected(
        compare_arms(lines[best], lines[name], measure, names=(best, name), confidence=1 - options.alpha)
        for name in others
    )
    return {name: one.sentence for name, one in zip(others, found, strict=True) if one.better == best}
