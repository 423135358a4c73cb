"""Holm's correction and the seeds that a difference needs, by hand and against the normal's closed form."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from clients.core.errors import UserError
from dashboards.statistics.planning import holm, pairs_for, seeds_needed


def test_holm_multiplies_by_the_comparisons_left_and_never_falls() -> None:
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_agrees_with_statsmodels() -> None:
    p = np.random.default_rng(0).uniform(0, 0.2, 9)
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])


def test_holm_leaves_missing_p_out_of_the_family() -> None:
    found = holm([math.nan, 0.01, 0.03])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.02, 0.03])
    assert all(math.isnan(p) for p in holm([math.nan]))


def test_holm_refuses_what_is_no_p() -> None:
    with pytest.raises(UserError, match=r"between 0 and 1, got \[0.1, 1.2\]"):
        holm([0.1, 1.2])


@pytest.mark.parametrize(("effect", "power", "alpha"), [(0.1, 0.8, 0.05), (0.02, 0.9, 0.01), (0.3, 0.5, 0.05)])
def test_seeds_needed_are_the_normals_with_the_t_tests_correction(effect: float, power: float, alpha: float) -> None:
    ends = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    normal = sum(ends) ** 2 / effect**2 + ends[0] ** 2 / 2
    assert pairs_for(1.0, effect, power, alpha) == pytest.approx(normal, abs=1.5)


def test_seeds_needed_are_the_fewest_with_the_power() -> None:
    """The power of a t test is a tail of the noncentral t."""

    def power(n: int, effect: float) -> float:
        end, shift = stats.t.ppf(0.975, n - 1), effect * math.sqrt(n)
        return float(stats.nct.sf(end, n - 1, shift) + stats.nct.cdf(-end, n - 1, shift))

    for effect in (0.25, 0.5, 1.0, 2.0, 5.0):
        n = pairs_for(1.0, effect)
        assert n is not None
        assert power(n, effect) >= 0.8
        assert n == 2 or power(n - 1, effect) < 0.8


def test_seeds_needed_follow_the_spread_of_the_pilot() -> None:
    pilot = np.array([-1.0, 0.0, 1.0, 2.0])
    assert seeds_needed(pilot, 0.5) == pairs_for(pilot.std(ddof=1), 0.5) == seeds_needed(pilot + 7, -0.5)
    assert seeds_needed(np.ones(3), 0.5) == 2
    assert seeds_needed(pilot, 1e9) == 2
    assert seeds_needed(pilot, 1e-6) is None


@pytest.mark.parametrize(
    ("pilot", "difference", "power", "words"),
    [
        ([1.0], 0.5, 0.8, "at least two finite numbers.*One pair says nothing"),
        ([1.0, math.nan], 0.5, 0.8, "at least two finite numbers"),
        ([1.0, 2.0], 0.0, 0.8, "difference: must be a number other than 0"),
        ([1.0, 2.0], math.inf, 0.8, "difference: must be a number other than 0"),
        ([1.0, 2.0], 0.5, 1.0, "power: must be between 0 and 1"),
    ],
)
def test_pilots_that_say_nothing_are_refused(pilot: list[float], difference: float, power: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        seeds_needed(np.array(pilot), difference, power)
