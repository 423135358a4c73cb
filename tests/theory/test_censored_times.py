"""Censored numbers: curves and restricted means against exponential and geometric laws, the level of paired tests."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from dashboards.statistics.censored import censored, restricted_mean, survival_curve

MANY = 20_000
STUDIES = 400


def test_curve_of_censored_exponential_times_is_the_exponential() -> None:
    """Runs that are interrupted at random times bias neither curve, median nor mean."""
    rng, rate, horizon = np.random.default_rng(0), 1 / 40, 60.0
    needed, stopped = rng.exponential(1 / rate, MANY), np.minimum(rng.uniform(0, 150, MANY), horizon)
    times, hit = np.minimum(needed, stopped), needed <= stopped
    assert 0.25 < 1 - hit.mean() < 0.5
    curve = survival_curve(times, hit)
    for at in (10.0, 30.0, 55.0):
        place = np.searchsorted(curve.times, at) - 1
        assert curve.share[place] == pytest.approx(np.exp(-rate * at), abs=0.015)
    assert curve.median == pytest.approx(np.log(2) / rate, rel=0.03)
    assert restricted_mean(times, hit, horizon) == pytest.approx((1 - np.exp(-rate * horizon)) / rate, rel=0.015)
    assert times.mean() < 0.9 * restricted_mean(times, hit, horizon)  # what averaging the bounds would give
    assert times[hit].mean() < 0.65 / rate  # and the hits alone


def test_curve_of_geometric_rounds_is_the_geometric() -> None:
    rng, p, budget = np.random.default_rng(1), 0.02, 50
    needed = rng.geometric(p, MANY).astype(float)
    times, hit = np.minimum(needed, budget), needed <= budget
    curve = survival_curve(times, hit)
    assert curve.times.tolist() == list(range(1, budget + 1))
    assert curve.share == pytest.approx((1 - p) ** np.arange(1, budget + 1), abs=0.012)
    assert curve.median == 35  # the first t with 0.98 ** t < 0.5
    assert curve.misses / MANY == pytest.approx((1 - p) ** budget, abs=0.012)
    assert restricted_mean(times, hit, budget) == pytest.approx((1 - (1 - p) ** budget) / p, rel=0.01)


def raced(rng: np.random.Generator, n: int, effect: float = 0.0) -> tuple[np.ndarray, ...]:
    """Return times and hits of two arms that share an effect of the seed; `effect` is added to the second's log."""
    seeds, found = rng.normal(3.6, 0.4, n), []
    for shift in (0.0, effect):
        needed = np.exp(seeds + shift + 0.3 * rng.normal(size=n))
        found += [np.minimum(needed, 60.0), needed <= 60.0]
    return tuple(found)


def rejects(n: int, p_of: Callable[..., float], effect: float = 0.0, studies: int = STUDIES) -> float:
    rng = np.random.default_rng(n)
    return float(np.mean([p_of(censored(*raced(rng, n, effect))) <= 0.05 for _ in range(studies)]))


@pytest.mark.slow
@pytest.mark.parametrize("n", [6, 8, 10, 20])
def test_paired_log_rank_keeps_its_level(n: int) -> None:
    """At most the nominal rate; of 6 pairs a p of 0.05 needs all six signs alike."""
    rate = rejects(n, lambda found: found.log_rank_p)
    assert rate <= stats.binom.ppf(0.999, STUDIES, 0.05) / STUDIES
    assert n < 10 or rate >= stats.binom.ppf(0.001, STUDIES, 0.035) / STUDIES


def test_chi_square_of_the_stratified_log_rank_does_not_keep_its_level() -> None:
    """Without ties and misses it is the chi-square of signs: one pair of 8 against the rest is called a difference."""
    first, second = np.full(8, 10.0), np.array([20.0] + [5.0] * 7)
    found = censored(first, np.ones(8, bool), second, np.ones(8, bool))
    level = 2 * (1 + 8) / 2**8
    assert found.stratified_p < 0.05 < level
    assert found.sign_p == pytest.approx(level)
    assert level > 0.07


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20])
def test_paired_log_rank_finds_more_than_the_stratified_one(n: int) -> None:
    """It uses how much later an arm is, not only which of a pair is first."""
    mine, stratified = (
        rejects(n, p_of, effect=-0.35) for p_of in (lambda found: found.log_rank_p, lambda found: found.stratified_p)
    )
    assert mine > stratified


def true_mean(location: float, spread: float, horizon: float) -> float:
    """Return the mean of min(T, horizon) of a lognormal T."""
    end = (np.log(horizon) - location) / spread
    below = np.exp(location + spread**2 / 2) * stats.norm.cdf(end - spread)
    return float(below + horizon * stats.norm.sf(end))


@pytest.mark.slow
@pytest.mark.parametrize("early", [0.0, 0.2])
@pytest.mark.parametrize("n", [5, 10, 30])
def test_interval_of_restricted_means_covers_the_truth(n: int, early: float) -> None:
    """Also where a fifth of the runs is interrupted at a random time. The median's interval needs 10 pairs or more."""
    rng, hits, studies = np.random.default_rng(n), np.zeros(2), 1_000
    for _ in range(studies):
        first, first_hit, second, second_hit = raced(rng, n, -0.3)
        parts = []
        for times, hit in ((first, first_hit), (second, second_hit)):
            stopped = np.where(rng.random(n) < early, rng.uniform(0, 60, n), 60.0)
            parts += [np.minimum(times, stopped), hit & (times <= stopped)]
        found = censored(*parts)
        true = true_mean(3.3, 0.5, found.horizon) - true_mean(3.6, 0.5, found.horizon)
        median = found.first.median_interval
        hits[0] += found.student is None or found.student[0] <= true <= found.student[1]
        hits[1] += median is None or median[0] <= np.exp(3.6) <= median[1]
    assert 0.92 <= hits[0] / studies <= 0.98
    assert n < 10 or 0.92 <= hits[1] / studies <= 0.99
