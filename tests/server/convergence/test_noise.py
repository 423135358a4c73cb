"""Whether values rise, fall or only vary: exact probabilities, least squares, and cases on both sides of each limit."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.convergence.noise import climbs, deviation, direction, excess, jumps, recovering


def score(values):
    return sum(int(np.sign(b - a)) for i, a in enumerate(values) for b in values[i + 1 :])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_trend_is_one_that_noise_has_at_most_once_in_a_hundred(n):
    """The smallest score that at most a hundredth of all orders reaches; up to four values, only the full order."""
    scores = {order: score(order) for order in permutations(range(n))}
    most = n * (n - 1) // 2
    rare = [s for s in range(most + 1) if sum(found >= s for found in scores.values()) <= 0.01 * len(scores)]
    needed = min(rare, default=most) if n > 4 else most
    for order, found in scores.items():
        assert direction([float(v) for v in order]) == (found >= needed) - (found <= -needed)


def test_direction_reads_the_newest_eight_values():
    assert direction([9.0, 8.0, *map(float, range(8))]) == 1
    assert direction([0.0, *map(float, range(8, 0, -1))]) == -1
    orders = [7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert score(orders) == 14
    assert direction(orders) == 0
    rises = ((1, 0, 2, 3, 4, 7, 6, 5), (1, 0, 3, 2, 5, 4, 7, 6), (4, 0, 1, 2, 3, 5, 6, 7))
    for swapped, expected in (*((order, 1) for order in rises), ((5, 0, 1, 2, 3, 4, 6, 7), 0)):
        assert direction([float(v) for v in swapped]) == (expected if score(swapped) >= 20 else 0)
        assert (score(swapped) >= 20) == bool(expected)
        assert direction([-float(v) for v in swapped]) == -direction([float(v) for v in swapped])
    assert direction([]) == direction([1.0]) == direction([1.0] * 8) == 0


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=32))
def test_deviation_is_that_of_a_least_squares_line(values):
    t = np.arange(len(values))
    residuals = np.array(values) - np.polynomial.Polynomial.fit(t, values, 1)(t)
    expected = math.sqrt(float(residuals @ residuals) / (len(values) - 2))
    assert deviation(values) == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("unit", [1e160, 1e300])
def test_deviation_of_huge_values_is_in_their_unit(unit):
    values = [1.0, -2.0, 4.0, 3.0, 5.0]
    assert deviation([unit * value for value in values]) == pytest.approx(unit * deviation(values), rel=1e-9)


def test_deviation_of_few_values_is_their_range_over_its_expectation():
    """Two normal values differ by 2 / sqrt(pi) on average, and the range of three is 3 / sqrt(pi)."""
    assert deviation([3.0, 1.0]) == pytest.approx(2.0 / (2 / math.sqrt(math.pi)), rel=1e-3)
    assert deviation([3.0, 1.0, 2.5]) == pytest.approx(2.0 / (3 / math.sqrt(math.pi)), rel=1e-3)
    assert deviation([3.0]) == deviation([]) == 0.0


def test_values_climb_where_three_in_a_row_rise_since_the_lowest():
    up = [9.0, 1.0, 2.0, 3.0, 4.0]
    assert climbs(up)
    assert not climbs(up[:-1])
    assert not climbs([9.0, 1.0, 2.0, 2.0, 4.0])
    assert not climbs([9.0, 1.0, 2.0, 4.0, 3.0])
    assert climbs([5.0, 5.0, 5.0, 1.0, 2.0, 3.0, 4.0])
    assert climbs([1.0, 2.0, 3.0])
    assert not climbs([9.0, 8.0, 7.0])


@pytest.mark.parametrize(("losses", "best", "gain", "leaves"), [
    ([1.51], 1.0, 1.0, True), ([1.5], 1.0, 1.0, False),  # more than half of the gain above the best
    ([], 1.0, 1.0, False), ([3.0, 3.51], 1.0, 1.0, True), ([3.0, 3.5], 1.0, 1.0, False),  # above the value before
    ([1.0, 1.0, 1.0, 1.0, 1.51], 1.0, 1.0, True), ([1.0, 1.0, 1.0, 1.0, 1.5], 1.0, 1.0, False),
    ([1.0, 1.0, 1.0, 1.0, 1.0, 1.11], 1.0, 1.0, True), ([1.0, 1.0, 1.0, 1.0, 1.0, 1.1], 1.0, 1.0, False),
    ([1.0, 1.2, 1.0, 1.0, 1.0, 1.41], 1.0, 1.0, True), ([1.0, 1.25, 1.0, 1.0, 1.0, 1.5], 1.0, 1.0, False),
    ([2.0, 2.25, 2.0, 2.0, 2.0, 2.51], 1.0, 1.0, True), ([1.0, 1.0, 1.0, 1.0, 1.0, 1.15], 1.0, 2.0, False),
])  # fmt: skip
def test_value_that_leaves_those_before_it_jumps(losses, best, gain, leaves):
    assert jumps(losses, best, gain) == leaves


@pytest.mark.parametrize(("losses", "patience", "falls"), [
    ([2.0, 1.9, 1.8, 1.7], 3, True),  # height 1, and it lost 0.3
    ([11.0, 10.7, 10.4, 10.0], 3, False), ([11.0, 10.7, 10.4, 9.9], 3, True),  # a tenth of its height
    ([1.5, 1.4, 1.3, 1.2], 3, False), ([1.51, 1.4, 1.3, 1.2], 3, True),  # few values: half of the gain
    ([1.09, 1.08, 1.07, 1.06, 1.05], 4, False), ([1.11, 1.09, 1.08, 1.07, 1.06], 4, True),  # five: a tenth
    ([1.2, 2.0, 1.8, 1.6], 3, True), ([2.0, 1.6, 1.8, 1.9], 3, False), ([2.0, 1.8, 1.9, 1.7], 3, False),
    ([1.0, 1.2, 1.4, 2.0], 3, False), ([], 3, False),
    ([3.0, 1.5, 1.5, 1.5, 1.5, 1.5], 4, False), ([3.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5], 2, False),
    ([9.0, 3.0, 2.5, 2.2, 2.1, 2.05], 2, True), ([9.0, 3.0, 2.98, 2.96, 2.94, 2.92], 2, False),
    ([9.0, 3.0, 2.98, 2.96, 2.94, 2.92], 5, True),
])  # fmt: skip
def test_values_recover_where_they_fall_back_from_a_peak(losses, patience, falls):
    assert recovering(losses, 1.0, 1.0, patience) == falls


def test_recovery_is_measured_over_patience_values_after_the_first():
    losses = [9.0, 3.0, 2.98, 2.96, 2.94, 2.92, 2.9]
    assert not recovering(losses, 1.0, 1.0, 5)
    assert recovering(losses, 1.0, 1.0, 6)


def test_height_of_a_recovery_is_a_share_of_the_gain():
    losses = [1.9, 1.8, 1.7, 1.6]  # height 0.9
    assert recovering(losses, 1.0, 1.7, 3)
    assert not recovering(losses, 1.0, 2.0, 3)


def test_heights_equal_to_their_limits_are_no_rises():
    assert not recovering([0.1, 0.09, 0.08, 0.07, 0.06], 0.0, 1.0, 4)
    assert not recovering([0.5, 0.4, 0.3, 0.2], 0.0, 1.0, 3)
    assert recovering([0.5, 0.4, 0.3, 0.2, 0.1], 0.0, 1.0, 3)


def test_excess_is_the_median_above_the_best_in_units_of_noise():
    losses = [1.0, 3.0, 2.0, 5.0]
    assert excess(losses, 0.5) == pytest.approx((2.5 - 0.5) / deviation(losses), rel=1e-14)
    assert excess([2.0, 2.0], 1.0) == math.inf
    assert excess([1.0, 1.0], 1.0) == excess([1.0], 1.0) == 0.0
