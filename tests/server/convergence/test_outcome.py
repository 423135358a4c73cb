"""The outcome computed from a record: the overall rate, its limit, the course of client drift, the widest clients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fedscape as fs
from clients.core.streams import generator
from dashboards.report.run_text import reached
from server.convergence.criteria_options import TargetOptions
from server.convergence.monitor import ConvergenceOptions
from server.convergence.outcome import Trend, drift_course, fit_whole, to_target, widest
from server.convergence.rates.rate import FEWEST, NoTrend, Rate, fit_rate


def trend(values: Any, metric: str = "validation_loss", **given: Any) -> Trend:
    found = Trend(ConvergenceOptions(target=given.pop("target", None)), **given)
    for value in values:
        found.observe({metric: value})
    return found


# The rate of a whole record


def test_whole_record_is_fitted_where_the_newest_rounds_have_no_trend() -> None:
    """A run that ends on a plateau has no trend in its newest 100 rounds, and a trend in all rounds."""
    noise = 1e-4 * generator(3, "plateau").standard_normal(300)
    values = (1.0 + 0.9 ** np.arange(300) + noise).tolist()
    assert isinstance(fit_rate(values), NoTrend)
    whole = fit_whole(values)
    assert isinstance(whole, Rate)
    assert whole.factor == pytest.approx(0.9, abs=0.01)
    assert whole.limit == pytest.approx(1.0, abs=0.001)
    assert trend(values).fit(whole=True)["rate"]["factor"] == whole.factor
    assert "no_trend" in trend(values).fit()["rate"]


def test_newest_phase_of_a_curve_is_fitted() -> None:
    """One fit through both phases has a limit above the curve, and contains neither rate: it bends, and is cut."""
    fast = 5.0 + 50.0 * 0.9 ** np.arange(50)
    slow = 4.0 + 0.99 ** np.arange(1, 101)
    values = [*fast, *slow] + 0.05 * generator(1, "phases").standard_normal(150)
    for found in (fit_rate(values, window=150), fit_whole(values.tolist())):
        assert isinstance(found, Rate)
        assert found.rounds <= 75
        assert found.low <= 0.99 <= found.high < 1.0
        assert found.limit < values[-15:].mean()


def test_curve_that_rises_first_is_fitted_from_its_peak() -> None:
    """A transient, as of SCAFFOLD with momentum: 1.8, 6.6 and then 5 * 0.8^r; an exact 0 at the end adds nothing."""
    for end in ([], [0.0] * 40):
        rate = trend([1.8, 6.64, *(5.0 * 0.8 ** np.arange(100)), *end], "optimality_gap").fit(whole=True)["rate"]
        assert rate["factor"] == pytest.approx(0.8, abs=5e-3)
        assert rate["limit"] == pytest.approx(0.0, abs=1e-8)


def test_curve_that_came_to_rest_has_the_rate_at_which_it_did() -> None:
    values = [6.0 * 0.1**r for r in range(17)] + [0.0] * 60
    assert trend(values, "optimality_gap").fit(whole=True)["rate"]["factor"] == pytest.approx(0.1, abs=1e-3)


def test_limit_of_a_falling_curve_is_not_above_its_newest_values() -> None:
    """SCAFFOLD's gap oscillates to 0 over 14 decades: an interval of 0.009 around a gap of 4e-14 cannot be believed."""
    run = fs.simulate("quadratic-scaffold", record=False)
    gaps = run.rounds["optimality_gap"]
    assert run.outcome["rate"]["limit_high"] <= gaps[-FEWEST:].max() < 1e-8


TRAFFIC = [
    0.8653, 0.4021, 0.3166, 0.2861, 0.2798, 0.2799, 0.2695, 0.2682, 0.2641, 0.2697, 0.2654, 0.2642, 0.2607, 0.2587,
    0.259, 0.2599, 0.2671, 0.2658, 0.2615, 0.2667, 0.2553, 0.2554, 0.2573, 0.262, 0.2525, 0.2578, 0.257, 0.2494, 0.2561,
    0.2568, 0.2547, 0.2495, 0.2554, 0.2494, 0.257,
]  # fmt: skip
"""Validation losses of a run of city-traffic."""


def test_curve_whose_newest_rounds_are_level_keeps_the_power_law_of_the_whole() -> None:
    assert isinstance(fit_whole(TRAFFIC), NoTrend)
    rate = trend(TRAFFIC).fit(whole=True)["rate"]
    assert rate["family"] == "power"
    assert 0.249 < rate["limit_low"] < np.mean(TRAFFIC[-10:]) < rate["limit_high"] < 0.265
    level = TRAFFIC[20:] * 2
    assert "no_trend" in trend(level).fit(whole=True)["rate"]


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_too_few_values_have_no_rate(count: int) -> None:
    found = fit_whole([1.0 + 0.5**r for r in range(count)])
    assert isinstance(found, NoTrend)
    assert found.reason == f"{count} values are too few, {FEWEST} are needed"


def test_limit_that_the_newest_values_contradict_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is halved until its limit agrees with the newest values; without such a window there is no rate."""
    windows: list[int] = []

    def too_high(values: Any, *, window: int = 100) -> Rate:
        windows.append(window)
        return Rate(0.9, 0.8, 1.0, 7.0, 1.0, window, (8.0, 7.9))

    monkeypatch.setattr("server.convergence.outcome.fit_rate", too_high)
    found = fit_whole([1.0] * 64)
    assert isinstance(found, NoTrend)
    assert "falls in phases" in found.reason
    assert windows == [64, 32, 16, 8]


# Its limit


def test_limit_below_the_least_value_becomes_the_least_with_a_matching_factor() -> None:
    """Decay to 0 whose fit, with noise, overshoots."""
    values = [
        6.05,
        1.41,
        0.186,
        0.011,
        1e-7,
        3.3e-4,
        1.8e-4,
        4.2e-5,
        5.7e-6,
        3.5e-7,
        1.1e-10,
        9.4e-9,
    ]  # as with SCAFFOLD
    free = fit_rate(values)
    assert isinstance(free, Rate)
    assert -0.01 < free.limit < 0.0
    held = free.no_lower(0.0)
    assert held.limit == 0.0
    value, following = free.pivot
    assert held.factor == pytest.approx(following / value)
    assert held.low <= held.factor < free.factor
    assert (held.high, held.pivot, held.current) == (free.high, free.pivot, free.current)
    assert held.limit_at(held.factor) == pytest.approx(0.0, abs=1e-12)
    assert held.limit_at(1.0) == 0.0
    assert held.limit_at(0.5 * (held.factor + held.high)) == 0.0
    below = held.rounds_to(-1e-3)
    assert below is None, "nothing goes below the least"
    assert trend(values, "optimality_gap").fit()["rate"]["limit"] == 0.0
    assert trend(values).fit()["rate"]["limit"] == free.limit, "an objective may be below 0"
    assert trend(values, least=0.0).fit()["rate"]["limit"] == 0.0


def test_possible_limit_is_unchanged() -> None:
    rate = fit_rate([1.0 + 0.9**r for r in range(30)])
    assert isinstance(rate, Rate)
    held = rate.no_lower(0.0)
    assert (held.factor, held.low, held.high, held.limit) == (rate.factor, rate.low, rate.high, rate.limit)
    assert held.rounds_to(1.01) == rate.rounds_to(1.01)
    assert rate.limit_at(1.0) == -math.inf
    assert held.limit_at(1.0) == 0.0


def test_rounds_to_go_respect_the_least_value() -> None:
    """A linear fall would reach any value; a loss that cannot go below 0 approaches it ever more slowly."""
    noise = 0.02 * generator(5, "to go").standard_normal(40)
    values = (3.0 * 0.97 ** np.arange(40) + noise).tolist()
    target = TargetOptions(metric="validation_loss", at_most=0.05)
    free, held = (trend(values, target=target, least=least).fit() for least in (None, 0.0))
    assert held["rounds_to_go"]["high"] >= free["rounds_to_go"]["high"]
    truth = math.log(0.05 / values[-1]) / math.log(0.97)
    assert held["rounds_to_go"]["low"] <= truth <= held["rounds_to_go"]["high"]


@pytest.mark.parametrize("scenario", ["quadratic-scaffold", "quadratic-two-clients"])
def test_run_never_reports_a_limit_below_its_optimum(scenario: str) -> None:
    run = fs.simulate(scenario, record=False)
    rates = [line["rate"] for line in run.rounds.lines if line.get("rate")] + [run.outcome["rate"]]
    limits = [rate["limit"] for rate in rates if "limit" in rate]
    assert limits
    assert min(limits) >= 0.0
    assert {rate["metric"] for rate in rates} == {"optimality_gap"}


def test_rate_is_fitted_to_the_validation_loss_and_to_nothing_without_a_loss() -> None:
    both = Trend(ConvergenceOptions())
    for r in range(12):
        both.observe({"train_loss": 5.0, "validation_loss": 1.0 + 0.5**r})
    assert both.fit()["rate"]["metric"] == "validation_loss"
    assert Trend(ConvergenceOptions()).fit() == {"rate": {"no_trend": "no loss is measured"}}


# Drift and target


def test_widest_clients_are_among_the_first_three_of_most_rounds() -> None:
    def line(*names: str) -> dict[str, Any]:
        return {"worst_client_drift": [{"client": 0, "name": name, "value": 1.0} for name in names]}

    lines = [line("a", "b", "c", "d"), line("d", "b", "a", "e"), {"round": 3}, line("b", "e", "c"), line("b")]
    assert widest(lines, 3) == [("b", 4), ("a", 2), ("c", 2)]
    assert ("d", 1) in widest(lines, 9), "fourth in a round does not count"
    assert widest([{}], 3) == []


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ([4.0, 3.0, 2.0, 1.0], "fell from the first round"),
        ([1.0, 3.0, 2.0, 1.0], "rose to round 2, then fell"),
        ([1.0, 2.0, 3.0, 4.0], "still rising"),
        ([*np.arange(1.0, 20.0), 0.5], "rose"),
        ([2.0, 1.0, 3.0, 4.0], "still rising"),
        ([1.0, 1.01, 1.0, 1.02], "level"),
        ([1.0, 2.0, math.inf], "not finite at the end"),
    ],
)
def test_drift_course_describes_its_means(means: list[float], words: str) -> None:
    lines = [{"round": r, "client_drift": {"mean": mean}} for r, mean in enumerate(means, start=1)]
    course = drift_course([{"round": 0}, *lines])
    assert course is not None
    assert course["words"] == words
    assert drift_course(lines[:1]) is None


def test_to_target_states_a_target_that_was_met_but_not_held() -> None:
    lines = [
        {"round": r, "validation_accuracy": a, "simulated_seconds_total": r, "bytes_total": r}
        for r, a in enumerate([0.1, 0.8, 0.8, 0.6, 0.8])
    ]
    found = to_target(lines, TargetOptions(metric="validation_accuracy", at_least=0.7, hold=3))
    assert found == {"metric": "validation_accuracy", "value": 0.7, "met": 2, "hold": 3}
    words = dict(reached({"to_target": found}))["to target"]
    assert words.startswith("met for 2 measured rounds in a row, 3 are needed")
    assert "met" not in (to_target(lines, TargetOptions(metric="validation_accuracy", at_least=0.9)) or {})


def test_to_target_counts_from_the_first_round_of_the_streak() -> None:
    lines = [
        {"round": r, "validation_loss": v, "simulated_seconds_total": 10.0 * r, "bytes_total": 100 * r}
        for r, v in enumerate([1.0, 0.4, 0.6, 0.4, 0.3, 0.2])
    ]
    found = to_target(lines, TargetOptions(metric="validation_loss", at_most=0.5, hold=2))
    assert found == {
        "metric": "validation_loss", "value": 0.5, "rounds": 3, "simulated_seconds": 30.0, "bytes": 300,
    }  # fmt: skip
    assert to_target(lines, None) is None
    assert "rounds" not in (to_target(lines, TargetOptions(metric="validation_loss", at_most=0.1)) or {})
