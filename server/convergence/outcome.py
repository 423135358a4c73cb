"""What a run comes to: read off the lines of its record, so that a resumed or a reread run says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from server.convergence.criteria_options import TargetOptions
from server.convergence.monitor import ConvergenceOptions
from server.convergence.rate import FEWEST, NoTrend, Rate, fit_rate
from server.convergence.recursion import LONGEST
from server.convergence.targets import TargetTracker

Line = Mapping[str, Any]
RATE_EVERY = 5
"""Rounds between fits of the rate in the record."""
AMONG = 3
"""Clients of a round that count as its widest."""

_RATE_METRICS = ("optimality_gap", "validation_loss", "train_loss")


class Trend:
    """Fits the convergence rate as rounds come in; a pure fold over the record.

    The rate is fitted to the optimality gap where it is known, else to the validation loss, else to the training loss.

    Args:
        convergence: whose target on the same metric says what rounds-to-go counts to.
        least: what no loss can be below, where that is known; nothing is below an optimality gap of 0.
    """

    def __init__(self, convergence: ConvergenceOptions, *, least: float | None = None) -> None:
        self._target, self._least = convergence.target, least
        self._metric: str | None = None
        self._values: list[float] = []

    def observe(self, line: Line) -> None:
        """Take in a round's line."""
        if self._metric is None:
            self._metric = next((m for m in _RATE_METRICS if line.get(m) is not None), None)
        value = line.get(self._metric) if self._metric else None
        if value is not None:
            self._values.append(float(value))

    def fit(self, *, whole: bool = False) -> dict[str, Any]:
        """Return `rate` (metric, factor, low, high, limit; or no_trend and why) and `rounds_to_go` where told.

        Args:
            whole: fit the whole record instead of its newest rounds: a run that ended on a plateau has no trend there.
        """
        if self._metric is None:
            return {"rate": {"no_trend": "no loss is measured"}}
        found = _fit_whole(self._values) if whole else fit_rate(self._values)
        if not isinstance(found, Rate):
            return {"rate": {"metric": self._metric, "no_trend": found.reason}}
        least = 0.0 if self._metric == "optimality_gap" else self._least
        found = found if least is None else found.no_lower(least)
        rate = {
            "metric": self._metric,
            "factor": found.factor,
            "low": found.low,
            "high": found.high,
            "limit": found.limit,
        }
        target = self._target
        left = found.rounds_to(target.threshold) if target is not None and target.metric == self._metric else None
        if left is None:
            return {"rate": rate}
        estimate, low, high = left
        return {"rate": rate, "rounds_to_go": {"estimate": estimate, "low": low, "high": high}}


def _fit_whole(values: list[float]) -> Rate | NoTrend:
    """Fit all values, or the newest half, quarter ... of them: the longest whose limit the newest do not contradict.

    A curve that falls in two phases has no one rate, and a straight fit puts its limit above where it went.
    """
    window = min(len(values), LONGEST)
    found = fit_rate(values, window=max(window, FEWEST))
    while isinstance(found, Rate):
        newest = np.array(values[-max(4, window // 10) :])
        if found.limit <= newest.mean() + newest.std():
            return found
        window //= 2
        if window < FEWEST:
            return NoTrend("it falls in phases, and no one rate fits")
        found = fit_rate(values, window=window)
    return found


def to_target(lines: Sequence[Line], target: TargetOptions | None) -> dict[str, Any] | None:
    """Return rounds, simulated seconds and bytes to a target, first reached and held; None without a target."""
    if target is None:
        return None
    tracker = TargetTracker(target)
    for line in lines:
        tracker.observe(
            line["round"], line.get(target.metric), seconds=line["simulated_seconds_total"], sent=line["bytes_total"]
        )
    said: dict[str, Any] = {"metric": target.metric, "value": target.threshold}
    if tracker.reached is None:
        return said
    reached = tracker.reached
    return said | {"rounds": reached.rounds, "simulated_seconds": reached.seconds, "bytes": reached.bytes}


def drift_course(lines: Sequence[Line]) -> dict[str, Any] | None:
    """Return in words how client_drift went, and the clients that most often were among its widest (`widest`)."""
    means = [(line["round"], line["client_drift"]["mean"]) for line in lines if line.get("client_drift")]
    if len(means) < 2:
        return None
    rounds, values = [r for r, _ in means], np.array([v for _, v in means])
    if not np.isfinite(values).all():
        words = "not finite at the end"
    else:
        peak, least = int(values.argmax()), int(values.argmin())
        if values.max() <= 1.05 * values.min():
            words = "level"
        elif peak == 0:
            words = "fell from the first round"
        elif peak >= 0.9 * (len(values) - 1):
            words = "still rising" if least < peak else "rose"
        else:
            words = f"rose to round {rounds[peak]}, then fell"
    often = widest(lines, 3)
    return {"words": words, "worst_clients": [name for name, _ in often], "worst_rounds": [n for _, n in often]}


def widest(lines: Sequence[Line], most: int) -> list[tuple[str, int]]:
    """Return the clients that in most rounds were among the round's `AMONG` of largest client_drift.

    Rounds are counted, drifts not averaged: drift falls as a run converges, so that an average would rank first whom
    the early rounds happened to ask.

    Args:
        lines: the record.
        most: how many clients.

    Returns:
        (name, rounds), the most rounds first; of equals, who was there first.

    Example:
        >>> rounds = [("7", "3"), ("7", "5"), ("5",), ("7",), ("5",)]
        >>> lines = [{"worst_client_drift": [{"name": name} for name in names]} for names in rounds]
        >>> widest(lines, 2)
        [('7', 3), ('5', 3)]
    """
    often = Counter(str(w["name"]) for line in lines for w in (line.get("worst_client_drift") or ())[:AMONG])
    return often.most_common(most)
