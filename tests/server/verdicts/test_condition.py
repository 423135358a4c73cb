"""What happened in a run, from records whose course is written down here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clients.core.streams import generator
from server.convergence.criteria_options import PlateauOptions, TargetOptions
from server.convergence.monitor import ConvergenceOptions
from server.verdicts.condition import condition_of
from server.verdicts.course import motion_of

T = np.arange(100)
FALL = 0.2 + 2.0 * 0.9**T
RISES_FROM_20 = FALL + 0.01 * np.clip(T - 20.0, 0.0, None)


def noise(scale: float, count: int = 100, name: str = "condition") -> Any:
    return scale * generator(5, name).standard_normal(count)


def lines(**series: Any) -> list[dict[str, Any]]:
    """Lines of rounds 0, 1, ...; nan stands for what a round did not measure, a word for an infinity."""
    count = min(len(values) for values in series.values())
    return [
        {"round": r, "validation_loss": None}
        | {name: values[r] for name, values in series.items() if not _is_nan(values[r])}
        for r in range(count)
    ]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def loss_target(at_most: float) -> ConvergenceOptions:
    return ConvergenceOptions(target=TargetOptions(metric="validation_loss", at_most=at_most))


def test_loss_at_rest_has_converged_since_it_is_level() -> None:
    found = condition_of(lines(validation_loss=FALL + noise(0.004)))
    assert found.kind == "converged"
    assert 20 <= found.round_index <= 60
    assert found.numbers["level"] == pytest.approx(0.2, abs=0.01)


def test_loss_at_rest_above_its_target_has_plateaued() -> None:
    found = condition_of(lines(validation_loss=FALL + noise(0.004)), loss_target(0.1))
    assert found.kind == "plateaued"
    assert found.numbers["missing"] == pytest.approx(0.1, abs=0.01)
    assert "misses the target 0.1" in found.words
    assert condition_of(lines(validation_loss=FALL + noise(0.004)), loss_target(0.3)).kind == "converged"


def test_accuracy_below_its_target_has_plateaued() -> None:
    options = ConvergenceOptions(target=TargetOptions(metric="validation_accuracy", at_least=0.95, hold=3))
    record = lines(validation_loss=FALL, validation_accuracy=0.9 - 0.8 * 0.8**T)
    found = condition_of(record, options)
    assert (found.kind, found.numbers["missing"]) == ("plateaued", pytest.approx(0.05, abs=1e-3))
    reached = lines(validation_loss=FALL, validation_accuracy=0.97 - 0.8 * 0.8**T)
    assert condition_of(reached, options).kind == "converged"


@pytest.mark.parametrize("factor", [0.97, 0.98, 0.985])
def test_rounds_still_needed_are_those_of_the_curve(factor: float) -> None:
    """1 * q^r reaches a tenth of its last value after log(0.1) / log(q) more rounds."""
    values = factor**T
    needed = math.log(0.1) / math.log(factor)
    found = condition_of(lines(validation_loss=values), loss_target(float(values[-1]) * 0.1))
    assert found.kind == ("too_short" if needed >= 99 else "improving")
    assert found.numbers["rounds_needed"] == pytest.approx(needed, rel=0.02)
    assert found.numbers["rounds_low"] <= needed * 1.001
    assert found.numbers["rounds_high"] >= needed * 0.999


def test_rounds_still_needed_on_a_power_law_follow_its_exponent() -> None:
    """(1 + r)^-1 at r = 99 is 0.01; half of that takes 100 more rounds. A geometric rate would say far fewer."""
    found = condition_of(lines(validation_loss=1.0 / (1.0 + T)), loss_target(0.005))
    assert found.numbers["rounds_needed"] == pytest.approx(100.0, rel=0.1)


def test_rounds_are_counted_where_only_some_of_them_are_measured() -> None:
    values = np.where(T % 4 == 0, 0.98**T, math.nan)
    found = condition_of(lines(validation_loss=values), loss_target(0.98**96 / 2.0))
    assert found.numbers["rounds_needed"] == pytest.approx(math.log(0.5) / math.log(0.98), rel=0.05)


def test_falling_loss_without_a_target_still_improves() -> None:
    found = condition_of(lines(validation_loss=1.0 + 0.98**T + noise(0.005)))
    assert found.kind == "improving"
    assert found.numbers["left"] == pytest.approx(0.98**99, rel=0.6)
    # Over the newest third, from its first block to its last, 0.98^r falls by 0.105 in 28.9 rounds.
    assert found.numbers["per_100_rounds"] == pytest.approx(0.36, rel=0.15)
    assert "3 times the rounds would lower it" in found.words


def slow(height: float) -> Any:
    return 1.0 + height * (1.0 + T) ** -0.5 + 0.6**T


def test_loss_that_falls_by_little_has_converged_and_still_improves_slowly() -> None:
    """h (1 + r)^-0.5 falls by 0.0423 h from round 99 to 297: with h = 0.5 by 1.5% of what was gained."""
    found = condition_of(lines(validation_loss=slow(0.5)))
    assert (found.kind, found.subkind) == ("converged", "slowly")
    assert found.numbers["left"] == pytest.approx(0.0211, rel=0.3)
    assert "still improves slowly, by 0.0" in found.words
    assert "below the 3% that matter" in found.words
    quicker, less = (condition_of(lines(validation_loss=slow(height))) for height in (4.0, 0.1))
    assert (quicker.kind, quicker.subkind) == ("improving", "")
    assert (less.kind, less.subkind) == ("converged", "")
    assert "rests at" in less.words


def test_fall_that_has_hardly_anything_left_above_zero_has_converged() -> None:
    """From 2 to 0.02 in a straight line: 1% of what it gained lies between it and the least loss there can be."""
    found = condition_of(lines(validation_loss=2.0 - 0.02 * T))
    assert found.kind == "converged"
    assert "fell to 0.04, 2.0% of what it gained: hardly more can be left" in found.words
    above = condition_of(lines(validation_loss=3.0 - 0.02 * T))
    assert above.kind == "improving"
    assert above.numbers["left"] <= above.numbers["level"]


def test_noise_that_hides_the_fall_of_the_newest_rounds_does_not_hide_that_of_the_record() -> None:
    """1 + (1 + r)^-0.25 falls by 11% of its gain to round 297; its newest third falls by 0.034."""
    records = [1.0 + (1.0 + T) ** -0.25 + noise(0.02, name=f"slow {seed}") for seed in range(20)]
    kinds = [condition_of(lines(validation_loss=values)).kind for values in records]
    assert kinds.count("improving") >= 10
    assert sum(motion_of(values[-33:]).falls for values in records) <= 3
    level = [condition_of(lines(validation_loss=FALL + noise(0.05, name=f"level {seed}"))).kind for seed in range(20)]
    assert level.count("improving") <= 1


def test_fall_after_a_drift_is_foreseen_from_the_rounds_since() -> None:
    values = FALL + np.where(T >= 60, 0.3 * 0.98 ** (T - 60.0), 0.0)
    assert condition_of(drifted(values, 60)).kind == "improving"


def test_plateau_of_the_scenario_says_which_falls_are_too_small() -> None:
    """1 + 0.98^r falls by 0.056 in the newest 10 of 33 rounds on average."""
    record = lines(validation_loss=1.0 + 0.98**T)
    for min_delta, kind in ((0.03, "improving"), (0.1, "converged")):
        options = ConvergenceOptions(plateau=PlateauOptions(min_delta=min_delta, patience=10))
        assert condition_of(record, options).kind == kind


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_level_loss_with_large_noise_is_at_the_noise_floor(share: float) -> None:
    found = condition_of(lines(validation_loss=FALL + noise(2.0 * share)))
    assert found.kind == "noise_floor"
    assert found.numbers["noise_share"] == pytest.approx(share, rel=0.5)


@pytest.mark.parametrize("period", [2.0, 3.0, 5.0, 7.5])
def test_cycle_is_found_with_its_period_and_amplitude(period: float) -> None:
    wave = 0.3 * np.cos(2.0 * np.pi * T / period)
    found = condition_of(lines(validation_loss=FALL + wave + noise(0.05)))
    assert found.kind == "oscillating"
    assert found.numbers["period"] == pytest.approx(period, rel=0.03)
    assert found.numbers["amplitude"] == pytest.approx(0.3 * (math.sqrt(2.0) if period == 2.0 else 1.0), rel=0.25)


def test_cycle_that_dies_out_is_no_oscillation() -> None:
    wave = 0.5 * np.cos(2.0 * np.pi * T / 5.0) * 0.93**T
    assert condition_of(lines(validation_loss=FALL + wave)).kind == "converged"


def test_correlated_noise_is_no_cycle() -> None:
    kinds = []
    for seed in range(40):
        values = generator(seed, "red").standard_normal(100)
        for t in range(1, 100):
            values[t] = 0.8 * values[t - 1] + 0.6 * values[t]
        kinds.append(condition_of(lines(validation_loss=FALL + 0.1 * values)).kind)
    assert kinds.count("oscillating") <= 2


def test_level_loss_with_steps_of_one_length_circles() -> None:
    """Gradient descent at 2/L, or two players: the distance stays, and so does the step."""
    record = lines(optimality_gap=np.full(60, 0.5), step_norm=np.full(60, 0.2), relative_change=np.full(60, 0.4))
    found = condition_of(record)
    assert found.kind == "oscillating"
    assert "circle" in found.words
    shrinking = lines(optimality_gap=np.full(60, 0.5), step_norm=0.2 * 0.9 ** np.arange(60))
    assert condition_of(shrinking).kind != "oscillating"


@pytest.mark.parametrize("growth", [0.05 * 1.1**T, 0.06 * T])
def test_loss_that_rises_above_its_start_diverges(growth: Any) -> None:
    found = condition_of(lines(validation_loss=FALL + growth, train_loss=FALL + growth))
    assert found.kind == "diverging"
    assert found.round_index < 60


def test_loss_that_is_no_number_names_the_round() -> None:
    record = lines(validation_loss=FALL)
    record[40]["validation_loss"] = math.inf
    found = condition_of(record[:41])
    assert (found.kind, found.round_index) == ("diverging", 40)


def test_validation_that_rises_while_training_falls_overfits_since_its_best_round() -> None:
    values = RISES_FROM_20 + noise(0.01)
    found = condition_of(lines(validation_loss=values, train_loss=FALL - 0.2 + 0.001))
    assert found.kind == "overfitted"
    assert found.round_index == int(np.argmin(values))
    assert found.numbers["best"] == float(values.min())
    assert "while training loss fell" in found.words


def test_validation_that_only_rises_while_training_falls_overfits_from_the_start() -> None:
    record = lines(validation_loss=1.0 + 0.01 * T, train_loss=FALL, validation_accuracy=np.full(100, 0.1))
    found = condition_of(record[:60])
    assert found.kind in ("overfitted", "diverging")
    assert found.round_index == 0
    better = lines(
        validation_loss=1.0 + 0.01 * np.minimum(T, 40), train_loss=FALL, validation_accuracy=0.9 - 0.8 * 0.9**T
    )
    assert condition_of(better).kind == "unclear"


def test_losses_that_rise_together_do_not_overfit() -> None:
    found = condition_of(lines(validation_loss=RISES_FROM_20, train_loss=RISES_FROM_20))
    assert found.kind in ("diverging", "unclear")
    rests = np.where(T < 50, RISES_FROM_20, RISES_FROM_20[50])
    found = condition_of(lines(validation_loss=rests, train_loss=rests))
    assert (found.kind, found.subkind) == ("plateaued", "biased")


def test_least_of_noisy_values_is_no_best_to_overfit_from() -> None:
    kinds = [
        condition_of(lines(validation_loss=FALL + noise(0.02, name=f"n{seed}"), train_loss=FALL)).kind
        for seed in range(60)
    ]
    assert kinds.count("overfitted") <= 1


@pytest.mark.parametrize(
    ("more", "subkind"),
    [
        ({"by_layer": [{"0": {"aggregate_norm": 1e-6}, "2": {"aggregate_norm": 1.0}}] * 40}, "vanishing_gradients"),
        ({"by_layer": [{"0": {"aggregate_norm": 0.0}, "2": {"aggregate_norm": 1.0}}] * 40}, "dead_units"),
        ({"gradient_norm": [0.0] * 40}, "dead_units"),
        ({"gradient_norm": list(0.01 * 1.1 ** np.arange(40))}, "saddle"),
        ({"relative_change": [1e-6] * 40}, "small_steps"),
        ({"by_layer": [{"0": {"aggregate_norm": 0.4}, "2": {"aggregate_norm": 1.0}}] * 40}, ""),
        ({}, ""),
    ],
)
def test_loss_that_never_leaves_its_start_is_stuck(more: dict[str, Any], subkind: str) -> None:
    values = 2.3 + noise(0.01, 40)
    values[0] = 2.3
    found = condition_of(lines(validation_loss=values, **more))
    assert (found.kind, found.round_index, found.subkind) == ("stuck", 0, subkind)


def test_loss_that_scatters_above_its_start_is_stuck_and_at_no_noise_floor() -> None:
    """As digits-diverges: what it once gained is less than its noise."""
    values = np.r_[2.5, np.full(4, 2.37), 2.9 + noise(0.25, 45)]
    found = condition_of(lines(validation_loss=values))
    assert (found.kind, found.round_index) == ("stuck", 0)
    assert "never fell below its start 2.5 by more than its noise" in found.words


def test_loss_that_stays_while_the_accuracy_rises_is_unclear() -> None:
    """As city-activity-clipped-normalised: confident mistakes keep the loss up, and the accuracy rises to 0.76."""
    record = lines(validation_loss=6.0 + noise(0.5), validation_accuracy=0.76 - 0.6 * 0.9**T)
    found = condition_of(record)
    assert (found.kind, found.numbers["score"]) == ("unclear", pytest.approx(0.76, abs=0.01))
    assert condition_of(lines(validation_loss=6.0 + noise(0.5), validation_accuracy=np.full(100, 0.1))).kind == "stuck"


def test_run_that_starts_at_its_optimum_is_not_stuck() -> None:
    assert condition_of(lines(optimality_gap=np.zeros(40), step_norm=np.zeros(40))).kind == "converged"


def drifted(values: Any, at: int) -> list[dict[str, Any]]:
    record = lines(validation_loss=values, train_loss=values)
    for line in record:
        line["concept_drift"] = {"swap": {"level": float(line["round"] >= at), "clients": 3}}
    return record


def test_loss_that_a_drift_raised_and_that_stays_has_forgotten() -> None:
    values = FALL + np.where(T >= 60, 0.8, 0.0) + noise(0.01)
    found = condition_of(drifted(values, 60))
    assert (found.kind, found.round_index) == ("forgetting", 60)
    assert found.numbers["lost_share"] == pytest.approx(0.4, abs=0.05)


def test_loss_that_recovers_from_a_drift_has_not_forgotten() -> None:
    values = FALL + np.where(T >= 30, 0.8 * 0.8 ** (T - 30.0), 0.0)
    assert condition_of(drifted(values, 30)).kind == "converged"


def test_drift_from_the_first_round_on_is_no_event() -> None:
    assert condition_of(drifted(FALL, 0)).kind == "converged"


@pytest.mark.parametrize("count", range(1, 8))
def test_few_rounds_are_too_short(count: int) -> None:
    assert condition_of(lines(validation_loss=0.9 ** np.arange(count))).kind == "too_short"


def test_parameters_at_rest_have_converged_in_a_few_rounds() -> None:
    assert (
        condition_of(lines(validation_loss=0.1 ** np.arange(6), relative_change=0.01 ** np.arange(6))).kind
        == "converged"
    )


@pytest.mark.parametrize(
    "record", [[], [{"round": 0}], [{"round": r, "no_aggregate": True, "train_loss": 1.0} for r in range(9)]]
)
def test_record_without_a_loss_is_unclear(record: list[dict[str, Any]]) -> None:
    assert condition_of(record).kind == "unclear"


@pytest.mark.parametrize("unit", [1e-6, 1e-2, 1e4])
@pytest.mark.parametrize(
    "values", [FALL, RISES_FROM_20, FALL + 0.3 * np.cos(T), 0.98**T, FALL + noise(0.3), FALL + 0.06 * T]
)
def test_unit_of_the_loss_changes_no_condition(values: Any, unit: float) -> None:
    one = condition_of(lines(validation_loss=values, train_loss=FALL))
    other = condition_of(lines(validation_loss=unit * values, train_loss=unit * FALL))
    assert (other.kind, other.round_index) == (one.kind, one.round_index)


@pytest.mark.parametrize("count", range(8, 60))
def test_rounds_after_the_loss_came_to_rest_change_no_condition(count: int) -> None:
    values = np.r_[FALL, np.full(60, FALL[-1])]
    assert condition_of(lines(validation_loss=values[: 70 + count])).kind == "converged"


def test_numbers_are_finite_and_of_json() -> None:
    for values in (FALL, RISES_FROM_20, 0.98**T, 1.0 - 0.001 * T, np.full(100, 2.0)):
        for options in (ConvergenceOptions(), loss_target(0.0)):
            found = condition_of(lines(validation_loss=values, train_loss=FALL), options)
            assert all(type(value) in (int, float) and math.isfinite(value) for value in found.numbers.values())
