"""The numbers that lessons read of runs: closed forms of changed scenarios, and nan where a run has no such number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from simulator.lessons.federated import PARTICIPATION
from simulator.lessons.fitting import SEARCH
from simulator.lessons.games import CIRCLES, DRAWN, eigenvalue, factor_of
from simulator.lessons.lesson import Lesson, Numbers
from simulator.lessons.networks import EXPLODING
from simulator.lessons.play import scenarios_of
from simulator.lessons.rates import NOISE_FLOOR, WARM_UP
from simulator.lessons.reading import factor, noise_floor
from simulator.lessons.reading import test_accuracy as accuracy_of
from simulator.runs.run import Run, simulate


def runs_of(lesson: Lesson, sets: Sequence[str], *arms: str) -> dict[str, Run]:
    """Play some arms of a lesson with changes; by default all."""
    made = scenarios_of(lesson, sets)
    return {arm: simulate(made[arm], record=False) for arm in arms or made}


def numbers_of(lesson: Lesson, *sets: str) -> Numbers:
    """Return the numbers of a changed lesson, and check that its texts can be written with them."""
    found = {key: float(value) for key, value in lesson.numbers(runs_of(lesson, sets)).items()}
    assert all("{" not in text for text in lesson.texts(found).values())
    return found


def test_noise_floor_is_zero_for_batches_of_all_examples() -> None:
    run = runs_of(NOISE_FLOOR, ["run.rounds=1"], "16")["16"]
    n, eta, h, d = 64, 0.1, 2.0, 20
    assert noise_floor(run) == pytest.approx(d * eta * (n - 16) / (16 * (n - 1)) / (2 * (2 - eta * h)))
    for size in ("64", "100", "full"):
        assert noise_floor(runs_of(NOISE_FLOOR, ["run.rounds=1", f"16:batch_size={size}"], "16")["16"]) == 0


def test_factor_is_nan_where_the_run_has_no_such_rounds() -> None:
    run = runs_of(NOISE_FLOOR, ["run.rounds=3"], "16")["16"]
    assert math.isfinite(factor(run, "optimality_gap", 0, 3))
    for start, end in ((0, 4), (2, 2), (0, -1)):
        assert math.isnan(factor(run, "optimality_gap", start, end))
    assert math.isnan(factor(run, "no_such_metric", 0, 3))


def test_accuracy_of_zero_is_a_number() -> None:
    run = runs_of(NOISE_FLOOR, ["run.rounds=1"], "16")["16"]
    assert math.isnan(accuracy_of(run))
    run.outcome["test_accuracy"] = 0.0
    assert accuracy_of(run) == 0.0


def test_search_without_validation_examples_chooses_nothing() -> None:
    found = numbers_of(SEARCH, "data.validation_fraction=0", "run.rounds=1")
    assert math.isnan(found["chosen"])
    assert math.isnan(found["test_chosen"])


def test_well_started_at_its_minimum_has_no_limit_of_the_start() -> None:
    changes = [f"{arm}:model.start=1" for arm in ("well, at once", "well, warm-up")]
    changes += [f"{arm}:run.rounds=1" for arm in WARM_UP.arms]
    assert numbers_of(WARM_UP, *changes)["limit_start"] == math.inf


def test_floor_of_cohorts_has_no_closed_form_where_clients_take_different_numbers_of_steps() -> None:
    steps = ",".join(["1", "5"] * 10)
    found = numbers_of(PARTICIPATION, f"local.local_steps=[{steps}]", "run.rounds=1")
    assert math.isnan(found["theory_2"])
    assert numbers_of(PARTICIPATION, "2 of 20:algorithm.cohort=20", "run.rounds=1")["theory_2"] == 0


def test_growth_over_no_further_steps_is_nan() -> None:
    changes = ("radius 1.3, clipped, 12 steps:data.window=48", "run.rounds=1")
    assert math.isnan(numbers_of(EXPLODING, *changes)["growth_loss"])


def test_real_digits_have_no_distance_without_validation_examples() -> None:
    found = numbers_of(DRAWN, "data.validation_fraction=0", "run.rounds=1")
    assert math.isnan(found["real"])


@pytest.mark.parametrize(
    ("arm", "changes"),
    [
        ("R1", []),
        ("R1", ["R1:model.regularisation=consensus"]),
        ("R1", ["R1:local.local_steps=3"]),
        ("alternating", ["alternating:model.regularisation=consensus", "alternating:model.gamma=0.5"]),
        ("alternating", ["alternating:model.discriminator_steps=3", "alternating:local.local_steps=8",
                         "alternating:model.regularisation=r1", "alternating:model.gamma=0.5"]),
    ],
)  # fmt: skip
def test_circles_shrink_by_the_modulus_of_their_eigenvalue(arm: str, changes: list[str]) -> None:
    run = runs_of(CIRCLES, ["run.rounds=70", *changes], arm)[arm]
    assert factor_of(run) == pytest.approx(abs(eigenvalue(run)), rel=0.01)


def test_alternating_steps_of_at_least_two_have_no_largest_distance() -> None:
    assert numbers_of(CIRCLES, "local.local_lr=2", "run.rounds=2")["theory_high"] == math.inf
