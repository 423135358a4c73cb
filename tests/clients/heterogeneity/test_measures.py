"""Label EMD, Jensen-Shannon divergence and sizes of a population."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from clients.core.population import Population
from clients.federation.data_kinds import SyntheticOptions, build_population
from clients.heterogeneity.measures import label_emd, label_js, partition_measures
from clients.sources.custom import custom_population


def population(labels: list[list[int]], classes: int) -> Population:
    return custom_population(
        lambda k: (np.zeros((len(labels[k]), 2)), np.asarray(labels[k])),
        [len(c) for c in labels],
        outputs=classes,
        feature_shape=(2,),
    )


def test_js_is_scipys_squared_distance_in_bits() -> None:
    laws = np.random.default_rng(0).dirichlet(np.full(7, 0.3), size=20)
    reference = np.random.default_rng(1).dirichlet(np.ones(7))
    expected = [jensenshannon(law, reference, base=2) ** 2 for law in laws]
    np.testing.assert_allclose(label_js(laws, reference), expected, atol=1e-12)


def test_ends_of_both_scales() -> None:
    same, apart = [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]
    assert label_emd([same, apart], same).tolist() == [0, 2]
    assert label_js([same, apart], same).tolist() == [0, 1]


def test_weighed_by_examples_by_hand() -> None:
    """Two clients, three examples of label 0 and one of label 1: p = (3/4, 1/4)."""
    m = partition_measures(population([[0, 0, 0], [1]], 2), seed=0)
    assert (m.clients, m.examples, m.smallest, m.median, m.largest, m.estimated_from) == (2, 4, 1, 2.0, 3, 2)
    assert m.label_emd == pytest.approx(3 / 4 * 1 / 2 + 1 / 4 * 3 / 2)
    js = [jensenshannon(q, [0.75, 0.25], base=2) ** 2 for q in ([1, 0], [0, 1])]
    assert m.label_js == pytest.approx(3 / 4 * js[0] + 1 / 4 * js[1])


def test_equal_clients_measure_zero() -> None:
    m = partition_measures(population([[0, 1], [1, 0], [0, 0, 1, 1]], 2), seed=0)
    assert m.label_emd == 0
    assert m.label_js == pytest.approx(0, abs=1e-15)


def test_empty_clients_count_in_sizes_only() -> None:
    with_empty = partition_measures(population([[0, 0], [], [1, 1]], 2), seed=0)
    assert with_empty.smallest == 0
    assert with_empty.label_emd == pytest.approx(1.0)


def test_no_labels_no_label_measures() -> None:
    p = custom_population(lambda k: (np.zeros((2, 1)), np.zeros(2)), [2, 2], outputs=1, task="regression")
    m = partition_measures(p, seed=0)
    assert m.label_emd is None
    assert m.label_js is None


def test_a_sample_estimates_the_whole() -> None:
    p = build_population(SyntheticOptions(clients=600, sizes=60, alpha=1.0, beta=1.0), None, seed=0)
    whole, part = partition_measures(p, seed=0), partition_measures(p, seed=0, sample=200)
    assert (whole.estimated_from, part.estimated_from) == (600, 200)
    assert part.label_emd == pytest.approx(whole.label_emd, abs=0.1)
    assert part.label_js == pytest.approx(whole.label_js, abs=0.05)
    assert part.label_emd != whole.label_emd
    assert (part.clients, part.examples) == (600, 36_000)
