"""The size of faults on data without channels: one outlier does not set it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from clients.core.arrays import F64
from clients.core.population import Population
from clients.faults.sensor_options import SpikesOptions
from clients.federation.faulty_examples import readings_of, with_faults
from clients.federation.scaling import inliers
from clients.sources.custom import custom_population

CLEAN = np.random.default_rng(5).normal(size=(4, 100, 3))
"""Features of four clients, of deviation 1."""


def people(features: F64) -> Population:
    def client(k: int) -> tuple[Any, Any]:
        return features[k], np.zeros(len(features[k]), np.int64)

    return custom_population(client, [len(f) for f in features], outputs=2, dtype=torch.float64)


def with_outlier(value: float) -> F64:
    changed = CLEAN.copy()
    changed[2, 7, 1] = value
    return changed


def jumps(features: F64) -> F64:
    """Return the sizes of the spikes on a population's readings, outliers apart."""
    population, clients = people(features), np.arange(4)
    faulty = with_faults(population, {"spikes": SpikesOptions(severity=1.0, share=0.3, deviations=4.0)}, seed=1)
    before, after = (p.cohort(clients).features.double().numpy() for p in (population, faulty))
    moved = np.abs(after - before)[np.abs(before) < 100]
    return moved[moved > 0]


@pytest.mark.parametrize("value", [1e3, -1e6, 1e30])
def test_one_outlier_does_not_set_the_size_of_spikes(value: float) -> None:
    """A spike is 2 to 4 deviations, with one wrong reading in 1,200 as without."""
    clean, dirty = jumps(CLEAN), jumps(with_outlier(value))
    assert np.median(clean) == pytest.approx(3.0, rel=0.15)
    assert np.median(dirty) == pytest.approx(np.median(clean), rel=0.1)
    assert dirty.max() < 4.5


@pytest.mark.parametrize("value", [1e3, -1e6])
def test_deviation_and_mean_are_those_of_the_other_readings(value: float) -> None:
    clean, dirty = (readings_of(people(f), 0).channels for f in (CLEAN, with_outlier(value)))
    assert dirty[0].deviation == pytest.approx(clean[0].deviation, rel=0.05)
    assert dirty[1].mean == pytest.approx(clean[1].mean, abs=0.05)
    assert dirty[1].low <= value <= dirty[1].high  # a range still holds every reading


@pytest.mark.parametrize("features", [
    CLEAN.reshape(-1, 3),
    np.random.default_rng(1).uniform(size=(500, 8)),
    (np.random.default_rng(2).random((500, 40)) < 0.004) * 1.0,  # one-hot
    np.where(np.random.default_rng(3).random((500, 8)) < 0.7, 0.0, 1.0),  # mostly zero
    np.ones((50, 2)),
])  # fmt: skip
def test_readings_without_outliers_stay_to_the_bit(features: F64) -> None:
    assert inliers(features) is features


def test_outliers_of_features_that_are_mostly_zero_are_bounded() -> None:
    """Their median absolute deviation is 0; the median of the deviations that are not 0 takes its place."""
    features = np.where(np.random.default_rng(3).random((500, 8)) < 0.7, 0.0, 1.0)
    features[3, 3] = 1e9
    found = inliers(features)
    assert found.max() < 20
    assert (found == features).sum() == features.size - 1


@pytest.mark.parametrize("block", [1, 1000, 1 << 20])
def test_features_are_bounded_in_blocks_as_at_once(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features mostly zero and normal ones; the definition, over all of them at once."""
    random = np.random.default_rng(6)
    features = np.c_[
        np.where(random.random((300, 5)) < 0.8, 0.0, random.normal(size=(300, 5))), CLEAN[:3].reshape(-1, 3)
    ]
    features[4, [1, 6]] = 1e7
    monkeypatch.setattr("clients.federation.scaling._BLOCK", block)
    middle = np.median(features, axis=0)
    away = np.abs(features - middle)
    scale = 1.4826 * np.median(away, axis=0)
    scale[:5] = np.median(away[:, :5][away[:, :5] > 0])
    bound = 10 * np.maximum(scale, np.sqrt((scale**2).mean()))
    np.testing.assert_array_equal(inliers(features), np.clip(features, middle - bound, middle + bound))


def test_many_sentinels_do_not_set_the_size() -> None:
    """A third of a feature's readings may be a mark for missing ones."""
    features = np.random.default_rng(4).normal(size=(900, 3))
    features[::3, 1] = -9999.0
    assert np.sqrt(inliers(features).var(axis=0).mean()) < 8
