"""The outcome of a run, computed from the lines of its record alone: a resumed or reread run gives the same."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from server.convergence.criteria_options import TargetOptions
from server.convergence.facts import facts_of
from server.convergence.findings import shrinking
from server.convergence.monitor import ConvergenceOptions
from server.convergence.rates.families import SYSTEMATIC, fit_families
from server.convergence.rates.rate import FEWEST, NEWEST, RISES, NoTrend, Rate, fit_rate
from server.convergence.rates.recursion import LONGEST
from server.convergence.targets import TargetTracker

Line = Mapping[str, Any]
RATE_EVERY = 5
"""Rounds between fits of the rate in the record."""
AMONG = 3
"""The clients with the largest drift in a round that `widest` counts."""

_AT_ONCE = 0.05
"""A loss whose factor is below this fell in one round."""
_STANDS_OUT = 5.0
"""Standard deviations of the noise that a curve has to fall."""
_RATE_METRICS = ("optimality_gap", "validation_frechet_distance", "validation_loss", "train_loss")


class Trend:
    """Fits the convergence rate as rounds come in; a pure fold over the record.

    The rate is fitted to the optimality gap where it is known, else to the Fréchet distance of samples, the validation
    loss, or the training loss.

    Args:
        convergence: its target is what rounds-to-go counts to, where it is on the fitted metric.
        least: the lowest possible loss, where it is known; an optimality gap is never below 0.
    """

    def __init__(self, convergence: ConvergenceOptions, *, least: float | None = None) -> None:
        self._target, self._least = convergence.target, least
        self._metric: str | None = None
        self._values: list[float] = []
        self._steps: list[float] = []

    def observe(self, line: Line) -> None:
        """Take in a round's line; a round without an aggregate is no round of the path."""
        facts = facts_of(line)
        if self._metric is None:
            self._metric = next((m for m in _RATE_METRICS if facts.get(m) is not None), None)
        value = facts.get(self._metric) if self._metric else None
        if value is not None:
            self._values.append(float(value))
        step = facts.get("step_norm")
        if step is not None:
            self._steps.append(float(step))

    def fit(self, *, whole: bool = False) -> dict[str, Any]:
        """Return `rate` (metric, factor, low, high, limit; or no_trend and why) and `rounds_to_go` to the target.

        Of a whole record `rate` also has `family` (see `_family`), and the intervals of its limit and exponent.

        Args:
            whole: fit the whole record; the newest rounds alone have no trend where a run ends on a plateau.
        """
        if self._metric is None:
            return {"rate": {"no_trend": "no loss is measured"}}
        found = fit_whole(self._values) if whole else fit_rate(self._values)
        least = 0.0 if self._metric == "optimality_gap" else self._least
        if not isinstance(found, Rate):
            curve = _clear_family(self._values, -math.inf if least is None else least) if whole else {}
            if curve and found.reason != RISES:
                return {"rate": {"metric": self._metric} | curve}
            return {"rate": {"metric": self._metric, "no_trend": found.reason} | self._iterates(found, whole=whole)}
        found = found if least is None else found.no_lower(least)
        rate: dict[str, Any] = {
            "metric": self._metric,
            "factor": found.factor,
            "low": found.low,
            "high": found.high,
        }
        if whole:
            rate |= _family(self._values, found)
            if rate.get("family") == "power":
                rate = {key: value for key, value in rate.items() if key not in ("factor", "low", "high")}
        elif found.rounds >= min(len(self._values), NEWEST):
            rate |= {"limit": found.limit}  # of a window that was shortened, since the curve bends, it is no limit
        target = self._target
        if "factor" not in rate or target is None or target.metric != self._metric:
            return {"rate": rate}
        left = found.rounds_to(target.threshold)
        if left is None:
            return {"rate": rate}
        estimate, low, high = left
        return {"rate": rate, "rounds_to_go": {"estimate": estimate, "low": low, "high": high}}

    def _iterates(self, found: NoTrend, *, whole: bool) -> dict[str, Any]:
        """Return the rate of the server's steps where the loss rises: the iterates may contract to a biased point."""
        rate = shrinking(self._steps) if whole and found.reason == RISES else None
        return {} if rate is None else {"iterates": {"factor": rate.factor, "low": rate.low, "high": rate.high}}


def _family(values: Sequence[float], found: Rate) -> dict[str, Any]:
    """Return which family of curves fits a whole record, and its limit with an interval.

    Where a power law fits clearly better, its exponent replaces the factor: a power law has no factor. Where neither
    fits clearly better, both are given, and the interval of the limit holds both.
    """
    fitted = fit_families(values[-LONGEST:])
    if fitted is None or fitted.better == "neither":
        return {"limit": found.limit}
    geometric, power = fitted.geometric, fitted.power
    exponent = {"exponent": power.shape, "exponent_low": power.shapes[0], "exponent_high": power.shapes[1]}
    if fitted.better == "power":
        return {"family": "power"} | exponent | _limits(power.limit, power.limits, found.least)
    ends: tuple[float, ...] = (*geometric.limits, found.limit, found.limit_at(found.low), found.limit_at(found.high))
    ends += power.limits if fitted.better == "undecided" else ()
    # A falling curve has not passed its limit: of the newest values, not all lie below it.
    highest = max(found.limit, float(max(values[-max(FEWEST, len(values) // 10) :])))
    limits = _limits(found.limit, (min(ends), min(max(ends), highest)), found.least)
    return {"family": fitted.better} | limits | (exponent if fitted.better == "undecided" else {})


def _clear_family(values: list[float], least: float) -> dict[str, Any]:
    """Return the family that a whole record clearly follows although its newest rounds have no rate of their own.

    A power law slows down so much that its newest rounds are level. A fall has to stand out from the noise.
    """
    fitted = fit_families(values[-LONGEST:])
    if fitted is None or fitted.better not in ("power", "geometric"):
        return {}
    curve, noise = getattr(fitted, fitted.better), float(np.ptp(values[-LONGEST:]))
    noise *= math.sqrt(curve.misfit)
    stands_out = values[-LONGEST:][0] - curve.limit >= _STANDS_OUT * noise
    if not stands_out or curve.echo >= SYSTEMATIC or curve.limit < least:
        return {}
    names = ("exponent", "exponent_low", "exponent_high") if fitted.better == "power" else ("factor", "low", "high")
    shape = dict(zip(names, map(float, (curve.shape, *curve.shapes)), strict=True))
    return {"family": fitted.better} | shape | _limits(curve.limit, curve.limits, least)


def _limits(limit: float, ends: tuple[float, float], least: float) -> dict[str, float]:
    """Return a limit and its interval, none of them below the least value."""
    found = {"limit": limit, "limit_low": ends[0], "limit_high": ends[1]}
    return {name: float(max(value, least)) for name, value in found.items()}


def fit_whole(values: list[float]) -> Rate | NoTrend:
    """Fit all values, or the newest half, quarter ... of them: the longest whose limit the newest do not contradict.

    A curve that falls in two phases has no single rate: a straight fit puts the limit above its newest values.
    A loss that rises at first is fitted from its peak on, and one that came to rest only as far as it moved.
    """
    found = _longest_fit(_moving(values))
    if isinstance(found, Rate) or found.reason == RISES:
        return found
    peak = int(np.argmax(values)) if values and np.isfinite(values).all() else 0
    after = _longest_fit(_moving(values[peak:])) if peak else found
    return after if isinstance(after, Rate) else found


def _moving(values: list[float]) -> list[float]:
    """Return the values without the last ones where those are equal to the bit: they have no distance to a limit."""
    last = len(values)
    while last > FEWEST and values[last - 1] == values[last - 2]:
        last -= 1
    return values[:last] if last > FEWEST else values


def _longest_fit(values: list[float]) -> Rate | NoTrend:
    """Return the fit of the longest newest part of the values whose limit the newest of them do not contradict."""
    window = min(len(values), LONGEST)
    found = fit_rate(values, window=max(window, FEWEST))
    if isinstance(found, Rate) and found.factor < _AT_ONCE and not isinstance(fit_rate(values[1:]), Rate):
        return NoTrend("it fell in its first round alone")
    while isinstance(found, Rate):
        newest = np.array(values[-max(4, window // 10) :])
        if found.limit <= newest.mean() + newest.std():
            return found
        window //= 2
        if window < FEWEST:
            return NoTrend("it falls in phases, so no single rate fits")
        found = fit_rate(values, window=window)
    return found


def to_target(lines: Sequence[Line], target: TargetOptions | None) -> dict[str, Any] | None:
    """Return rounds, simulated seconds and bytes to a target, first reached and held; None without a target.

    Of a target that was met for too few rounds in a row it has that number, `met`, and the one needed, `hold`.
    """
    if target is None:
        return None
    tracker, longest = TargetTracker(target), 0
    for line in lines:
        tracker.observe(
            line["round"],
            facts_of(line).get(target.metric),
            seconds=line["simulated_seconds_total"],
            sent=line["bytes_total"],
        )
        longest = max(longest, tracker.held)
    found: dict[str, Any] = {"metric": target.metric, "value": target.threshold}
    if tracker.reached is None:
        return found | ({"met": longest, "hold": target.hold} if longest else {})
    reached = tracker.reached
    return found | {"rounds": reached.rounds, "simulated_seconds": reached.seconds, "bytes": reached.bytes}


def drift_course(lines: Sequence[Line]) -> dict[str, Any] | None:
    """Return the course of client_drift in words, and the clients that were most often among its widest (`widest`)."""
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
    """Return the clients that were among a round's `AMONG` of largest client_drift in most rounds.

    It counts rounds and does not average drift: drift falls as a run converges, so an average would put clients of the
    early rounds first.

    Args:
        lines: the record.
        most: how many clients.

    Returns:
        (name, rounds), the most rounds first; of equals, the one that came first.

    Example:
        >>> rounds = [("7", "3"), ("7", "5"), ("5",), ("7",), ("5",)]
        >>> lines = [{"worst_client_drift": [{"name": name} for name in names]} for names in rounds]
        >>> widest(lines, 2)
        [('7', 3), ('5', 3)]
    """
    often = Counter(str(w["name"]) for line in lines for w in (line.get("worst_client_drift") or ())[:AMONG])
    return often.most_common(most)
