"""Sums of updates are the same kept or streamed, in any order, and merged or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.training.work import CohortUpdate
from server.algorithms.aggregation import clipped, coordinate_median, weighted_mean
from server.rounds.cohort_sum import CohortSum, SumPlan, sum_of

K, P, Q = 7, 12, 3
LAYERS = [("first", 0, 5), ("second", 5, P)]
TILES = ([0, 3], [1], [2, 4, 6], [5])


@pytest.fixture
def update():
    noise = torch.Generator().manual_seed(1)

    def rows(width):
        return torch.randn(K, width, generator=noise, dtype=torch.float64)

    zeros = np.zeros(K)
    return CohortUpdate(
        clients=np.array([2, 3, 5, 8, 13, 21, 34]),
        params=rows(P),
        buffers=rows(Q),
        num_examples=np.array([4, 1, 9, 2, 7, 3, 5]),
        local_steps=np.full(K, 3),
        train_loss=np.arange(7.0),
        train_errors=np.full(K, -1),
        client_drift=zeros,
        gradient_norm=zeros,
        extras={"extra": rows(P)},
    )


def plan_of(update, aggregation=None, weights=None):
    weights = update.num_examples / update.num_examples.sum() if weights is None else weights
    return SumPlan(update.clients, weights, update.num_examples, torch.ones(P, dtype=torch.float64), LAYERS, 40,
                   aggregation or weighted_mean())  # fmt: skip


def tile(update, index):
    i = torch.tensor(index)
    names = ("clients", "num_examples", "local_steps", "train_loss", "train_errors", "client_drift", "gradient_norm")
    columns = {name: getattr(update, name)[index] for name in names}
    return replace(update, params=update.params[i], buffers=update.buffers[i],
                   extras={n: v[i] for n, v in update.extras.items()}, **columns)  # fmt: skip


def filled(plan, update, tiles, keep_rows):
    total = CohortSum(plan, keep_rows=keep_rows)
    for index in tiles:
        total.add(tile(update, index))
    return total


def agree(one, other, rtol=1e-12):
    torch.testing.assert_close(one.aggregate.pseudo_gradient, other.aggregate.pseudo_gradient, rtol=rtol, atol=1e-14)
    torch.testing.assert_close(one.aggregate.extras["extra"], other.aggregate.extras["extra"], rtol=rtol, atol=1e-14)
    torch.testing.assert_close(one.buffers, other.buffers, rtol=rtol, atol=1e-14)
    assert one.aggregate.share == other.aggregate.share
    np.testing.assert_array_equal(one.update.train_loss, other.update.train_loss)
    np.testing.assert_allclose(one.dispersion.update_norm, other.dispersion.update_norm, rtol=1e-12)
    assert one.dispersion.update_dispersion == pytest.approx(other.dispersion.update_dispersion, rel=1e-12)
    assert one.dispersion.gradient_diversity == pytest.approx(other.dispersion.gradient_diversity, rel=1e-12)
    for layer, pair in one.dispersion.by_layer.items():
        assert pair == pytest.approx(other.dispersion.by_layer[layer], rel=1e-12)


def test_sum_is_the_weighted_mean_by_hand(update):
    found = sum_of([update], plan_of(update))
    shares = torch.from_numpy(update.num_examples / 31)
    torch.testing.assert_close(found.aggregate.pseudo_gradient, shares @ (1 - update.params))
    torch.testing.assert_close(found.buffers, shares @ update.buffers)
    torch.testing.assert_close(found.aggregate.extras["extra"], update.extras["extra"].mean(0))
    assert found.aggregate.share == 7 / 40


@pytest.mark.parametrize("weights", [None, np.array([0.0, 0.3, 0.0, 0.2, 0.5, 0.0, 0.4])])
def test_streamed_sum_equals_the_kept_sum(update, weights):
    plan = plan_of(update, weights=weights)
    kept, streamed = (filled(plan, update, TILES, keep).result() for keep in (True, False))
    agree(kept, streamed)
    assert streamed.update.params.shape == (K, 0)
    assert streamed.dispersion.cosine is None


def test_kept_sum_has_the_same_bits_in_any_order(update):
    plan = plan_of(update)
    base = filled(plan, update, TILES, True).result()
    for tiles in (TILES[::-1], [[k] for k in range(K)], [list(range(K))]):
        other = filled(plan, update, tiles, True).result()
        assert torch.equal(base.aggregate.pseudo_gradient, other.aggregate.pseudo_gradient)
        assert torch.equal(base.buffers, other.buffers)
        assert base.dispersion.update_dispersion == other.dispersion.update_dispersion


@pytest.mark.parametrize("keep_rows", [True, False])
@pytest.mark.parametrize("cut", range(len(TILES) + 1))
def test_merged_sums_equal_one_sum(update, keep_rows, cut):
    """One of the two may be empty, and the clients of the second may precede those of the first."""
    plan = plan_of(update)
    whole = filled(plan, update, TILES, keep_rows).result()
    for first, second in ((TILES[:cut], TILES[cut:]), (TILES[cut:], TILES[:cut])):
        total = filled(plan, update, first, keep_rows)
        total.merge(filled(plan, update, second, keep_rows))
        agree(whole, total.result())


def test_zero_weights_give_no_aggregate(update):
    for keep_rows in (True, False):
        found = filled(plan_of(update, weights=np.zeros(K)), update, TILES, keep_rows).result()
        assert found.aggregate is None
        assert found.dispersion is None
        assert len(found.update.clients) == K


def test_map_changes_the_sum_and_not_the_dispersion(update):
    how = clipped(weighted_mean("uniform"), 0.5)
    weights = np.full(K, 1 / K)
    rows = 1 - update.params
    expected = (rows * (0.5 / rows.norm(dim=1, keepdim=True)).clamp_max(1)).mean(0)
    for keep_rows in (True, False):
        found = filled(plan_of(update, how, weights), update, TILES, keep_rows).result()
        torch.testing.assert_close(found.aggregate.pseudo_gradient, expected)
        np.testing.assert_allclose(found.dispersion.update_norm, rows.norm(dim=1).numpy())


def test_reduction_receives_only_updates_with_a_weight(update):
    weights = np.array([1.0, 0, 1, 1, 0, 0, 0])
    found = filled(plan_of(update, coordinate_median(), weights), update, TILES, True).result()
    torch.testing.assert_close(found.aggregate.pseudo_gradient, (1 - update.params)[[0, 2, 3]].median(0).values)


def test_reduction_of_rows_cannot_be_streamed(update):
    with pytest.raises(AssertionError, match="needs every update"):
        CohortSum(plan_of(update, coordinate_median()), keep_rows=False)


@pytest.mark.parametrize("keep_rows", [True, False])
def test_update_of_weight_zero_is_left_out_also_when_it_diverged(update, keep_rows):
    weights = np.array([0.2, 0.0, 0.3, 0.1, 0.0, 0.2, 0.2])
    params, extra = update.params.clone(), update.extras["extra"].clone()
    params[1], extra[4] = torch.nan, torch.inf
    diverged = replace(update, params=params, extras={"extra": extra})
    clean = filled(plan_of(update, weights=weights), update, TILES, keep_rows).result()
    found = filled(plan_of(update, weights=weights), diverged, TILES, keep_rows).result()
    assert torch.equal(found.aggregate.pseudo_gradient, clean.aggregate.pseudo_gradient)
    assert torch.equal(found.aggregate.extras["extra"], clean.aggregate.extras["extra"])


@pytest.mark.parametrize("keep_rows", [True, False])
def test_norm_of_the_aggregate_is_that_of_the_clipped_updates(update, keep_rows):
    found = filled(plan_of(update, clipped(weighted_mean(), 0.5)), update, TILES, keep_rows).result()
    assert found.dispersion.aggregate_norm == pytest.approx(float(found.aggregate.pseudo_gradient.norm()))
    parts = [float(found.aggregate.pseudo_gradient[start:end].norm()) for _, start, end in LAYERS]
    assert [norm for _, norm in found.dispersion.by_layer.values()] == pytest.approx(parts)


@pytest.mark.parametrize("keep_rows", [True, False])
def test_norm_of_the_aggregate_is_that_of_the_sum_where_weights_do_not_sum_to_one(update, keep_rows):
    weights = np.array([0.0, 2.0, 0.5, 1.0, 0.0, 3.0, 0.25])
    found = filled(plan_of(update, weights=weights), update, TILES, keep_rows).result()
    assert found.dispersion.aggregate_norm == pytest.approx(float(found.aggregate.pseudo_gradient.norm()))
    parts = [float(found.aggregate.pseudo_gradient[start:end].norm()) for _, start, end in LAYERS]
    assert [norm for _, norm in found.dispersion.by_layer.values()] == pytest.approx(parts)


def test_norms_of_a_median_are_those_of_the_median(update):
    found = sum_of([update], plan_of(update, coordinate_median()))
    parts = [float(found.aggregate.pseudo_gradient[start:end].norm()) for _, start, end in LAYERS]
    assert [norm for _, norm in found.dispersion.by_layer.values()] == pytest.approx(parts)
    assert found.dispersion.aggregate_norm == pytest.approx(float(np.hypot(*parts)))
