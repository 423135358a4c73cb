"""Error rates of comparisons: arms without a difference, planted differences, and families of comparisons.

A rate of R studies is compared with the quantiles of its binomial law that one right program in a thousand exceeds.
"""

from typing import Any

import numpy as np
import pytest
from scipy import stats

import fedscape as fs
from dashboards.report.compared_measures import MEASURES, Measure
from dashboards.statistics.comparing import Comparison, compare_arms, corrected
from dashboards.statistics.paired import t_test
from dashboards.statistics.planning import holm, pairs_for, seeds_needed

LOSS, ACCURACY, ROUNDS, GAP = (
    next(m for m in MEASURES if m.key == key)
    for key in ("validation_loss", "test_accuracy", "rounds_to_target", "optimality_gap")
)
STUDIES = 1_500


def limits(rate: float, studies: int = STUDIES) -> tuple[float, float]:
    law = stats.binom(studies, rate)
    return law.ppf(0.0005) / studies, law.ppf(0.9995) / studies


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_arms_without_a_difference_are_told_apart_at_the_nominal_rate(n: int) -> None:
    rng = np.random.default_rng(n)
    low, high = limits(0.05)
    assert low <= np.mean([t_test(rng.normal(size=n)) <= 0.05 for _ in range(STUDIES)]) <= high


@pytest.mark.parametrize(("effect", "power"), [(1.0, 0.8), (0.5, 0.9), (2.0, 0.8)])
def test_planted_difference_is_found_with_the_promised_power(effect: float, power: float) -> None:
    n = pairs_for(1.0, effect, power)
    assert n is not None
    rng = np.random.default_rng(0)
    found = np.mean([t_test(effect + rng.normal(size=n)) <= 0.05 for _ in range(STUDIES)])
    low, _ = limits(power)
    assert low <= found
    fewer = np.mean([t_test(effect + rng.normal(size=n - 1)) <= 0.05 for _ in range(STUDIES)])
    _, high = limits(power)
    assert fewer <= high


def test_pilot_of_many_pairs_gives_the_true_number() -> None:
    pilot = np.random.default_rng(0).normal(3.0, 2.0, 5_000)
    right = pairs_for(2.0, 1.0)
    found = seeds_needed(pilot, 1.0)
    assert right is not None
    assert found is not None
    assert abs(found - right) <= 2


@pytest.mark.slow
def test_holm_keeps_the_rate_of_families() -> None:
    """Seven arms against one, which they share: at least one false difference in at most 5% of studies."""
    rng, arms, n, studies = np.random.default_rng(0), 7, 10, 400
    wrong = plain = 0
    for _ in range(studies):
        first = rng.normal(size=n)
        p = [t_test(rng.normal(size=n) - first) for _ in range(arms)]
        plain += min(p) <= 0.05
        wrong += min(holm(p)) <= 0.05
    _, high = limits(0.05, studies)
    assert wrong / studies <= high
    assert plain / studies > 0.1


def arm(name: str, key: str, values: Any, hit: Any = None) -> list[dict[str, Any]]:
    hits = np.ones(len(values), bool) if hit is None else hit
    return [
        {"arm": name, "seed": seed, key: value if seen else None, f"{key}_at_least": None if seen else value}
        for seed, (value, seen) in enumerate(zip(values, hits, strict=True))
    ]


def study(rng: np.random.Generator, kind: str, n: int, effect: float = 0.0) -> Comparison:
    """Return the comparison of two arms: losses that share an effect of the seed, scores, or censored rounds."""
    seeds = rng.normal(scale=0.4, size=n)
    noise = [0.2 * rng.normal(size=n), effect + 0.2 * rng.normal(size=n)]
    if kind == "scores":
        parts = [arm(name, ACCURACY.key, 0.8 + 0.1 * (seeds + e)) for name, e in zip("ab", noise, strict=True)]
        return compare_arms(*parts, ACCURACY)
    numbers = [np.exp(3.6 + seeds + e) for e in noise]
    if kind == "losses":
        return compare_arms(*(arm(name, LOSS.key, v) for name, v in zip("ab", numbers, strict=True)), LOSS)
    rounds = [(np.minimum(np.ceil(v), 60), np.ceil(v) <= 60) for v in numbers]
    return compare_arms(*(arm(name, ROUNDS.key, *v) for name, v in zip("ab", rounds, strict=True)), ROUNDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["losses", "scores", "censored"])
def test_verdicts_of_equal_arms_are_wrong_at_most_at_the_nominal_rate(kind: str) -> None:
    rng, studies = np.random.default_rng(5), 400
    wrong = np.mean([study(rng, kind, 10).distinguishable for _ in range(studies)])
    low, high = limits(0.05, studies)
    assert wrong <= high
    assert kind == "censored" or wrong >= low


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["losses", "scores"])
def test_verdicts_find_a_planted_difference_with_the_promised_power(kind: str) -> None:
    """The seeds that a comparison names for a stated difference find it in 80% of studies."""
    rng, studies, effect = np.random.default_rng(6), 400, 0.25
    std = 0.2 * np.sqrt(2)
    n = pairs_for(std, effect)
    assert n is not None
    found = [study(rng, kind, n, effect) for _ in range(studies)]
    low, high = limits(0.8, studies)
    assert low <= np.mean([one.distinguishable for one in found]) <= high + 0.03  # n is rounded up
    assert {one.better for one in found} == {"a" if kind == "losses" else "b", None}


@pytest.mark.slow
def test_corrected_verdicts_of_a_family_keep_its_rate() -> None:
    """Five equal arms against a sixth: a wrong verdict among the five in at most 5% of studies."""
    rng, studies, n, wrong = np.random.default_rng(7), 200, 8, 0
    for _ in range(studies):
        seeds = rng.normal(scale=0.4, size=n)
        arms = [arm(str(i), LOSS.key, np.exp(seeds + 0.2 * rng.normal(size=n))) for i in range(6)]
        wrong += any(one.distinguishable for one in corrected(compare_arms(arms[0], other, LOSS) for other in arms[1:]))
    _, high = limits(0.05, studies)
    assert wrong / studies <= high


NOISY = (
    "data.weights=[8,8]", "data.noise=1", "local.optimizer=sgd", "local.batch_size=1", "local.local_steps=4",
    "convergence.stop=never", "run.rounds=4", "engine.kind=plain", "engine.workers=1",
)  # fmt: skip
"""Two quadratic clients whose gradients are noisy, so that seeds differ."""


SHORT = (
    "partition.clients=4", "algorithm.cohort=", "run.rounds=2", "local.local_epochs=1", "evaluation.baselines=false",
    "evaluation.federated_every=0", "convergence.target=", "convergence.stop=never", "engine.kind=stacked",
    "engine.workers=1", "engine.tile=4", "engine.threads=1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "sets", "measure"), [("quadratic-two-clients", NOISY, GAP), ("digits-label-skew", SHORT, LOSS)]
)
def test_studies_of_real_runs_without_a_difference_reject_at_the_nominal_rate(
    scenario: str, sets: tuple[str, ...], measure: Measure
) -> None:
    """200 studies of three pairs: both arms are the same scenario, with seeds of their own."""
    loaded = fs.load_scenario(scenario, sets=list(sets))
    studies, pairs = 200, 3
    values = np.array(
        [
            fs.simulate(loaded, seed=seed, record=False).rounds.lines[-1][measure.key]
            for seed in range(studies * 2 * pairs)
        ]
    ).reshape(studies, 2, pairs)
    assert len(np.unique(values)) == values.size
    assert (values > 0).all()
    found = [compare_arms(arm("a", measure.key, one), arm("b", measure.key, two), measure) for one, two in values]
    low, high = limits(0.05, studies)
    assert low <= np.mean([one.distinguishable for one in found]) <= high
    covers = np.mean([one.interval is not None and one.interval[0] <= 1 <= one.interval[1] for one in found])
    assert 1 - high <= covers <= 1 - low
