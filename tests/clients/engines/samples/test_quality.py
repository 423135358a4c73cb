"""Measures of samples have their closed forms, and order real digits, copies of one mode, and noise as they should."""

from __future__ import annotations

import numpy as np
import pytest

import fedscape as fs
from clients.core.arrays import F64, I64
from clients.engines.samples.quality import (
    NEIGHBOURS,
    FeatureSpace,
    Quality,
    frechet_distance,
    pairwise,
    quality_of,
    radii,
)

CLIENTS = 10


def expected_coverage(real: int, drawn: int) -> float:
    """Return the coverage of samples that are drawn as the real examples are, whatever that is (Naeem et al. 2020).

    It is the chance that the nearest of m samples is nearer to a real example than its k-th neighbour among n - 1:
    1 - prod_{i=1..k} (n - i) / (n + m - i).
    """
    places = np.arange(1, NEIGHBOURS + 1)
    return float(1 - np.prod((real - places) / (real + drawn - places)))


def test_frechet_distance_of_gaussians_on_a_line_is_that_of_means_and_deviations() -> None:
    """In one dimension it is (m - m')^2 + (s - s')^2 (Dowson and Landau 1982)."""
    x, y = np.random.default_rng(0).normal(size=(2, 400, 1)) * [[[1.0]], [[2.5]]] + [[[0.0]], [[3.0]]]
    wanted = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-10)


def test_frechet_distance_keeps_under_turns_and_needs_no_common_axes() -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(50, 4)), random.normal(size=(70, 4)) @ random.normal(size=(4, 4))
    turn = np.linalg.qr(random.normal(size=(4, 4)))[0]
    before = frechet_distance(x, y)
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(before, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(before, rel=1e-9)
    product = np.cov(x.T) @ np.cov(y.T)  # not symmetric: the trace of its root needs no C^(1/2)
    root = np.sqrt(np.linalg.eigvals(product).real.clip(0)).sum()
    apart = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T))
    assert before == pytest.approx(apart - 2 * root, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("law", ["normal", "cauchy", "uniform"])
@pytest.mark.parametrize(("real", "drawn"), [(100, 100), (60, 180)])
def test_coverage_of_the_same_law_is_known_whatever_the_law(law: str, real: int, drawn: int) -> None:
    random = np.random.default_rng(7)
    sample = {"normal": random.normal, "cauchy": random.standard_cauchy, "uniform": random.uniform}[law]
    found = []
    for _ in range(150):
        x, y = sample(size=(real, 3)), sample(size=(drawn, 3))
        found.append((pairwise(x, y) <= radii(x)[:, None]).any(1).mean())
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(expected_coverage(real, drawn), abs=4 * error)


def test_precision_counts_samples_and_coverage_counts_real_examples() -> None:
    real = np.array([[float(i), 0.0] for i in range(6)] + [[100.0 + i, 0.0] for i in range(6)])
    drawn = np.array([[2.0, 0.1]] * 9 + [[50.0, 0.0]] * 3)
    found = quality_of(real, drawn, np.repeat([4, 7], 6))
    assert found.precision == 9 / 12  # those at 50 lie between the two groups
    assert found.coverage == 6 / 12
    assert found.classes == 1


@pytest.fixture(scope="module")
def digits() -> dict[str, F64 | I64]:
    """Return features of validation digits and of other digits, and their labels."""
    sets = {"data.task": "generate", "data.validation_fraction": 0.2, "data.test_fraction": 0.2}
    sets |= {"partition.clients": CLIENTS, "model.kind": "gan"}
    population = fs.population(fs.load_scenario("digits-iid", sets=sets))
    validation, test = population.validation, population.test
    assert validation is not None
    assert test is not None
    return {
        "real": validation.features.double().numpy(),
        "labels": validation.targets.numpy(),
        "others": test.features.double().numpy(),
        "other_labels": test.targets.numpy(),
    }


def scored(digits: dict[str, F64 | I64], drawn: F64) -> Quality:
    real = np.asarray(digits["real"], np.float64)
    space = FeatureSpace.of(real)
    return quality_of(space.features(real), space.features(drawn), np.asarray(digits["labels"], np.int64))


def test_other_real_digits_score_near_the_best(digits: dict[str, F64 | I64]) -> None:
    real, others = (np.asarray(digits[key], np.float64) for key in ("real", "others"))
    found = scored(digits, others)
    assert found.frechet_distance < 0.2
    assert found.precision > 0.95
    assert found.coverage == pytest.approx(expected_coverage(len(real), len(others)), abs=0.03)
    assert found.classes == 10


def test_noise_scores_badly(digits: dict[str, F64 | I64]) -> None:
    found = scored(digits, np.random.default_rng(0).uniform(size=(359, 64)))
    assert found.frechet_distance > 3
    assert max(found.precision, found.coverage) < 0.05
    assert found.classes == 0


def test_one_mode_is_precise_and_covers_nothing(digits: dict[str, F64 | I64]) -> None:
    one = np.asarray(digits["others"], np.float64)[0]
    found = scored(digits, one + 0.02 * np.random.default_rng(0).normal(size=(359, 64)))
    assert found.precision == 1.0
    assert found.coverage < 0.05
    assert found.classes == 1
    assert found.frechet_distance > 5


def test_missing_classes_are_counted_and_uncovered(digits: dict[str, F64 | I64]) -> None:
    others, labels = np.asarray(digits["others"], np.float64), np.asarray(digits["other_labels"])
    few = scored(digits, np.resize(others[labels < 3], (359, 64)))
    assert few.classes == 3
    assert few.precision > 0.95
    assert few.coverage < 0.4


def test_frechet_distance_alone_would_take_a_gaussian_for_digits(digits: dict[str, F64 | I64]) -> None:
    """It sees means and covariances: what has those of the digits is near them, and looks like none."""
    others = np.asarray(digits["others"], np.float64)
    blurred = np.random.default_rng(3).multivariate_normal(others.mean(0), np.cov(others.T), 359)
    found = scored(digits, blurred)
    assert found.frechet_distance < 0.35
    assert found.precision < 0.65
    assert found.coverage < 0.4


def test_samples_that_are_not_finite_have_no_measure(digits: dict[str, F64 | I64]) -> None:
    drawn = np.asarray(digits["others"], np.float64).copy()
    drawn[3, 5] = np.nan
    found = scored(digits, drawn)
    assert np.isnan([found.frechet_distance, found.precision, found.coverage]).all()
    assert found.classes == 0


def test_space_has_the_leading_components(digits: dict[str, F64 | I64]) -> None:
    real = np.asarray(digits["real"], np.float64)
    space, whole = FeatureSpace.of(real), FeatureSpace.of(real, 64)
    variances = space.features(real).var(0)
    assert (np.diff(variances) <= 1e-12).all()
    np.testing.assert_allclose(space.axes.T @ space.axes, np.eye(32), atol=1e-12)
    np.testing.assert_allclose(whole.features(real) @ whole.axes.T + whole.mean, real, atol=1e-12)
    assert variances.sum() / real.var(0).sum() > 0.95
