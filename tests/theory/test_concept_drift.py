"""Concept drift changes its own law by the amount of its formula, and leaves the other law unchanged.

Inputs are standard normal and p(y = 1 | x) is a logistic function, so every law is known. Resampling repeats
examples. The choice depends only on x (or only on y), so distinct examples still follow p(y | x) (or p(x | y)).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

from clients.concept_drift.application import with_drifts
from clients.concept_drift.drift_rule import TILT, DriftRule
from clients.concept_drift.options import DriftOptions
from clients.core.arrays import F64, I64
from clients.core.population import Population
from clients.sources.custom import custom_population

CLIENTS, SIZE = 40, 1500
ALARM = 1e-5  # chance of a false alarm of each test


def chance(x: F64) -> F64:
    odds: F64 = 1.0 / (1.0 + np.exp(-1.5 * x[:, 0] + x[:, 1]))
    return odds


def population(first: int = 0) -> Population:
    def client(k: int) -> tuple[F64, I64]:
        draw = np.random.default_rng(first + k)
        x = draw.normal(size=(SIZE, 2))
        return x, (draw.random(SIZE) < chance(x)).astype(np.int64)

    return custom_population(client, [SIZE] * CLIENTS, outputs=2, feature_shape=(2,), dtype=torch.float64)


def examples(p: Population) -> tuple[F64, I64, I64]:
    data = p.cohort(np.arange(CLIENTS))
    rows = torch.from_numpy(data.rows)
    return data.features[rows].numpy(), data.targets[rows].numpy(), data.rows


@cache
def drifted(changes: str, strength: float, kind: str = "abrupt") -> tuple[F64, I64, I64]:
    options = DriftOptions(kind=kind, changes=changes, strength=strength, duration=10)  # type: ignore[arg-type]
    return examples(with_drifts(population(), {"turn": options}, seed=1).during(5))


def distinct(found: tuple[F64, I64, I64]) -> tuple[F64, I64]:
    first = np.unique(found[2], return_index=True)[1]
    return found[0][first], found[1][first]


def misfit(x: F64, y: I64) -> float:
    """Return the chi-square of labels within ten strata of p(y | x), with ten degrees of freedom."""
    p = chance(x)
    stratum = np.floor(10 * p).astype(np.int64)
    off = np.bincount(stratum, weights=y - p, minlength=10)
    return float((off**2 / np.bincount(stratum, weights=p * (1 - p), minlength=10)).sum())


@pytest.mark.parametrize("kind", ["abrupt", "gradual", "incremental"])
def test_input_shift_keeps_the_label_given_the_input(kind: str) -> None:
    limit = stats.chi2.ppf(1 - ALARM, 10)
    assert misfit(*distinct(drifted("p(x)", 0.6, kind))) < limit
    assert misfit(*distinct(drifted("p(y)", 0.6, kind))) > 3 * limit, "moving labels does change it"
    assert misfit(*distinct(drifted("p(y|x)", 0.6, kind))) > 3 * limit


@pytest.mark.parametrize("kind", ["abrupt", "gradual", "incremental"])
def test_label_shift_keeps_the_input_given_the_label(kind: str) -> None:
    x, y = distinct(drifted("p(y)", 0.6, kind))
    moved_x, moved_y = distinct(drifted("p(x)", 0.6, kind))
    fresh_x, fresh_y, _ = examples(population(first=1000))
    assert abs(y.mean() - fresh_y.mean()) > 0.05
    for label in (0, 1):
        for j in (0, 1):
            assert stats.ks_2samp(x[y == label, j], fresh_x[fresh_y == label, j]).pvalue > ALARM
    moved = [stats.ks_2samp(moved_x[moved_y == 0, j], fresh_x[fresh_y == 0, j]).pvalue for j in (0, 1)]
    assert min(moved) < ALARM, "moving inputs does change it"


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.6])
def test_inputs_move_by_the_weight_of_the_formula(strength: float) -> None:
    """Weights exp(b z) move a standard normal projection z by b and keep its variance."""
    before, after = examples(population())[0], drifted("p(x)", strength)[0]
    shift = after.mean(axis=0) - before.mean(axis=0)
    b = TILT * strength
    assert np.linalg.norm(shift) == pytest.approx(b, rel=0.04)
    along = after @ (shift / np.linalg.norm(shift))
    assert along.std() == pytest.approx(1.0, abs=0.06)


def test_log_odds_of_a_label_move_in_proportion_to_the_strength() -> None:
    def log_odds(y: I64) -> float:
        return float(np.log(y.mean() / (1 - y.mean())))

    start = log_odds(examples(population())[1])
    moved = np.array([log_odds(drifted("p(y)", a)[1]) - start for a in (0.2, 0.4, 0.8)])
    assert abs(moved[0]) > 0.1
    np.testing.assert_allclose(moved[1:] / moved[0], [2.0, 4.0], rtol=0.1)


@pytest.mark.parametrize("strength", [0.2, 0.7])
def test_changed_relation_covers_its_share_of_the_inputs(strength: float) -> None:
    x, y, _ = examples(population())
    new_x, new_y, _ = drifted("p(y|x)", strength)
    assert np.array_equal(x, new_x)
    changed = new_y != y
    assert changed.mean() == pytest.approx(strength, abs=5 * np.sqrt(strength * (1 - strength) / len(y)) + 0.005)
    direction = x[changed].mean(axis=0) - x[~changed].mean(axis=0)
    z = x @ (direction / np.linalg.norm(direction))
    assert z[changed].min() > z[~changed].max() - 0.15, "a half-space of the inputs"


# Which way a drift goes. The projection z(x) and the scores z(y) have random signs, fixed by seed and name.


def rule(changes: str, strength: float) -> DriftRule:
    options = DriftOptions(kind="abrupt", changes=changes, strength=strength, duration=10)  # type: ignore[arg-type]
    return DriftRule("turn", options, population(), seed=1)


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.6])
def test_inputs_move_towards_larger_projections(strength: float) -> None:
    """Weights exp(b z) move the mean of a standard normal z from 0 to b = 3 a, and not to -b."""
    z = rule("p(x)", strength).projection(torch.from_numpy(drifted("p(x)", strength)[0]))
    assert z.mean() == pytest.approx(TILT * strength, rel=0.05)


@pytest.mark.parametrize("strength", [0.2, 0.4, 0.8])
def test_labels_move_towards_larger_scores(strength: float) -> None:
    """Weights exp(b z(y)) multiply the odds of label 1 by exp(b (z(1) - z(0)))."""
    scores = rule("p(y)", strength).scores
    before, after = (float(y.mean()) for y in (examples(population())[1], drifted("p(y)", strength)[1]))
    moved = np.log(after / (1 - after)) - np.log(before / (1 - before))
    assert moved == pytest.approx(TILT * strength * (scores[1] - scores[0]), rel=0.08)
    assert abs(scores[1] - scores[0]) > 0.1


@pytest.mark.parametrize("strength", [0.2, 0.7])
def test_relation_changes_where_the_projection_is_largest(strength: float) -> None:
    """The share a of the inputs with the largest z: above the quantile 1 - a of a standard normal number."""
    x, y, _ = examples(population())
    changed = drifted("p(y|x)", strength)[1] != y
    z = rule("p(y|x)", strength).projection(torch.from_numpy(x))
    assert z[changed].min() > z[~changed].max()
    assert z[changed].min() == pytest.approx(stats.norm.ppf(1 - strength), abs=0.05)
