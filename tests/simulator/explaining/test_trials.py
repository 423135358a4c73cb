"""Trials against closed forms on quadratics, in float64."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fedscape as fs
from simulator.explaining.trials import State, Trials, sample_of
from simulator.runs.building import Overrides
from simulator.runs.session import open_session

CURVATURES, MINIMA = np.array([1.0, 4.0, 2.0, 0.5]), np.array([-1.0, 3.0, 0.5, 2.0])
START, STEPS, RATE = 1.5, 3, 0.05


@contextmanager
def opened(**sets: Any):
    scenario = fs.load_scenario(
        "quadratic-two-clients",
        sets={
            "local.local_lr": RATE,
            "local.local_steps": STEPS,
            "engine.kind": "stacked",
            "engine.workers": 1,
            **sets,
        },
    )
    data = fs.quadratics(CURVATURES[:, None, None], MINIMA[:, None])
    with closing(open_session(scenario, Overrides(None, data, None, None))) as session:
        yield session


def at(session, value: float, place: str = "end") -> State:
    params = session.start.params.new_full(session.start.params.shape, value)
    return State(place, 3, params, session.start.buffers)


def loss(w: float) -> float:
    return float(np.mean(CURVATURES * (w - MINIMA) ** 2 / 2))


def after(w: float, rate: float, steps: int, clients=slice(None)) -> float:
    """The mean of the clients' models after their local steps."""
    return float(np.mean((MINIMA + (1 - rate * CURVATURES) ** steps * (w - MINIMA))[clients]))


def played(session, place: str = "end", cohort: int = 4, repeats: int = 1):
    trials = Trials(session.task, session.engine, session.evaluator, cohort)
    return trials.play(at(session, START, place), repeats=repeats)


@pytest.mark.parametrize(
    ("name", "rate", "steps"),
    [("own", RATE, 3), ("half_rate", RATE / 2, 3), ("fourfold_rate", 4 * RATE, 3)],
)
def test_trial_changes_the_loss_as_the_closed_form_does(name, rate, steps):
    with opened() as session:
        found = played(session)[name]
    own = loss(after(START, RATE, STEPS))
    assert found.change == pytest.approx(loss(after(START, rate, steps)) - loss(START), abs=1e-12)
    assert found.gain == pytest.approx(own - loss(after(START, rate, steps)), abs=1e-12)


def test_trials_from_the_start_try_far_smaller_and_far_larger_rates():
    with opened() as session:
        found = played(session, "start")
    assert set(found) == {"own", "eighth_rate", "eightfold_rate"}
    assert found["eighth_rate"].change == pytest.approx(loss(after(START, RATE / 8, 3)) - loss(START), abs=1e-12)


def test_larger_cohort_of_all_clients_gives_the_mean_of_all():
    with opened() as session:
        found = played(session, cohort=1, repeats=4)
    assert found["larger_cohort"].change == pytest.approx(loss(after(START, RATE, STEPS)) - loss(START), abs=1e-12)
    ones = [loss(after(START, RATE, STEPS, [k])) - loss(START) for k in range(4)]
    assert min(ones) <= found["own"].change <= max(ones)
    assert found["larger_cohort"].error > 0


def test_gain_over_several_cohorts_has_the_error_of_their_mean():
    with opened() as session:
        trials = Trials(session.task, session.engine, session.evaluator, 1)
        state, repeats = at(session, START), trials.repeats
        found = trials.play(state, repeats=repeats)["larger_cohort"]
        ones = [trials.play(replace(state, round_index=3 + n))["larger_cohort"].gain for n in range(repeats)]
    assert found.gain == pytest.approx(np.mean(ones), abs=1e-12)
    assert found.error == pytest.approx(np.std(ones, ddof=1) / np.sqrt(repeats), abs=1e-12)


@pytest.mark.parametrize(("cohort", "repeats"), [(1, 8), (4, 7)])
def test_small_cohorts_are_repeated_more_often(cohort, repeats):
    with opened() as session:
        assert Trials(session.task, session.engine, session.evaluator, cohort).repeats == repeats


def test_gain_of_four_times_the_rate_is_of_one_cohort():
    with opened() as session:
        one, several = (played(session, cohort=1, repeats=n)["fourfold_rate"] for n in (1, 4))
    assert one == several


def test_error_is_nothing_where_every_client_is_seen_once():
    with opened() as session:
        assert played(session)["half_rate"].error == 0


def test_full_batch_changes_nothing_without_noise_in_gradients():
    with opened(**{"local.optimizer": "sgd", "local.batch_size": 1}) as session:
        found = played(session)
    assert found["full_batch"].gain == pytest.approx(0, abs=1e-12)


def test_trials_of_what_the_scenario_does_not_have_are_left_out():
    with opened() as session:
        assert not {"unclipped", "undecayed"} & set(played(session))
    sets = {"local.clip_norm": 0.01, "local.schedule.kind": "inverse_time"}
    with opened(**sets) as session:
        found = played(session)
    assert found["unclipped"].gain > 0
    assert found["undecayed"].gain != 0


def test_larger_cohort_is_tried_where_it_is_asked_for():
    with opened() as session:
        trials = Trials(session.task, session.engine, session.evaluator, 2)
        every, fewer = (trials.play(at(session, START), larger_cohort=asked) for asked in (True, False))
    assert fewer == {name: found for name, found in every.items() if name != "larger_cohort"}
    assert "larger_cohort" in every


def test_repeating_trials_gives_the_same_numbers():
    with opened() as session:
        assert played(session, cohort=2, repeats=2) == played(session, cohort=2, repeats=2)


def test_state_that_is_not_finite_has_no_trials():
    with opened() as session:
        trials = Trials(session.task, session.engine, session.evaluator, 4)
        assert trials.play(at(session, float("nan"))) == {}


def test_sample_holds_each_client_of_a_small_federation_once():
    with opened() as session:
        assert sample_of(session.task).tolist() == [0, 1, 2, 3]
