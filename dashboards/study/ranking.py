"""The arms in order of a measure, each with an estimate over its seeds and its interval.

Where no run missed its target, the estimate is the mean with Student's interval. Else it is Kaplan and Meier's median
with its interval; an arm that misses too often has none, and is placed by its restricted mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from clients.core.arrays import F64
from dashboards.report.compared_measures import Measure
from dashboards.report.formats import data_size, is_number, share, simulated
from dashboards.statistics.censored import Hits, restricted_mean, survival_curve
from dashboards.statistics.paired import student_interval
from dashboards.study.study_data import StudyData, value_of

FORMATS = {share: "share", data_size: "bytes", simulated: "seconds"}
"""How the page formats a measure; others are numbers."""


def rankings(data: StudyData) -> list[dict[str, Any]]:
    """Return the ranking of each measure, as JSON values; that of the study's question first.

    Returns:
        For each measure `key`, `name`, `better`, `format`, `kind` (`mean` or `median`), and `rows` from the best arm
        on, group after group: `arm` (its index), `n` runs with a number or a bound, `missed`, `estimate`, `low`,
        `high` (None where there is none; `high` is None beside a `low` where no time bounds the median).
    """
    first = data.measure
    order = sorted(data.measures, key=lambda m: m is not first)
    return [_ranking(data, measure) for measure in order]


def _ranking(data: StudyData, measure: Measure) -> dict[str, Any]:
    found = {arm: _numbers(data, arm, measure) for arm in data.arms}
    censored = any(not hits.all() for _, hits in found.values())
    horizon = max((float(values.max()) for values, _ in found.values() if len(values)), default=0.0)
    rows = []
    for index, (values, hits) in enumerate(found.values()):
        row: dict[str, Any] = {"arm": index, "n": len(values), "missed": int((~hits).sum())}
        rows.append(row | (_median(values, hits, horizon) if censored else _mean(values)))
    groups = [data.groups[arm] for arm in data.arms]
    rows.sort(key=lambda row: (groups[row["arm"]], *_place(row, measure)))
    for row in rows:
        del row["place"]
    kind = "median" if censored else "mean"
    return {"key": measure.key, "name": measure.name, "better": measure.better, "kind": kind,
            "format": FORMATS.get(measure.shown, "number"), "rows": rows}  # fmt: skip


def _numbers(data: StudyData, arm: str, measure: Measure) -> tuple[F64, Hits]:
    """Return the numbers and bounds of an arm's runs, and which of them are numbers."""
    found = [(value, hit) for row in data.by_arm[arm] for value, hit in [value_of(row, measure)] if value is not None]
    return np.array([value for value, _ in found], np.float64), np.array([hit for _, hit in found], np.bool_)


def _mean(values: F64) -> dict[str, Any]:
    if not len(values):
        return {"estimate": None, "low": None, "high": None, "place": None}
    low, high = student_interval(values) or (None, None)
    mean = float(values.mean())
    return {"estimate": mean, "low": low, "high": high, "place": (mean, 0.0)}


def _median(times: F64, hits: Hits, horizon: float) -> dict[str, Any]:
    if not len(times):
        return {"estimate": None, "low": None, "high": None, "place": None}
    curve = survival_curve(times, hits)
    low, high = curve.median_interval or (math.nan, math.nan)
    known = [value if is_number(value) else None for value in (curve.median, low, high)]
    mean = restricted_mean(times, hits, horizon) if horizon > 0 else 0.0
    place = (curve.median if known[0] is not None else math.inf, mean)
    return {"estimate": known[0], "low": known[1], "high": known[2], "place": place}


def _place(row: dict[str, Any], measure: Measure) -> tuple[Any, ...]:
    """Return what arms are ordered by: the best first, those without a number last; study's order with no direction."""
    if row["place"] is None:
        return (1, row["arm"])
    if measure.better is None:
        return (0, row["arm"])
    sign = -1.0 if measure.better == "higher" else 1.0
    return (0, *(sign * part for part in row["place"]), row["arm"])


def ranked_words(ranking: dict[str, Any], arms: Sequence[str], measure: Measure) -> list[list[str]]:
    """Return the ranking as rows of text: arm, estimate, interval, runs."""
    found = []
    for row in ranking["rows"]:
        low, high = row["low"], row["high"]
        end = "?" if high is None else measure.shown(high)
        interval = "" if low is None else f"{measure.shown(low)} to {end}"
        runs = f"{row['n'] - row['missed']} of {row['n']}" if ranking["kind"] == "median" else str(row["n"])
        missed = "missed by half or more" if row["missed"] else "–"
        shown = missed if row["estimate"] is None else measure.shown(row["estimate"])
        found.append([arms[row["arm"]], shown, interval, runs])
    return found
