"""Coefficients of aggregation agree with hand computations."""

import math

import numpy as np
import pytest
import torch

from clients.core.errors import StrategyError, UserError
from clients.core.streams import generator
from clients.training.optimizers import gradient_weights
from clients.training.options import LocalOptions
from clients.training.schedule_options import ScheduleOptions
from server.algorithms.aggregation import (
    SUMS_TO_ONE,
    Aggregation,
    ClientFacts,
    clipped,
    convex,
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


# Values on random facts, edges and refusals.


def facts_of(random, count, given):
    draws = random.integers(1, 4, count)
    sizes = random.integers(1, 50, count)
    weights = random.uniform(0.01, 0.3, count) if given else None
    return shares(num_examples=sizes, draws=draws, local_steps=random.integers(1, 9, count), cohort=int(draws.sum()),
                  total_examples=int(sizes.sum()) + 60, population=count + 5, shares=weights)  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("mu", [0.3, 15.0], ids=["prox", "prox beyond 1 / local_lr"])
@pytest.mark.parametrize("given", [False, True], ids=["p from examples", "p given"])
def test_weights_are_their_formulas(count, given, mu):
    """With mu x local_lr = 1.5 and no momentum |a| is 1, 0.5, 0.75, ... after 1, 2, 3, ... steps."""
    s = facts_of(generator(1, "facts", count, given), count, given)
    p = s.shares if given else s.num_examples / s.total_examples
    expected = {
        "examples": s.draws * p / sum(s.draws * p),
        "uniform": s.draws / sum(s.draws),
        "unbiased": s.draws * p * s.population / s.cohort,
    }
    local = LocalOptions(optimizer="sgd" if mu > 1 else "momentum", momentum=0.5)
    a = gradient_weights(local, 0.1, 8, mu)[s.local_steps]
    for weighting, raw in expected.items():
        made = weighted_mean(weighting)
        np.testing.assert_allclose(made.weights_of(s), raw, rtol=1e-13)
        assert (made.weighting, made.needs_steps, made.shares, made.reduce) == (weighting, False, None, None)
        nova = normalised_mean(weighting, local, mu)
        np.testing.assert_allclose(nova.weights_of(s), sum(raw * a) / sum(raw) * raw / a, rtol=1e-13)
        assert (nova.weighting, nova.needs_steps, nova.map_update) == (weighting, True, None)
        np.testing.assert_allclose(nova.buffer_weights_of(s, nova.weights_of(s)), raw / sum(raw), rtol=1e-13)
        np.testing.assert_allclose(made.buffer_weights_of(s, raw), raw / sum(raw), rtol=1e-13)


def test_cohort_of_nobody_has_no_weights():
    none = shares(**dict.fromkeys(("num_examples", "draws", "local_steps"), np.zeros(0, np.int64)), cohort=0)
    for weighting in ("uniform", "examples", "unbiased"):
        for made in (weighted_mean(weighting), normalised_mean(weighting, LocalOptions())):
            assert made.weights_of(none).shape == (0,)


def test_client_without_steps_gets_a_finite_weight():
    """Its update is 0, so its weight does not matter; the others' follow tau_eff = .1 x 0 + .2 x 2 + .7 x 7."""
    idle = shares(local_steps=np.array([0, 2, 7]))
    found = normalised_mean("examples", LocalOptions(optimizer="sgd")).weights_of(idle)
    np.testing.assert_allclose(found[1:], 5.3 * np.array([0.1, 0.1]), rtol=1e-13)
    assert np.isfinite(found).all()


def test_buffers_of_left_out_updates_do_not_count():
    made = normalised_mean("examples", LocalOptions(optimizer="sgd"))
    found = made.buffer_weights_of(shares(), np.array([5.4, 0.0, 5.4]))
    np.testing.assert_allclose(found, np.array([0.1, 0.0, 0.7]) / 0.8, rtol=1e-13)


def test_weights_that_sum_to_one_up_to_rounding_stay_as_they_are():
    for total in (1.0, 1.0 + 0.9 * SUMS_TO_ONE, 0.0):
        weights = np.array([0.25, 0.75]) * total
        assert convex(weights) is weights
    np.testing.assert_allclose(convex(np.array([1.0, 3.0])), [0.25, 0.75], rtol=1e-15)
    assert convex(np.array([0.25, 0.7501])).sum() == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ("found", "got"),
    [
        (np.ones(2), r"an array of shape \(2,\)"),
        (np.ones((3, 1)), r"an array of shape \(3, 1\)"),
        (np.array([1.0, np.nan, 1.0]), "nan"),
        (np.array([1.0, np.inf, 1.0]), "inf"),
        (np.array([1.0, -1e-9, 1.0]), "-1"),
        (["a", "b", "c"], r"an array of shape \(1,\)"),
        (None, r"an array of shape"),
    ],
)
def test_wrong_weights_are_refused(found, got):
    with pytest.raises(StrategyError, match=r"weights of 'mine' must be 3 finite numbers >= 0.*" + got):
        Aggregation("mine", lambda facts: found).weights_of(shares())


def test_names_say_how_updates_are_combined():
    local = LocalOptions()
    made = [weighted_mean(), weighted_mean("uniform"), normalised_mean("examples", local), coordinate_median()]
    made.append(clipped(made[-1], 0.25))
    assert [one.name for one in made] == ["mean by examples", "uniform mean", "normalised mean", "coordinate median",
                                          "coordinate median, updates clipped to 0.25"]  # fmt: skip


def test_wrong_weights_of_one_client_are_refused():
    one = dict.fromkeys(("num_examples", "draws", "local_steps"), np.ones(1, np.int64))
    for wrong in (["a"], None, [math.nan]):
        with pytest.raises(StrategyError, match="must be 1 finite numbers"):
            Aggregation("mine", lambda facts, wrong=wrong: wrong).weights_of(shares(**one))


def test_weights_become_float64():
    found = Aggregation("mine", lambda facts: [0, 1, 2]).weights_of(shares())
    assert found.dtype == np.float64
    assert found.tolist() == [0.0, 1.0, 2.0]
    assert Aggregation("mine", lambda facts: np.float32([0.0, 0.0, 0.0])).weights_of(shares()).dtype == np.float64


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_coordinate_median_is_numpys(count):
    rows = torch.from_numpy(generator(2, "median", count).standard_normal((count, 7)))
    made = coordinate_median()
    np.testing.assert_allclose(made.reduced(rows, torch.ones(count)), np.median(rows.numpy(), axis=0), rtol=1e-15)
    np.testing.assert_allclose(made.weights_of(shares()), [1 / 3] * 3)


def test_clipping_follows_the_map_that_is_there():
    """The rows are doubled first, then scaled down to norm 3 where they are longer."""
    rows = torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, 0.0], [0.0, -1.5]], dtype=torch.float64)
    made = clipped(Aggregation("twice", weighted_mean().weights, map_update=lambda rows: 2 * rows), 3.0)
    expected = torch.tensor([[1.8, 2.4], [1.2, 1.6], [0.0, 0.0], [0.0, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(made.mapped(rows), expected, rtol=1e-14, atol=0.0)
    assert weighted_mean().mapped(rows) is rows
    np.testing.assert_array_equal(made.weights_of(shares()), weighted_mean().weights_of(shares()))


@pytest.mark.parametrize("wrong", [lambda rows: rows[0], lambda rows: rows[:1], lambda rows: None])
def test_map_or_reduction_of_another_shape_is_refused(wrong):
    rows = torch.ones(2, 3)
    with pytest.raises(StrategyError, match="map_update of 'mine'"):
        Aggregation("mine", weighted_mean().weights, map_update=wrong).mapped(rows)
    with pytest.raises(StrategyError, match="reduce of 'mine'"):
        Aggregation("mine", weighted_mean().weights, reduce=lambda rows, weights: wrong(rows[:, :1])).reduced(
            rows, torch.ones(2)
        )


def test_weighted_sum_leaves_out_rows_of_weight_zero():
    nan = float("nan")
    rows = torch.tensor([[1.0, 2.0], [nan, nan], [4.0, -8.0]], dtype=torch.float64)
    assert weighted_sum(np.array([0.5, 0.0, 0.25]), rows).tolist() == [1.5, -1.0]
    assert weighted_sum(np.array([0.5, 1.0, 0.25]), rows).isnan().all()
    assert rows.isnan().sum() == 2, "the rows stay as they are"


def test_sum_of_rows_without_numbers_has_none():
    found = weighted_sum(np.array([0.25, 0.75]), torch.zeros(2, 0, dtype=torch.float64))
    assert found.shape == (0,)
    assert found.dtype == torch.float64
