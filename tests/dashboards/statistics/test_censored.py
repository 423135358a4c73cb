"""Pairs of censored numbers: curves, medians, restricted means and the paired log-rank, by hand."""

import math
from typing import Any

import numpy as np
import pytest

from clients.core.errors import UserError
from dashboards.statistics.censored import censored, restricted_mean, survival_curve


def arm(*times: float, missed: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """Return times, and that all of them are hits but those at the places `missed`."""
    return np.array(times), np.array([i not in missed for i in range(len(times))])


def compared(first: tuple[Any, Any], second: tuple[Any, Any], **options: Any) -> Any:
    return censored(*first, *second, **options)


def test_curve_falls_at_hits_by_the_share_at_risk() -> None:
    curve = survival_curve(*arm(1, 2, 2, 3, 5, missed=(2, 4)))
    assert curve.times.tolist() == [1, 2, 3]
    assert curve.share == pytest.approx([4 / 5, 4 / 5 * 3 / 4, 4 / 5 * 3 / 4 * 1 / 2])
    assert (curve.misses, curve.last, curve.median) == (2, 5, 3)
    assert (curve.low < curve.share).all()
    assert (curve.share < curve.high).all()


def test_intervals_of_the_curve_are_greenwoods_on_the_scale_of_two_logarithms() -> None:
    curve = survival_curve(*arm(1, 2, 3, 4))
    share, spread = 0.75, math.sqrt(1 / (4 * 3))  # Greenwood's sum, after the first hit
    width = 1.959964 * spread / abs(math.log(share))
    assert curve.low[0] == pytest.approx(share ** math.exp(width))
    assert curve.high[0] == pytest.approx(share ** math.exp(-width))
    assert math.isnan(curve.low[-1])


@pytest.mark.parametrize(
    ("times", "missed", "median"),
    [
        ((1, 2, 3), (), 2),
        ((1, 2, 3, 4), (), 2.5),
        ((4, 3, 1, 2), (), 2.5),
        ((1, 2, 9, 9), (2, 3), math.nan),
        ((1, 9, 9), (1, 2), math.nan),
        ((1, 2, 9), (2,), 2),
        (tuple(range(1, 11)), (), 5.5),
    ],
)
def test_median_is_where_half_have_reached_it(times: tuple[float, ...], missed: tuple[int, ...], median: float) -> None:
    assert survival_curve(*arm(*times, missed=missed)).median == pytest.approx(median, nan_ok=True)


def test_arm_that_always_misses_has_an_empty_curve() -> None:
    curve = survival_curve(*arm(100, 100, missed=(0, 1)))
    assert curve.times.size == curve.share.size == 0
    assert math.isnan(curve.median)
    assert curve.median_interval is None
    assert (curve.misses, curve.last) == (2, 100)


def test_restricted_mean_is_the_mean_of_times_cut_at_the_horizon() -> None:
    times, hit = arm(10, 50, 100, 80, missed=(2,))
    assert restricted_mean(times, hit, 100) == pytest.approx(60)
    assert restricted_mean(times, hit, 60) == pytest.approx((10 + 50 + 60 + 60) / 4)
    assert restricted_mean(times, hit, 5) == pytest.approx(5)
    assert restricted_mean(*arm(100, missed=(0,)), 100) == 100


def test_misses_at_the_budget_leave_the_plain_differences() -> None:
    found = compared(arm(10, 20, 30), arm(40, 100, 100, missed=(1, 2)))
    d = np.array([30.0, 80.0, 70.0])
    assert (found.horizon, found.first_mean, found.second_mean) == (100, 20, 80)
    assert found.mean == pytest.approx(60)
    assert found.std == pytest.approx(d.std(ddof=1))
    assert found.student is not None
    assert sum(found.student) / 2 == pytest.approx(60)
    assert (found.lower, found.higher, found.equal, found.unknown) == (0, 3, 0, 0)


def test_early_censoring_is_given_the_mean_of_those_that_went_on() -> None:
    """A run that was interrupted at 10 counts as the others, not as 10 rounds and not as the budget."""
    found = compared(arm(20, 20, 40, 10, missed=(3,)), arm(20, 20, 40, 40))
    assert found.horizon == 40
    assert found.first_mean == pytest.approx((20 + 20 + 40) / 3)
    assert found.second_mean == 30
    assert found.student is not None
    assert found.student[0] < found.mean < found.student[1]


def test_horizon_is_the_longest_time_known_of_both_arms() -> None:
    assert compared(arm(10, 100, missed=(1,)), arm(10, 60, missed=(1,))).horizon == 60
    assert compared(arm(10, 100), arm(10, 60, missed=(1,))).horizon == 60
    assert compared(arm(10, 50), arm(10, 60, missed=(1,))).horizon == 60
    assert compared(arm(10, 50), arm(10, 30)).horizon == 50
    assert compared(arm(10, 60, missed=(1,)), arm(10, 60), horizon=25).first_mean == (10 + 25) / 2


def test_directions_count_a_miss_as_higher_than_a_hit_up_to_it() -> None:
    first = arm(50, 100, 100, 140, 7, missed=(1, 2))
    second = arm(100, 40, 100, 100, 7, missed=(0, 2, 3))
    found = compared(first, second)
    assert (found.lower, found.higher, found.equal, found.unknown) == (1, 1, 1, 2)


def test_log_rank_of_all_signs_alike_has_two_of_all_changes() -> None:
    n = 8
    found = compared((np.arange(1.0, n + 1), np.ones(n, bool)), (np.arange(11.0, n + 11), np.ones(n, bool)))
    assert found.log_rank_p == pytest.approx(2 / 2**n)
    assert found.sign_p == pytest.approx(2 / 2**n)


def test_log_rank_by_hand() -> None:
    """A hit has the score 1 - H(t), a miss -H(t), with the hazard H of all; two pairs have four changes of sign."""
    found = compared(arm(1, 3), arm(2, 4, missed=(1,)))
    hazard = np.cumsum([1 / 4, 1 / 3, 1 / 2])
    d = np.array([(1 - hazard[1]) - (1 - hazard[0]), -hazard[2] - (1 - hazard[2])])
    sums = [abs(s * d[0] + t * d[1]) for s in (1, -1) for t in (1, -1)]
    assert found.log_rank_p == pytest.approx(np.mean(np.array(sums) >= abs(d.sum()) - 1e-12))


def test_stratified_log_rank_is_the_chi_square_of_signs() -> None:
    n, lost = 12, 2
    first, second = np.full(n, 10.0), np.full(n, 5.0)
    second[:lost] = 20.0
    found = compared((first, np.ones(n, bool)), (second, np.ones(n, bool)))
    chi_square = (n - 2 * lost) ** 2 / n
    assert found.stratified_p == pytest.approx(math.erfc(math.sqrt(chi_square / 2)))


@pytest.mark.parametrize("n", [1, 2, 10])
def test_all_missed_tell_nothing_without_a_warning(n: int) -> None:
    everyone = arm(*[100.0] * n, missed=tuple(range(n)))
    found = compared(everyone, everyone)
    assert (found.mean, found.unknown, found.log_rank_p, found.sign_p) == (0, n, 1, 1)
    assert found.student is None
    assert math.isnan(found.stratified_p)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_equal_hits_have_p_1_without_a_warning(n: int) -> None:
    everyone = arm(*np.arange(1.0, n + 1))
    found = compared(everyone, everyone)
    assert (found.mean, found.equal, found.log_rank_p) == (0, n, 1)
    assert found.student is None


def test_targets_reached_at_round_0_have_a_result() -> None:
    found = compared(arm(0, 0), arm(0, 0, missed=(1,)))
    assert (found.horizon, found.mean, found.higher) == (0, 0, 1)


def test_one_pair_has_no_interval_and_p_1() -> None:
    found = compared(arm(5), arm(100, missed=(0,)))
    assert (found.mean, found.higher, found.log_rank_p) == (95, 1, 1)
    assert found.student is None


def test_drawn_signs_repeat_for_a_seed() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(1, 80, 20).astype(float) for _ in range(2))
    one, again = (compared((first, first < 60), (second, second < 60), seed=3).log_rank_p for _ in range(2))
    assert one == again


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": 0.0}, "horizon: must be positive and at most 60"),
        ({"horizon": 61.0}, "at most 60, the longest time known of both arms, got 61"),
        ({"confidence": 1.5}, "confidence: must be between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        compared(arm(10, 60, missed=(1,)), arm(10, 20), **options)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="second_hit: must have the length of its times, 2"):
        censored(*arm(1, 2), np.array([1.0, 2.0]), np.array([True]))
    with pytest.raises(UserError, match="first_hit: must have times from 0 on, got -1"):
        censored(*arm(-1, 2), *arm(1, 2))
