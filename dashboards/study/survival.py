"""The share of runs that reached the target by a round, by bytes or by seconds: one minus Kaplan and Meier's curve."""

from __future__ import annotations

from typing import Any

import numpy as np

from clients.core.numbers.spacing import evenly_spaced
from dashboards.report.compared_measures import MEASURES
from dashboards.statistics.censored import survival_curve
from dashboards.study.study_data import StudyData, value_of

AXES = {"round": "rounds_to_target", "bytes": "bytes_to_target", "simulated": "simulated_seconds_to_target"}
"""The measure of each axis."""
MOST_STEPS = 400
"""Steps of a curve that are kept."""


def survival_view(data: StudyData) -> dict[str, list[dict[str, Any] | None]]:
    """Return the curves along each axis for which the study has a measure, as JSON values.

    Returns:
        For each axis a list of arms; an arm without a run that ended is None. `x` are the times of steps, the first 0;
        `reached`, `low` and `high` the share from each of them on, with 95% intervals (None where there is none);
        `missed` the times at which runs ended without the target; `median`; `n` runs.
    """
    measures = {measure.key: measure for measure in MEASURES}
    known = {measure.key for measure in data.measures}
    found = {}
    for axis, key in AXES.items():
        if key in known:
            found[axis] = [_curve([value_of(row, measures[key]) for row in data.by_arm[arm]]) for arm in data.arms]
    return found


def _curve(values: list[tuple[float | None, bool]]) -> dict[str, Any] | None:
    pairs = [(value, hit) for value, hit in values if value is not None]
    if not pairs:
        return None
    times, hits = np.array([value for value, _ in pairs], np.float64), np.array([hit for _, hit in pairs], np.bool_)
    curve = survival_curve(times, hits)
    known = len(curve.times)
    steps = evenly_spaced(known, MOST_STEPS).tolist()
    end = [] if not hits.size or curve.last in curve.times else [curve.last]

    def column(shares: Any, first: float | None) -> list[float | None]:
        inside = [None if np.isnan(shares[i]) else round(1 - float(shares[i]), 4) for i in steps]
        return [first, *inside, *([inside[-1] if inside else first] if end else [])]

    return {
        "x": [0.0, *(float(curve.times[i]) for i in steps), *end],
        "reached": column(curve.share, 0.0),
        "low": column(curve.high, None),
        "high": column(curve.low, None),
        "missed": sorted(float(t) for t in times[~hits]),
        "median": None if np.isnan(curve.median) else curve.median,
        "n": len(pairs),
    }
