"""Pairs of numbers: differences and ratios with their intervals, against SciPy and by hand, and what has no spread."""

import math

import numpy as np
import pytest
from scipy import stats

from clients.core.errors import UserError
from dashboards.statistics.paired import EXACT, paired, sign_test, signed_rank_test, student_interval, t_test

FIRST = np.array([50.0, 62.0, 41.0, 80.0, 55.0, 71.0])
SECOND = np.array([35.0, 40.0, 30.0, 49.0, 61.0, 47.0])


def test_differences_are_second_minus_first() -> None:
    found = paired(FIRST, SECOND)
    d = SECOND - FIRST
    assert (found.n, found.lower, found.higher, found.equal) == (6, 5, 1, 0)
    assert found.mean == pytest.approx(d.mean())
    assert found.median == pytest.approx(-18.5)
    assert found.std == pytest.approx(d.std(ddof=1))
    assert found.student == pytest.approx(stats.t.interval(0.95, 5, d.mean(), stats.sem(d)))
    assert found.t_p == pytest.approx(stats.ttest_rel(SECOND, FIRST).pvalue)
    assert found.wilcoxon_p == pytest.approx(2 * 2 / 2**6)  # 6 alone is positive, with the lowest rank
    assert found.sign_p == pytest.approx(2 * 7 / 2**6)


def test_ratios_are_second_over_first() -> None:
    found = paired(FIRST, SECOND)
    logs = np.log(SECOND / FIRST)
    assert found.ratio == pytest.approx(SECOND.sum() / FIRST.sum())
    assert found.geometric == pytest.approx(stats.gmean(SECOND / FIRST))
    assert found.geometric_student == pytest.approx(np.exp(stats.t.interval(0.95, 5, logs.mean(), stats.sem(logs))))
    assert found.geometric_p == pytest.approx(stats.ttest_1samp(logs, 0.0).pvalue)


def test_interval_widens_with_confidence() -> None:
    narrow, wide = (paired(FIRST, SECOND, confidence=share) for share in (0.8, 0.99))
    for one, two in (
        (narrow.student, wide.student),
        (narrow.bootstrap, wide.bootstrap),
        (narrow.geometric_student, wide.geometric_student),
    ):
        assert one is not None
        assert two is not None
        assert two[0] < one[0] < one[1] < two[1]


def test_bootstrap_repeats_for_a_seed_and_holds_the_mean() -> None:
    one, again, other = (paired(FIRST, SECOND, seed=seed).bootstrap for seed in (1, 1, 2))
    assert one is not None
    assert one == again
    assert one != other
    assert one[0] < (SECOND - FIRST).mean() < one[1]


def test_one_pair_has_a_difference_and_no_interval() -> None:
    found = paired(np.array([2.0]), np.array([3.0]))
    assert (found.mean, found.ratio, found.higher, found.sign_p) == (1.0, 1.5, 1, 1.0)
    assert found.student is found.bootstrap is found.geometric_student is None
    assert math.isnan(found.std)
    assert math.isnan(found.t_p)
    assert math.isnan(found.geometric_p)


def test_equal_arms_have_p_1_and_no_interval() -> None:
    found = paired(FIRST, FIRST)
    assert (found.mean, found.std, found.ratio, found.geometric, found.equal) == (0.0, 0.0, 1.0, 1.0, 6)
    assert found.student is found.bootstrap is found.geometric_student is None
    assert found.t_p == found.geometric_p == found.wilcoxon_p == found.sign_p == 1.0


@pytest.mark.parametrize("shift", [3.0, 0.1])
def test_constant_difference_is_judged_by_its_signs_alone(shift: float) -> None:
    """0.1 is no binary fraction, so the differences vary by rounding."""
    found = paired(FIRST, FIRST + shift)
    assert found.std == 0.0
    assert found.student is None
    assert found.bootstrap is None
    assert math.isnan(found.t_p)
    assert found.sign_p == pytest.approx(2 / 2**6)
    assert found.geometric_student is not None  # the ratios vary


def test_constant_ratio_is_judged_by_its_signs_alone() -> None:
    found = paired(FIRST, FIRST * 0.9)
    assert found.geometric == pytest.approx(0.9)
    assert found.geometric_student is None
    assert math.isnan(found.geometric_p)
    assert found.student is not None


def test_numbers_that_are_not_positive_have_no_ratio() -> None:
    found = paired(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 1.0]))
    assert math.isnan(found.geometric)
    assert math.isnan(found.geometric_p)
    assert found.geometric_student is None
    assert found.ratio == pytest.approx(5 / 3)
    assert math.isnan(paired(np.array([-1.0, -2.0]), np.array([1.0, 2.0])).ratio)


@pytest.mark.parametrize("changed", [0, 1, 2, 5])
def test_ties_have_a_result_without_a_warning(changed: int) -> None:
    first, second = np.ones(20), np.ones(20)
    second[:changed] = 2.0
    found = paired(first, second)
    assert (found.higher, found.equal) == (changed, 20 - changed)
    assert 0 < found.wilcoxon_p <= 1
    assert found.sign_p == pytest.approx(min(1.0, 2 * 0.5**changed))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([], [], "at least 1"),
        ([1.0], [1.0, 2.0], r"got shapes \(1,\) and \(2,\)"),
        ([[1.0]], [[2.0]], r"got shapes \(1, 1\)"),
        ([1.0, math.nan], [1.0, 2.0], "in 1 of 2 pairs"),
        ([1.0, 2.0], [math.inf, 2.0], "in 1 of 2 pairs"),
    ],
)
def test_numbers_that_are_no_pairs_are_refused(first: list[float], second: list[float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        paired(np.array(first), np.array(second))


@pytest.mark.parametrize("share", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(share: float) -> None:
    with pytest.raises(UserError, match=r"between 0 and 1.*95 percent is 0.95"):
        paired(FIRST, SECOND, confidence=share)


def test_tests_of_no_spread_and_of_no_pairs() -> None:
    assert student_interval(np.ones(3)) is None
    assert t_test(np.zeros(3)) == 1.0
    assert math.isnan(t_test(np.ones(3)))
    assert sign_test(0, 0) == 1.0
    assert sign_test(10, 0) == sign_test(0, 10) == pytest.approx(2 / 2**10)


@pytest.mark.parametrize("seed", range(8))
def test_signed_rank_test_with_ties_and_zeros_is_that_of_all_signs(seed: int) -> None:
    differences = np.random.default_rng(seed).integers(-4, 5, 9).astype(float)
    expected = stats.wilcoxon(differences, method=stats.PermutationMethod()).pvalue
    assert signed_rank_test(differences) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 13, 14, 30, EXACT])
def test_signed_rank_test_without_ties_is_the_exact_one(n: int) -> None:
    differences = np.random.default_rng(n).normal(0.3, 1.0, n)
    assert signed_rank_test(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, rel=1e-9)


def test_signed_rank_test_of_many_differences_is_asymptotic() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1.0, EXACT + 1)
    assert signed_rank_test(differences) == stats.wilcoxon(differences, method="asymptotic").pvalue
