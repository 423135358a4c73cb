"""Scores of trials: medians over seeds, in which divergence and missed targets have their stated places."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from clients.core.errors import UserError
from dashboards.report.run_data import RunData
from server.record.records import RunFolder
from simulator.tuning.measures import Score, SeedResult, measure_of, names, progress_of, result_of, score_of


def result(value: float, *, at_least: bool = False, diverged: bool = False) -> SeedResult:
    return SeedResult(0, "", value, at_least, diverged, 9)


def run_data(outcome: dict[str, object], *, last: dict[str, object] | None = None) -> RunData:
    lines = [{"round": 0, "validation_loss": 2.0}, {"round": 40, "validation_loss": 0.5, **(last or {})}]
    return RunData(RunFolder(Path("made")), lines, facts={"rounds": 60}, outcome=outcome)


@pytest.mark.parametrize(
    ("results", "wanted"),
    [
        ([result(3.0), result(1.0), result(2.0)], Score(2.0, False)),
        ([result(1.0), result(4.0)], Score(2.5, False)),
        ([result(20.0), result(60.0, at_least=True), result(30.0)], Score(30.0, False)),
        ([result(20.0), result(60.0, at_least=True), result(60.0, at_least=True)], Score(60.0, True)),
        ([result(20.0), result(60.0, at_least=True)], Score(40.0, True)),
        ([result(1.0), result(math.inf, diverged=True), result(2.0)], Score(2.0, False)),
        ([result(1.0), result(math.inf, diverged=True)], Score(math.inf, False)),
        ([result(-math.inf, diverged=True), result(0.9), result(-math.inf, diverged=True)], Score(-math.inf, False)),
    ],
)
def test_score_is_the_median_and_says_where_it_is_a_lower_bound(results: list[SeedResult], wanted: Score) -> None:
    assert score_of(results) == wanted


def test_run_that_missed_its_target_counts_as_its_budget() -> None:
    rounds = measure_of("rounds_to_target")
    missed = result_of(run_data({"outcome": "stopped", "to_target": {"metric": "m", "value": 0.9}}), rounds, 7)
    assert (missed.value, missed.at_least, missed.seed) == (60.0, True, 7)
    reached = {"metric": "m", "value": 0.9, "rounds": 12}
    hit = result_of(run_data({"outcome": "stopped", "to_target": reached}), rounds, 7)
    assert (hit.value, hit.at_least) == (12.0, False)


def test_run_that_diverged_is_infinitely_bad_in_either_direction() -> None:
    diverged = run_data({"outcome": "diverged", "test_accuracy": 0.9})
    assert result_of(diverged, measure_of("validation_loss"), 0).value == math.inf
    assert result_of(diverged, measure_of("test_accuracy"), 0).value == -math.inf


def test_measure_that_a_run_lacks_is_refused_with_the_fix() -> None:
    with pytest.raises(UserError, match=r"'rounds_to_target' was not measured.*Set convergence.target"):
        result_of(run_data({"outcome": "stopped"}), measure_of("rounds_to_target"), 0)


def test_validation_score_is_that_of_the_last_round() -> None:
    accuracy = result_of(run_data({"outcome": "stopped"}, last={"validation_accuracy": 0.75}),
                         measure_of("validation_accuracy"), 3)  # fmt: skip
    assert accuracy.value == 0.75


@pytest.mark.parametrize("key", ["client_drift", "rounds_played"])
def test_measure_without_a_better_direction_is_refused(key: str) -> None:
    assert key not in names()
    with pytest.raises(UserError, match=f"measure: '{key}' is neither better small nor large"):
        measure_of(key)


def test_unknown_measure_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Nearest: 'validation_loss'"):
        measure_of("validation_los")


def test_progress_has_the_direction_of_the_measure() -> None:
    line = {"validation_loss": 0.5, "validation_accuracy": 0.8, "train_loss": 0.4}
    assert progress_of(line, measure_of("test_accuracy")) == 0.8
    assert progress_of(line, measure_of("train_loss")) == 0.4
    assert progress_of(line, measure_of("rounds_to_target")) == 0.5
    assert progress_of({"validation_loss": 0.5}, measure_of("test_accuracy")) == -0.5
    assert progress_of({"train_loss": 0.5}, measure_of("validation_loss")) is None
    assert progress_of({"validation_loss": math.nan}, measure_of("validation_loss")) == math.inf
