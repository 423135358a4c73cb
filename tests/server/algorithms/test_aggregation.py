"""Coefficients of aggregation agree with hand computations."""

import numpy as np
import pytest
import torch

from clients.core.errors import UserError
from clients.training.optimizers import gradient_weights
from clients.training.options import LocalOptions
from clients.training.schedule_options import ScheduleOptions
from server.algorithms.aggregation import (
    ClientFacts,
    clipped,
    coordinate_median,
    normalised_mean,
    weighted_mean,
    weighted_sum,
)


def shares(**changes):
    base = {
        "num_examples": np.array([10, 20, 70]),
        "draws": np.ones(3, np.int64),
        "local_steps": np.array([1, 2, 7]),
        "total_examples": 400,
        "population": 12,
        "cohort": 3,
        "local_lr": 0.1,
    }
    return ClientFacts(**base | changes)


def test_weighted_means_sum_to_one_and_unbiased_weights_need_not():
    np.testing.assert_allclose(weighted_mean("examples").weights(shares()), [0.1, 0.2, 0.7])
    np.testing.assert_allclose(weighted_mean("uniform").weights(shares()), [1 / 3] * 3)
    unbiased = weighted_mean("unbiased").weights(shares())
    np.testing.assert_allclose(unbiased, np.array([10, 20, 70]) / 400 * 12 / 3)
    # Their expectation over cohorts: each client is in one of 12 / 3 of them, so n_k / n is left.
    np.testing.assert_allclose(unbiased * 3 / 12, np.array([10, 20, 70]) / 400)


def test_draws_multiply_weights():
    drawn = shares(draws=np.array([3, 0, 1]), cohort=4)
    np.testing.assert_allclose(weighted_mean("uniform").weights(drawn), [0.75, 0, 0.25])
    np.testing.assert_allclose(weighted_mean("examples").weights(drawn), [0.3, 0, 0.7])
    np.testing.assert_allclose(weighted_mean("unbiased").weights(drawn), np.array([30, 0, 70]) / 400 * 12 / 4)


def test_cohort_without_draws_has_zero_weights():
    for weighting in ("uniform", "examples", "unbiased"):
        np.testing.assert_array_equal(
            weighted_mean(weighting).weights(shares(draws=np.zeros(3, np.int64))), np.zeros(3)
        )


def test_fednova_matches_hand_computation():
    """p = (.1, .2, .7), |a| = (1, 2, 7): tau_eff = .1 + .4 + 4.9 = 5.4, and each pseudo-gradient gets 5.4 p / |a|."""
    found = normalised_mean("examples", LocalOptions(optimizer="sgd")).weights(shares())
    np.testing.assert_allclose(found, 5.4 * np.array([0.1, 0.1, 0.1]))
    assert (found * [1, 2, 7]).sum() == pytest.approx(5.4)  # unit gradients everywhere: a step of tau_eff


def test_fednova_takes_the_rounds_learning_rate():
    """With a proximal term |a| depends on local_lr, which a schedule changes."""
    local = LocalOptions(optimizer="sgd", local_lr=0.1, schedule=ScheduleOptions(kind="inverse_time", decay=1.0))
    weights = normalised_mean("uniform", local, mu=2.0).weights
    first, later = weights(shares(local_lr=local.lr(1))), weights(shares(local_lr=local.lr(5)))
    a = [(1 - 0.8**t) / 0.2 for t in (1, 2, 7)]
    np.testing.assert_allclose(first, np.mean(a) / 3 / np.array(a))
    assert not np.allclose(first, later)


def test_fednova_of_equal_steps_is_the_weighted_mean():
    for optimizer in ("sgd", "momentum", "nesterov", "adam"):
        local = LocalOptions(optimizer=optimizer)
        found = normalised_mean("examples", local).weights(shares(local_steps=np.array([4, 4, 4])))
        np.testing.assert_allclose(found, [0.1, 0.2, 0.7], rtol=1e-13)


def test_gradient_weights_match_hand_computation():
    """Heavy ball 0.5: velocities 1, 1.5, 1.75. Nesterov 0.5: steps 1.5, 1.75, 1.875. Prox eta mu = 0.1: 1, .9, .81."""
    for optimizer, steps in (("momentum", (1, 1.5, 1.75)), ("nesterov", (1.5, 1.75, 1.875)), ("adam", (1, 1, 1))):
        found = gradient_weights(LocalOptions(optimizer=optimizer, momentum=0.5), 0.1, 3)
        np.testing.assert_allclose(found, np.concatenate(([0], np.cumsum(steps))))
    found = gradient_weights(LocalOptions(optimizer="sgd"), 0.2, 3, mu=0.5)
    np.testing.assert_allclose(found, [0, 1, 1.9, 2.71])
    assert gradient_weights(LocalOptions(), 0.1, 0).tolist() == [0]


def test_weighted_sum_keeps_the_type_of_the_rows():
    rows = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    found = weighted_sum(np.array([0.25, 0.5]), rows)
    assert found.dtype == torch.float32
    assert found.tolist() == [1.75, -1.5]
    assert weighted_sum(np.array([1.0, 1.0]), torch.zeros(2, 0)).shape == (0,)


def test_coordinate_median_ignores_an_outlier():
    rows = torch.tensor([[1.0, 5.0], [2.0, -4.0], [1e9, 6.0]])
    assert coordinate_median().reduce(rows, torch.ones(3)).tolist() == [2.0, 5.0]
    assert coordinate_median().reduce(rows[:2], torch.ones(2)).tolist() == [1.5, 0.5]
    assert coordinate_median().needs_rows
    assert not weighted_mean().needs_rows


def test_clipped_scales_each_update_by_itself():
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64)
    once = clipped(weighted_mean("uniform"), 1.0)
    torch.testing.assert_close(once.map_update(rows), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0, 0]]).double())
    twice = clipped(once, 0.5)
    torch.testing.assert_close(twice.map_update(rows)[1], rows[1])
    assert twice.map_update(rows).norm(dim=1).max() == pytest.approx(0.5)
    with pytest.raises(UserError, match=r"norm: must be > 0, got 0"):
        clipped(once, 0)
