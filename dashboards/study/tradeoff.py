"""Cost against score: a place for each arm, and the arms that no other beats in both (the Pareto front)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dashboards.report.compared_measures import Measure
from dashboards.study.study_data import StudyData, value_of

COSTS = ("bytes_sent", "rounds_played", "bytes_to_target", "rounds_to_target", "simulated_seconds_to_target")
"""Measures that are costs: less is better."""
Point = tuple[float, float]


def tradeoff_view(data: StudyData) -> list[dict[str, Any]]:
    """Return cost and score of the arms for each pair of such measures, as JSON values.

    Returns:
        For each pair `cost` and `score` (keys), `points` (for each arm the medians over its runs, None without a run
        that has both) and `front`: the indices of the arms on the Pareto front, from the cheapest. A run that missed
        its target counts at its bound. Costs that are equal in all runs are left out. Nothing of several groups.
    """
    found: list[dict[str, Any]] = []
    if data.is_grouped:
        return found
    costs = sorted((m for m in data.measures if m.key in COSTS and _varies(data, m)), key=lambda m: COSTS.index(m.key))
    scores = [m for m in data.measures if m.key not in COSTS and m.better is not None]
    for cost in costs:
        for score in scores:
            points = [_median_point(data, arm, cost, score) for arm in data.arms]
            if sum(point is not None for point in points) > 1:
                front = pareto_front(points, higher=score.better == "higher")
                found.append({"cost": cost.key, "score": score.key, "points": points, "front": front})
    return found


def pareto_front(points: Sequence[Point | None], *, higher: bool) -> list[int]:
    """Return the indices of the points that no other beats, from the cheapest.

    Args:
        points: (cost, score) of each arm; None is left out.
        higher: whether a higher score is better.

    Returns:
        A point is beaten by one with a cost and a score that are at least as good and one of them better.

    Example:
        >>> pareto_front([(1.0, 0.7), (2.0, 0.9), (3.0, 0.8), None], higher=True)
        [0, 1]
    """
    known = [(cost, -score if higher else score, index) for index, p in enumerate(points) if p for cost, score in [p]]
    front: list[int] = []
    best, at = math.inf, math.nan
    for cost, score, index in sorted(known):
        if score < best or (score == best and cost == at):
            front.append(index)
            best, at = score, cost
    return front


def _varies(data: StudyData, measure: Measure) -> bool:
    return len({value_of(row, measure)[0] for row in data.rows} - {None}) > 1


def _median_point(data: StudyData, arm: str, cost: Measure, score: Measure) -> Point | None:
    both = [(value_of(row, cost)[0], value_of(row, score)[0]) for row in data.by_arm[arm]]
    known = np.array([(a, b) for a, b in both if a is not None and b is not None], np.float64)
    if not len(known):
        return None
    across, up = np.median(known, axis=0)
    return float(across), float(up)
