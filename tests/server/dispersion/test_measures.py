"""Dispersion agrees with naive formulas, streamed or whole, and in any order of clients."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core.streams import generator
from server.dispersion import differences
from server.dispersion.differences import Differences
from server.dispersion.measures import (
    NOT_KEPT,
    DispersionStream,
    gradient_dissimilarity,
    measure_dispersion,
    of_aggregate,
)
from server.dispersion.summary import LEVELS, quantiles, spreads, summary, worst

LAYERS = (("first.weight", 0, 5), ("first.bias", 5, 6), ("second", 6, 11))


def cohort(clients=7, size=11, offset=0.0, seed=0):
    random = generator(seed, "drift", clients, size)
    updates = torch.from_numpy(offset + random.standard_normal((clients, size)))
    return updates, random.uniform(0.5, 20.0, clients)


def naive(updates, weights):
    """Return every measure by loops over clients, from its definition."""
    g, p = updates.numpy(), weights / weights.sum()
    mean = sum(p[k] * g[k] for k in range(len(p)))
    return {
        "mean": mean,
        "norm": [math.sqrt(sum(v * v for v in row)) for row in g],
        "cosine": [row @ mean / (np.linalg.norm(row) * np.linalg.norm(mean)) for row in g],
        "distance": [np.linalg.norm(row - mean) for row in g],
        "dispersion": sum(p[k] * ((g[k] - mean) ** 2).sum() for k in range(len(p))),
        "diversity": sum(((p[k] * g[k]) ** 2).sum() for k in range(len(p))) / (mean @ mean),
        "layers": {
            name: (sum(p[k] * ((g[k] - mean)[a:b] ** 2).sum() for k in range(len(p))), np.linalg.norm(mean[a:b]))
            for name, a, b in LAYERS
        },
    }


@pytest.mark.parametrize("block", [1, 24, 1 << 18])
def test_measure_equals_its_definition(block, monkeypatch):
    monkeypatch.setitem(differences.BLOCK, "cpu", block)
    updates, weights = cohort()
    found, expected = measure_dispersion(updates, weights, layers=LAYERS), naive(updates, weights)
    np.testing.assert_allclose(found.update_norm, expected["norm"], rtol=1e-12)
    np.testing.assert_allclose(found.cosine, expected["cosine"], rtol=1e-11)
    np.testing.assert_allclose(found.distance, expected["distance"], rtol=1e-12)
    assert found.update_dispersion == pytest.approx(expected["dispersion"], rel=1e-12)
    assert found.gradient_diversity == pytest.approx(expected["diversity"], rel=1e-12)
    assert found.aggregate_norm == pytest.approx(np.linalg.norm(expected["mean"]), rel=1e-12)
    assert list(found.by_layer) == list(expected["layers"])
    for name, pair in expected["layers"].items():
        assert found.by_layer[name] == pytest.approx(pair, rel=1e-11)
    assert sum(part for part, _ in found.by_layer.values()) == pytest.approx(found.update_dispersion, rel=1e-13)


def test_cosines_refer_to_the_applied_aggregate():
    updates, weights = cohort()
    aggregate = -updates[2].to(torch.float32)
    found = measure_dispersion(updates, weights, layers=LAYERS, aggregate=aggregate)
    assert found.cosine[2] == pytest.approx(-1.0, abs=1e-6)
    assert found.aggregate_norm == pytest.approx(float(updates[2].norm()), rel=1e-6)
    own = measure_dispersion(updates, weights, layers=LAYERS)
    np.testing.assert_array_equal(found.distance, own.distance)  # distances are from the mean in both cases
    assert found.gradient_diversity == own.gradient_diversity


def test_mean_square_of_updates_is_dispersion_plus_square_of_the_mean():
    updates, weights = cohort()
    found = measure_dispersion(updates, weights, layers=LAYERS)
    second_moment = float((weights / weights.sum()) @ found.update_norm**2)
    assert second_moment == pytest.approx(found.update_dispersion + found.aggregate_norm**2, rel=1e-12)


def test_dispersion_of_nearly_equal_clients_is_accurate():
    """In float32, around 1000, where a difference of squares has no correct digit."""
    exact, weights = cohort(offset=1000.0)
    updates = exact.to(torch.float32)
    found = measure_dispersion(updates, weights, layers=LAYERS)
    assert found.update_dispersion == pytest.approx(naive(updates.to(torch.float64), weights)["dispersion"], rel=1e-10)


def test_diversity_of_equal_orthogonal_opposite_and_zero_updates():
    def diversity(rows):
        whole = torch.tensor(rows, dtype=torch.float64)
        return measure_dispersion(whole, np.ones(len(rows)), layers=[("all", 0, whole.shape[1])]).gradient_diversity

    assert diversity([[1.0, 2.0]] * 4) == pytest.approx(0.25)
    assert diversity(np.eye(3).tolist()) == pytest.approx(1.0)
    assert diversity([[1.0], [-1.0]]) == math.inf
    assert math.isnan(diversity([[0.0], [0.0]]))


def test_zero_update_has_cosine_zero_and_one_client_has_no_dispersion():
    updates = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    found = measure_dispersion(updates, np.array([1, 1]), layers=[("all", 0, 2)])
    np.testing.assert_allclose(found.cosine, [0.0, 1.0])
    one = measure_dispersion(updates[1:], torch.tensor([7]), layers=[("all", 0, 2)])
    assert (one.update_dispersion, one.gradient_diversity, one.aggregate_norm) == (0.0, 1.0, 5.0)
    np.testing.assert_array_equal(one.distance, [0.0])


def test_client_of_weight_zero_changes_no_other_clients_numbers():
    updates, weights = cohort()
    weights[3] = 0.0
    others = [0, 1, 2, 4, 5, 6]
    found = measure_dispersion(updates, weights, layers=LAYERS)
    without = measure_dispersion(updates[others], weights[others], layers=LAYERS)
    assert found.update_dispersion == pytest.approx(without.update_dispersion, rel=1e-12)
    assert found.gradient_diversity == pytest.approx(without.gradient_diversity, rel=1e-12)
    np.testing.assert_allclose(found.cosine[others], without.cosine, rtol=1e-11)


@given(seed=st.integers(0, 1000), clients=st.integers(1, 12), cuts=st.sets(st.integers(1, 11), max_size=4))
@settings(max_examples=40)
def test_streamed_tiles_equal_the_whole(seed, clients, cuts):
    updates, weights = cohort(clients=clients, offset=3.0, seed=seed)
    edges = [0, *sorted(cut for cut in cuts if cut < clients), clients]
    stream = DispersionStream(layers=LAYERS)
    for start, end in pairwise(edges):
        stream.add(updates[start:end], torch.from_numpy(weights[start:end]))
    whole, streamed = measure_dispersion(updates, weights, layers=LAYERS), stream.result()
    np.testing.assert_allclose(streamed.update_norm, whole.update_norm, rtol=1e-13)
    assert streamed.update_dispersion == pytest.approx(whole.update_dispersion, rel=1e-11, abs=1e-24)
    assert streamed.gradient_diversity == pytest.approx(whole.gradient_diversity, rel=1e-11)
    assert streamed.aggregate_norm == pytest.approx(whole.aggregate_norm, rel=1e-11)
    for name, pair in whole.by_layer.items():
        assert streamed.by_layer[name] == pytest.approx(pair, rel=1e-10, abs=1e-24)
    assert streamed.cosine is None
    assert streamed.distance is None
    assert streamed.reason == NOT_KEPT


def test_streamed_dispersion_has_no_cancellation():
    exact, weights = cohort(clients=40, offset=1e6)
    stream = DispersionStream(layers=LAYERS)
    for start in range(0, 40, 3):
        stream.add(exact[start : start + 3], weights[start : start + 3])
    assert stream.result().update_dispersion == pytest.approx(naive(exact, weights)["dispersion"], rel=1e-8)


def test_result_between_tiles_does_not_change_the_stream():
    updates, weights = cohort()
    stream = DispersionStream(layers=LAYERS)
    stream.add(updates[:3], weights[:3])
    first = stream.result()
    stream.add(updates[3:], weights[3:])
    alone = measure_dispersion(updates[:3], weights[:3], layers=LAYERS).update_dispersion
    assert first.update_dispersion == pytest.approx(alone, rel=1e-14)  # sums depend on where in memory numbers lie
    assert stream.result().update_dispersion == pytest.approx(naive(updates, weights)["dispersion"], rel=1e-12)


@given(seed=st.integers(0, 1000), clients=st.integers(1, 12), scale=st.sampled_from([1e-3, 1.0, 1e4]))
@settings(max_examples=40)
def test_order_of_clients_and_unit_of_weights_change_nothing(seed, clients, scale):
    updates, weights = cohort(clients=clients, seed=seed)
    order = generator(seed, "order").permutation(clients)
    found = measure_dispersion(updates, weights, layers=LAYERS)
    turned = measure_dispersion(updates[order], scale * weights[order], layers=LAYERS)
    assert turned.update_dispersion == pytest.approx(found.update_dispersion, rel=1e-12, abs=1e-25)
    assert turned.gradient_diversity == pytest.approx(found.gradient_diversity, rel=1e-12)
    np.testing.assert_allclose(turned.cosine, found.cosine[order], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(turned.distance, found.distance[order], rtol=1e-12, atol=1e-13)
    index = np.arange(100, 100 + clients)
    line, again = summary(found, index), summary(turned, index[order])
    assert [row["client"] for row in line["worst"]["distance"]] == [row["client"] for row in again["worst"]["distance"]]


def test_non_finite_updates_give_non_finite_measures(recwarn):
    updates, weights = cohort()
    updates[1, 2], updates[4, 7] = math.inf, math.nan
    for found in (measure_dispersion(updates, weights, layers=LAYERS), streamed(updates, weights)):
        assert not math.isfinite(found.update_dispersion)
        assert not math.isfinite(found.gradient_diversity)
        assert math.isinf(found.update_norm[1])
        assert math.isnan(found.update_norm[4])
        assert np.isfinite(found.update_norm[[0, 2, 3, 5, 6]]).all()
        assert math.isfinite(found.by_layer["first.bias"][0])
        line = summary(found, np.arange(7))
        assert math.isnan(line["update_norm"]["max"])
        assert [row["client"] for row in line["worst"]["update_norm"]][:2] == [4, 1]
    assert not recwarn.list


def streamed(updates, weights):
    stream = DispersionStream(layers=LAYERS)
    stream.add(updates[:4], weights[:4])
    stream.add(updates[4:], weights[4:])
    return stream.result()


def test_gradient_dissimilarity_is_unweighted_around_the_weighted_mean():
    gradients, weights = cohort()
    found = gradient_dissimilarity(gradients, weights)
    p = weights / weights.sum()
    mean = p @ gradients.numpy()
    unweighted = np.mean([((row - mean) ** 2).sum() for row in gradients.numpy()])
    weighted = measure_dispersion(gradients, weights, layers=LAYERS).update_dispersion
    assert found.gradient_dissimilarity == pytest.approx(unweighted, rel=1e-12)
    assert abs(unweighted - weighted) > 1e-3 * weighted  # the two definitions differ here
    assert found.b_squared == pytest.approx(p @ (gradients.numpy() ** 2).sum(axis=1) / (mean @ mean), rel=1e-12)


def test_b_is_one_for_equal_clients_and_infinite_where_only_the_mean_vanishes():
    assert gradient_dissimilarity(torch.ones(3, 2), np.array([1, 2, 3])).b_squared == pytest.approx(1.0)
    assert gradient_dissimilarity(torch.ones(3, 2), np.array([1, 2, 3])).gradient_dissimilarity == pytest.approx(0.0)
    assert gradient_dissimilarity(torch.zeros(3, 2), np.ones(3)).b_squared == 1.0
    assert gradient_dissimilarity(torch.tensor([[1.0], [-1.0]]), np.ones(2)).b_squared == math.inf


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
@settings(max_examples=60)
def test_quantiles_equal_numpys(values):
    array = np.array(values)
    found = quantiles(array)
    assert list(found) == list(LEVELS)
    np.testing.assert_allclose(list(found.values()), np.quantile(array, list(LEVELS.values())), rtol=1e-12, atol=1e-9)
    assert (found["min"], found["max"]) == (array.min(), array.max())


def test_quantiles_accept_infinite_values():
    found = quantiles(np.array([1.0, 2.0, math.inf]))
    assert (found["min"], found["p50"], found["max"]) == (1.0, 2.0, math.inf)
    assert all(math.isnan(value) for value in quantiles(np.array([1.0, math.nan])).values())


def test_worst_names_the_largest_first_and_ties_by_client():
    clients, values = np.array([9, 4, 6, 2]), np.array([1.0, 3.0, 1.0, 0.5])
    assert worst(clients, values, k=3) == [(4, 3.0), (6, 1.0), (9, 1.0)]
    assert worst(clients, values, k=2, lowest=True) == [(2, 0.5), (6, 1.0)]
    assert len(worst(clients, values)) == 4


def test_summary_has_worst_clients_means_and_quantiles():
    updates, weights = cohort(clients=3, size=11)
    found = measure_dispersion(updates, weights, layers=LAYERS)
    line = summary(found, np.array([5, 8, 13]), lambda client: f"station {client}", k=2)
    furthest = int(np.argmax(found.distance))
    assert line["worst"]["distance"][0] == {
        "client": [5, 8, 13][furthest],
        "name": f"station {[5, 8, 13][furthest]}",
        "value": found.distance[furthest],
    }
    assert line["worst"]["cosine"][0]["value"] == found.cosine.min()
    assert line["cosine"]["mean"] == pytest.approx(found.cosine.mean())
    assert line["distance"]["p50"] == pytest.approx(np.median(found.distance))
    assert line["by_layer"]["second"]["update_dispersion"] == found.by_layer["second"][0]
    assert "not_measured" not in line

    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        return all(plain(item) for item in value) if isinstance(value, list) else type(value) in (float, int, str)

    assert plain(line)


def test_summary_of_a_stream_names_what_was_not_measured():
    updates, weights = cohort()
    line = summary(streamed(updates, weights), np.arange(7))
    assert line["cosine"] is None
    assert line["distance"] is None
    assert list(line["worst"]) == ["update_norm"]
    assert line["not_measured"] == NOT_KEPT


@pytest.mark.parametrize(
    "layers",
    [
        [("all", 0, 10)],
        [("a", 0, 4), ("b", 5, 11)],
        [("a", 0, 5), ("none", 5, 5), ("b", 5, 11)],
        [("b", 5, 11), ("a", 0, 5)],
    ],
)
def test_layers_that_do_not_tile_the_parameters_fail_an_assertion(layers):
    updates, weights = cohort()
    with pytest.raises(AssertionError):
        measure_dispersion(updates, weights, layers=layers)


# The scale of the aggregate, updates that do not count, and streams that are merged.


@pytest.mark.parametrize("block", [1, 24, 1 << 18])
def test_coefficients_that_sum_to_something_else_scale_the_aggregate_alone(block, monkeypatch):
    monkeypatch.setitem(differences.BLOCK, "cpu", block)
    updates, weights = cohort()
    one, whole = measure_dispersion(updates, weights, layers=LAYERS), naive(updates, weights)
    stream = DispersionStream(layers=LAYERS)
    stream.add(updates[:2], weights[:2])
    stream.add(updates[2:], weights[2:])
    scaled = 2.5 * torch.from_numpy(whole["mean"])
    for found in (
        measure_dispersion(updates, weights, layers=LAYERS, total=2.5),
        measure_dispersion(updates, weights, layers=LAYERS, aggregate=scaled),
        of_aggregate(one, scaled, LAYERS),
        stream.result(2.5),
    ):
        assert found.aggregate_norm == pytest.approx(2.5 * one.aggregate_norm, rel=1e-12)
        assert found.update_dispersion == pytest.approx(whole["dispersion"], rel=1e-12)
        assert found.gradient_diversity == pytest.approx(whole["diversity"], rel=1e-12)
        for name, (part, norm) in whole["layers"].items():
            assert found.by_layer[name] == pytest.approx((part, 2.5 * norm), rel=1e-11)
        if found.cosine is not None:
            np.testing.assert_allclose(found.cosine, whole["cosine"], rtol=1e-11)
            np.testing.assert_allclose(found.distance, whole["distance"], rtol=1e-12)
    assert stream.result().aggregate_norm == pytest.approx(one.aggregate_norm, rel=1e-12)


def test_measures_of_another_aggregate_are_its_norms_and_cosines():
    updates, weights = cohort()
    other = torch.from_numpy(generator(9, "aggregate").standard_normal(11))
    found, whole = measure_dispersion(updates, weights, layers=LAYERS, aggregate=other), naive(updates, weights)
    assert found.aggregate_norm == pytest.approx(float(other.norm()), rel=1e-13)
    for name, a, b in LAYERS:
        assert found.by_layer[name] == pytest.approx((whole["layers"][name][0], float(other[a:b].norm())), rel=1e-11)
    cosines = [float(row @ other / row.norm() / other.norm()) for row in updates]
    np.testing.assert_allclose(found.cosine, cosines, rtol=1e-12)
    assert of_aggregate(found, other, LAYERS, norm=3.0).aggregate_norm == 3.0


@pytest.mark.parametrize("value", [math.nan, math.inf, 5.0])
def test_update_of_weight_zero_has_its_own_entries_alone(value):
    updates, weights = cohort()
    weights[3], updates[3, 1] = 0.0, value
    others = np.array([0, 1, 2, 4, 5, 6])
    found = measure_dispersion(updates, weights, layers=LAYERS)
    without = measure_dispersion(updates[others], weights[others], layers=LAYERS)
    stream = DispersionStream(layers=LAYERS)
    for tile in ([0, 1, 2], [3], [4, 5], [6]):
        stream.add(updates[tile], weights[tile])
    apart = gradient_dissimilarity(updates, weights)
    for one in (found, stream.result()):
        assert one.update_dispersion == pytest.approx(without.update_dispersion, rel=1e-12)
        assert one.gradient_diversity == pytest.approx(without.gradient_diversity, rel=1e-12)
        assert one.aggregate_norm == pytest.approx(without.aggregate_norm, rel=1e-12)
        np.testing.assert_allclose(one.update_norm, updates.norm(dim=1).numpy(), rtol=1e-13)
        for name, pair in without.by_layer.items():
            assert one.by_layer[name] == pytest.approx(pair, rel=1e-11)
    np.testing.assert_allclose(found.cosine[others], without.cosine, rtol=1e-12)
    np.testing.assert_allclose(found.distance[others], without.distance, rtol=1e-12)
    assert apart.b_squared == pytest.approx(
        gradient_dissimilarity(updates[others], weights[others]).b_squared, rel=1e-12
    )
    if value == 5.0:
        mean = (weights / weights.sum()) @ updates.numpy()
        assert found.distance[3] == pytest.approx(np.linalg.norm(updates[3].numpy() - mean), rel=1e-12)
        cosine = updates[3].numpy() @ mean / np.linalg.norm(updates[3]) / np.linalg.norm(mean)
        assert found.cosine[3] == pytest.approx(cosine, rel=1e-12)


@pytest.mark.parametrize("cuts", [(0, 4, 7), (0, 1, 7), (0, 0, 7), (0, 7, 7)])
def test_merged_streams_equal_one_stream(cuts):
    updates, weights = cohort(offset=2.0)
    parts = []
    for start, end in pairwise(cuts):
        stream = DispersionStream(layers=LAYERS)
        for k in range(start, end):
            stream.add(updates[k : k + 1], weights[k : k + 1])
        parts.append(stream)
    first, second = parts
    before = second.result() if cuts[1] < cuts[2] else None
    first.merge(second)
    merged, whole = first.result(), measure_dispersion(updates, weights, layers=LAYERS)
    np.testing.assert_allclose(merged.update_norm, whole.update_norm, rtol=1e-13)
    assert merged.update_dispersion == pytest.approx(whole.update_dispersion, rel=1e-11)
    assert merged.gradient_diversity == pytest.approx(whole.gradient_diversity, rel=1e-11)
    assert merged.aggregate_norm == pytest.approx(whole.aggregate_norm, rel=1e-12)
    for name, pair in whole.by_layer.items():
        assert merged.by_layer[name] == pytest.approx(pair, rel=1e-10)
    if before is not None:
        first.add(updates[:1], weights[:1])
        assert second.result().update_dispersion == before.update_dispersion, "a merge shares no array"
        assert second.result().aggregate_norm == before.aggregate_norm


def test_chosen_clients_keep_their_entries():
    updates, weights = cohort()
    found, chosen = measure_dispersion(updates, weights, layers=LAYERS), np.array([1, 0, 0, 1, 1, 0, 0], bool)
    some = found.over(chosen)
    for name in ("update_norm", "cosine", "distance"):
        np.testing.assert_array_equal(getattr(some, name), getattr(found, name)[chosen])
    assert some.by_layer is found.by_layer
    assert found.over(np.ones(7, bool)) is found
    stream = streamed(updates, weights).over(chosen)
    assert (stream.cosine, stream.distance, len(stream.update_norm)) == (None, None, 3)


@pytest.mark.parametrize("weights", [np.zeros(7), np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1e-9]), np.ones(6)])
def test_weights_that_are_none_or_negative_or_of_others_fail_an_assertion(weights):
    with pytest.raises(AssertionError):
        measure_dispersion(cohort()[0], weights, layers=LAYERS)


def test_zero_aggregate_of_clients_that_cancel_has_cosines_zero():
    updates = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    found = measure_dispersion(updates, np.ones(2), layers=[("all", 0, 2)])
    assert found.cosine.tolist() == [0.0, 0.0]
    assert found.distance.tolist() == [1.0, 1.0]
    assert (found.update_dispersion, found.aggregate_norm) == (1.0, 0.0)


def test_dissimilarity_of_gradients_with_a_small_mean_is_their_ratio():
    """Gradients 0.3 and -0.1 of weights 1 and 2: their mean is 0.1 / 3."""
    found = gradient_dissimilarity(torch.tensor([[0.3], [-0.1]]).double(), np.array([1, 2]))
    mean = (0.3 - 0.2) / 3
    assert found.b_squared == pytest.approx((0.09 + 2 * 0.01) / 3 / mean**2, rel=1e-6)
    assert found.gradient_dissimilarity == pytest.approx(((0.3 - mean) ** 2 + (0.1 + mean) ** 2) / 2, rel=1e-6)


@pytest.mark.parametrize("scale", [1e153, 1e200])
def test_updates_whose_squares_overflow_give_infinite_measures_and_no_warning(scale):
    updates, weights = cohort()
    large, heavy = scale * updates, 50.0 * weights
    stream = DispersionStream(layers=LAYERS)
    stream.add(large[:4], heavy[:4])
    stream.add(large[4:], heavy[4:])
    whole = measure_dispersion(large, heavy, layers=LAYERS)
    for found in (whole, stream.result(), of_aggregate(whole, large[0], LAYERS)):
        assert not math.isfinite(found.update_dispersion) or scale < 1e200
        assert not math.isfinite(found.aggregate_norm) or scale < 1e200
    assert len(stream.result().update_norm) == 7


@pytest.mark.parametrize("convert", [np.float32, torch.tensor, lambda w: torch.tensor(w, dtype=torch.float32)])
def test_weights_of_any_type_are_normalised_in_float64(convert):
    """2^24 and 1 add up to an odd number, which float32 has not."""
    updates = cohort()[0][:3]
    exact = np.array([2.0**24, 1.0, 0.0])
    found, expected = (measure_dispersion(updates, w, layers=LAYERS) for w in (convert(exact), exact))
    assert found.update_dispersion == expected.update_dispersion
    assert found.update_dispersion == pytest.approx(naive(updates, exact)["dispersion"], rel=1e-12)


@given(
    values=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.inf, -math.inf, math.nan]), min_size=1, max_size=9),
    lowest=st.booleans(),
)
def test_worst_does_not_depend_on_the_order_of_clients(values, lowest):
    clients = np.arange(10, 10 + len(values))
    found = worst(clients, np.array(values), k=4, lowest=lowest)
    turned = worst(clients[::-1], np.array(values)[::-1], k=4, lowest=lowest)
    assert [client for client, _ in found] == [client for client, _ in turned]


def test_spreads_have_mean_and_quantiles_of_each_row():
    rows = np.array([[1.0, 3.0, 8.0], [2.0, 2.0, math.nan]])
    first, second = spreads(rows)
    assert first == {"mean": 4.0} | quantiles(rows[0])
    assert all(map(math.isnan, second.values()))


def large(spread=1.0, seed=1, scale=1e-3, center=1.0):
    """Return float32 parameters of seven clients around an anchor, enough for several blocks, and three layers."""
    random = generator(seed, "large")
    size = differences.BLOCK["cpu"]
    anchor = center * torch.from_numpy(random.standard_normal(size)).float()
    moved = random.standard_normal(size) + spread * random.standard_normal((7, size))
    rows = anchor - torch.from_numpy(scale * moved).float()
    return rows, anchor, (("first", 0, 10), ("second", 10, size // 3), ("third", size // 3, size))


def assert_alike(found, expected, rtol):
    for name in ("update_norm", "distance", "cosine"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=rtol, atol=rtol)
    for name in ("aggregate_norm", "update_dispersion", "gradient_diversity"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=rtol)
    for name, pair in expected.by_layer.items():
        assert found.by_layer[name] == pytest.approx(pair, rel=rtol)


@pytest.mark.parametrize("weights", [np.arange(1.0, 8.0), np.array([0.0, 1.0, 2.0, 0.0, 1.0, 1.0, 1.0])])
@pytest.mark.parametrize("with_aggregate", [False, True])
def test_large_float32_updates_are_measured_as_in_float64(weights, with_aggregate):
    rows, anchor, layers = large()
    aggregate = (anchor - rows).median(dim=0).values if with_aggregate else None
    exact = measure_dispersion((anchor - rows).double(), weights, layers=layers, aggregate=aggregate, total=2.0)
    found = measure_dispersion(Differences(rows, anchor), weights, layers=layers, aggregate=aggregate, total=2.0)
    assert found.update_dispersion != exact.update_dispersion, "float32 was not used"
    assert_alike(found, exact, 1e-6)
    whole = measure_dispersion(anchor - rows, weights, layers=layers, aggregate=aggregate, total=2.0)
    assert whole.update_dispersion == found.update_dispersion


@pytest.mark.parametrize(("spread", "scale"), [(1e-5, 1e-3), (0.0, 1e-3), (1.0, 1e-18), (1.0, 1e22)])
def test_large_updates_that_float32_cannot_measure_are_measured_in_float64(spread, scale):
    """Clients are nearly equal, or squares leave the range of float32."""
    rows, anchor, layers = large(spread, scale=scale, center=0.0)
    exact = measure_dispersion((-rows).double(), np.ones(7), layers=layers)
    assert exact.aggregate_norm > 0
    found = measure_dispersion(Differences(rows, anchor), np.ones(7), layers=layers)
    assert_alike(found, exact, 1e-12)


def test_diverged_client_of_weight_zero_leaves_large_measures_finite():
    rows, anchor, layers = large()
    rows[2] = math.nan
    weights = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    found = measure_dispersion(Differences(rows, anchor), weights, layers=layers)
    others = [k for k in range(7) if k != 2]
    alone = measure_dispersion(Differences(rows[others], anchor), np.ones(6), layers=layers)
    assert found.update_dispersion == pytest.approx(alone.update_dispersion, rel=1e-6)
    assert math.isnan(found.update_norm[2])
    summed = Differences(rows, anchor).weighted_sum(torch.from_numpy(weights / 6).float())
    torch.testing.assert_close(summed, (anchor - rows[others]).mean(dim=0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_are_the_differences_in_order(dtype):
    rows, anchor, _ = large()
    joined = torch.empty_like(rows, dtype=dtype)
    for cut, block in Differences(rows, anchor).blocks(dtype):
        joined[:, cut] = block
    assert torch.equal(joined, (anchor - rows).to(dtype))
    assert torch.equal(Differences(rows, anchor).whole(), anchor - rows)
