"""Divergence on both sides of its limits: the rounds that count, the limits of losses and the medians of norms."""

from __future__ import annotations

import numpy as np
import pytest

from server.convergence.divergence import DivergenceOptions, DivergenceWatch, LossCourse


def diverged(options=None, **series):
    """Return what the watch finds in each round; it goes on after it has found something."""
    watch = DivergenceWatch(options or DivergenceOptions())
    rounds = zip(*series.values(), strict=True)
    return [watch.observe(dict(zip(series, facts, strict=True))) for facts in rounds]


def fires(options=None, **series):
    return [r for r, found in enumerate(diverged(options, **series)) if found is not None]


def test_none_is_written_as_zero_and_compares_nothing():
    never = DivergenceOptions(loss_factor=None, spike=None)
    assert (never.loss_factor, never.spike) == (0.0, 0.0)
    assert set(never.unread()) == {"patience"}
    assert DivergenceOptions(loss_factor=2.0, spike=0.0).unread() == {}
    assert DivergenceOptions(loss_factor=0.0, spike=2.0).unread() == {}
    norms = [3.0, 1.0, 2.0, 4.0, 2.0, 1e9, 1e9, 1e9]
    assert fires(never, train_loss=norms, largest_gradient_norm=norms) == []


def test_unit_of_a_course_is_its_first_distance_from_its_start():
    course = LossCourse(3.0)
    for loss in (3.0, 4.0, 9.0):
        course.observe(loss, 20.0, shrinks=False)
    assert course.unit == 1.0


def test_loss_equal_to_its_highest_value_is_no_new_high():
    assert fires(train_loss=[1.0, 50.0, 50.0]) == []
    assert fires(train_loss=[1.0, 50.0, 50.0, 50.5]) == [3]


def test_highs_count_anew_after_ten_rounds_below_the_limit():
    """The limit is 1 + 20 x 1."""
    assert fires(train_loss=[1.0, 22.0, *([1.0] * 9), 23.0]) == [11]
    assert fires(train_loss=[1.0, 22.0, *([1.0] * 10), 23.0]) == []
    assert fires(train_loss=[1.0, 22.0, *([1.0] * 10), 21.5, 21.6]) == [13]


def test_loss_below_its_limit_ends_the_rounds_in_which_it_was_stuck():
    """It counts as diverged after five times the patience of two."""
    assert fires(train_loss=[1.0, 50.0, 1.0, *([40.0] * 9)]) == []
    assert fires(train_loss=[1.0, 50.0, 1.0, *([40.0] * 10)]) == [12]


def test_highs_count_while_steps_stay_equal():
    assert fires(train_loss=[1.0, 22.0, 23.0], step_norm=[1.0, 1.0, 1.0]) == [2]


def test_step_is_compared_with_the_last_measured_one():
    assert fires(train_loss=[1.0, 22.0, 23.0], step_norm=[2.0, None, 1.0]) == []
    assert fires(train_loss=[1.0, 22.0, 23.0], step_norm=[1.0, None, 2.0]) == [2]


def test_each_loss_has_a_start_of_its_own():
    assert fires(train_loss=[1.0, 1.0, 1.0], validation_loss=[100.0, 101.0, 102.0]) == []


def test_loss_at_its_limit_is_not_above_it():
    assert fires(train_loss=[1.0, 22.0, 23.0, 21.0, 21.5]) == [2, 4]


def test_reason_says_whether_the_loss_grew_or_did_not_fall():
    grown = diverged(train_loss=[1.0, 22.0, 23.0])[-1]
    assert grown.reasons[0].endswith(", at a new highest value in 2 measured rounds")
    assert (grown.value, grown.threshold) == (23.0, 21.0)
    stuck = diverged(train_loss=[1.0, 50.0, *([40.0] * 11)])[-1]
    assert stuck.reasons[0].endswith(", and did not fall in 10 measured rounds")
    assert "Lower local_lr" in grown.hint
    assert grown.hint == stuck.hint


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_limit_of_a_norm_is_its_factor_times_the_median_before(size):
    norms = [size * 3.0**r for r in range(12)]
    found = diverged(DivergenceOptions(spike=2.0, patience=1), largest_gradient_norm=norms)
    assert found[:5] == [None] * 5
    for r in range(5, 12):
        median = float(np.median(norms[:r]))
        assert found[r].value == norms[r]
        assert found[r].threshold == pytest.approx(2.0 * median, rel=1e-15)
        assert f" is {norms[r] / median:.3g} times its median " in found[r].reasons[0]
