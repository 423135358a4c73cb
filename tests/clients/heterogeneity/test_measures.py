"""Label EMD, Jensen-Shannon divergence and sizes of a population."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from clients.core.population import Population
from clients.federation.data_kinds import build_population
from clients.heterogeneity.measures import (
    LABEL_MEASURES,
    gini,
    label_distances,
    label_emd,
    label_hellinger,
    label_js,
    partition_measures,
    partition_table,
)
from clients.sources.custom import custom_population
from clients.sources.options import SyntheticOptions


def population(labels: list[list[int]], classes: int) -> Population:
    return custom_population(
        lambda k: (np.zeros((len(labels[k]), 2)), np.asarray(labels[k])),
        [len(c) for c in labels],
        outputs=classes,
        feature_shape=(2,),
    )


def test_label_js_equals_scipys_squared_distance_in_bits() -> None:
    laws = np.random.default_rng(0).dirichlet(np.full(7, 0.3), size=20)
    reference = np.random.default_rng(1).dirichlet(np.ones(7))
    expected = [jensenshannon(law, reference, base=2) ** 2 for law in laws]
    np.testing.assert_allclose(label_js(laws, reference), expected, atol=1e-12)


def test_label_measures_reach_both_ends() -> None:
    same, apart = [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]
    assert label_emd([same, apart], same).tolist() == [0, 2]
    assert label_js([same, apart], same).tolist() == [0, 1]


def test_label_measures_weigh_by_examples() -> None:
    """Two clients, three examples of label 0 and one of label 1: p = (3/4, 1/4)."""
    m = partition_measures(population([[0, 0, 0], [1]], 2), seed=0)
    assert (m.clients, m.examples, m.smallest, m.median, m.largest, m.estimated_from) == (2, 4, 1, 2.0, 3, 2)
    assert m.label_emd == pytest.approx(3 / 4 * 1 / 2 + 1 / 4 * 3 / 2)
    js = [jensenshannon(q, [0.75, 0.25], base=2) ** 2 for q in ([1, 0], [0, 1])]
    assert m.label_js == pytest.approx(3 / 4 * js[0] + 1 / 4 * js[1])


def test_label_measures_of_equal_clients_are_zero() -> None:
    m = partition_measures(population([[0, 1], [1, 0], [0, 0, 1, 1]], 2), seed=0)
    assert m.label_emd == 0
    assert m.label_js == pytest.approx(0, abs=1e-15)


def test_empty_clients_count_in_sizes_only() -> None:
    with_empty = partition_measures(population([[0, 0], [], [1, 1]], 2), seed=0)
    assert with_empty.smallest == 0
    assert with_empty.label_emd == pytest.approx(1.0)


def test_population_without_labels_has_no_label_measures() -> None:
    p = custom_population(lambda k: (np.zeros((2, 1)), np.zeros(2)), [2, 2], outputs=1, task="regression")
    m = partition_measures(p, seed=0)
    assert m.label_emd is None
    assert m.label_js is None


def test_sample_estimates_the_label_measures() -> None:
    p = build_population(SyntheticOptions(clients=600, sizes=60, alpha=1.0, beta=1.0), None, seed=0)
    whole, part = partition_measures(p, seed=0), partition_measures(p, seed=0, sample=200)
    assert (whole.estimated_from, part.estimated_from) == (600, 200)
    assert part.label_emd == pytest.approx(whole.label_emd, abs=0.1)
    assert part.label_js == pytest.approx(whole.label_js, abs=0.05)
    assert part.label_emd != whole.label_emd
    assert (part.clients, part.examples) == (600, 36_000)


def test_label_emd_and_hellinger_are_their_sums() -> None:
    laws = np.random.default_rng(2).dirichlet(np.full(5, 0.4), size=9)
    reference = np.random.default_rng(3).dirichlet(np.ones(5))
    for k, law in enumerate(laws):
        emd = sum(abs(p - q) for p, q in zip(law, reference, strict=True))
        overlap = sum(math.sqrt(p * q) for p, q in zip(law, reference, strict=True))
        assert label_emd(laws, reference)[k] == pytest.approx(emd, rel=1e-13)
        assert label_hellinger(laws, reference)[k] == pytest.approx(math.sqrt(1 - overlap), rel=1e-12)


def test_label_distances_weigh_by_examples_and_leave_out_empty_clients() -> None:
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 2, 6], [0, 5, 1]])
    each, mean = label_distances(counts)
    some, sizes, reference = [0, 2, 3], np.array([4, 10, 6]), counts.sum(axis=0) / 20
    assert list(each) == list(mean) == list(LABEL_MEASURES)
    for name, measure in LABEL_MEASURES.items():
        expected = measure(counts[some] / sizes[:, None], reference)
        assert np.isnan(each[name][1])
        np.testing.assert_allclose(each[name][some], expected, rtol=1e-14)
        assert mean[name] == pytest.approx(sizes @ expected / 20, rel=1e-14)


def test_nobodys_labels_have_no_distance() -> None:
    each, mean = label_distances(np.zeros((3, 2)))
    assert mean == {}
    assert list(each) == list(LABEL_MEASURES)
    assert all(np.isnan(found).all() and found.shape == (3,) for found in each.values())


@pytest.mark.parametrize("sizes", [[4], [0, 0], [0, 7], [1, 2, 3, 10], [5, 0, 1, 1, 9, 2]])
def test_gini_is_the_mean_difference_over_twice_the_mean(sizes: list[int]) -> None:
    n, total = len(sizes), sum(sizes)
    differences = sum(abs(a - b) for a in sizes for b in sizes)
    assert gini(sizes) == pytest.approx(differences / (2 * n * total) if total else 0.0, rel=1e-14)


@pytest.mark.parametrize(("most", "most_counts", "shown"), [
    (400, 20_000, [0, 1, 2, 3, 4, 5, 6]), (7, 20_000, [0, 1, 2, 3, 4, 5, 6]), (3, 20_000, [0, 3, 6]),
    (400, 6, [0, 3, 6]), (400, 7, [0, 3, 6]), (400, 1, [0]),
])  # fmt: skip
def test_partition_table_shows_clients_at_even_distances(most: int, most_counts: int, shown: list[int]) -> None:
    labels = [[0] * (k + 1) + [1] * k for k in range(7)]
    table = partition_table(population(labels, 2), most, most_counts)
    assert table["clients"] == 7
    assert table["shown"] == shown
    assert table["sizes"] == [2 * k + 1 for k in shown]
    assert table["label_counts"] == [[k + 1, k] for k in shown]
    assert len(table["names"]) == len(shown)
    np.testing.assert_allclose(table["size_percentiles"], np.linspace(1, 13, 101), rtol=1e-14)


def test_partition_table_without_labels_has_no_counts_and_is_thinned_by_clients_alone() -> None:
    p = custom_population(lambda k: (np.zeros((2, 1)), np.zeros(2)), [2] * 5, outputs=1, task="regression")
    table = partition_table(p, most=4, most_counts=1)
    assert table["label_counts"] is None
    assert table["shown"] == [0, 1, 3, 4]
    assert partition_table(p)["shown"] == [0, 1, 2, 3, 4]
