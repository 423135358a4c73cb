"""Every partition has the properties listed here: one test for each property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.core.errors import PartitionError
from clients.partition import options as kinds
from clients.partition.label_skew import draw_counts
from clients.partition.partitions import partition
from clients.partition.table import PARTITIONS

N = 1437
LABELS = np.random.default_rng(0).choice(10, size=N, p=np.arange(1, 11) / 55)
FEATURES = np.random.default_rng(2).normal(size=(N, 3)) + LABELS[:, None] / 5
KEYS = {"site": np.random.default_rng(1).integers(0, 17, size=N)}

EVERY: dict[str, kinds.PartitionOptions] = {
    "iid": kinds.IidOptions(clients=20),
    "iid, one client in all": kinds.IidOptions(clients=1),
    "iid, a client an example": kinds.IidOptions(clients=N),
    "dirichlet by prior": kinds.DirichletOptions(clients=20, concentration=0.3, min_size=60),
    "dirichlet by prior, extreme": kinds.DirichletOptions(clients=20, concentration=1e-3),
    "dirichlet by prior, mild": kinds.DirichletOptions(clients=20, concentration=1e4),
    "dirichlet uniform": kinds.DirichletOptions(clients=20, concentration=0.3, convention="uniform"),
    "dirichlet over clients": kinds.DirichletOptions(
        clients=20, concentration=0.5, convention="over_clients", min_size=5
    ),
    "dirichlet over clients, empty ones": kinds.DirichletOptions(
        clients=200, concentration=0.01, convention="over_clients", min_size=0
    ),
    "shards": kinds.ShardsOptions(clients=20, shards_per_client=2),
    "shards, uneven": kinds.ShardsOptions(clients=7, shards_per_client=3),
    "quantity, log-normal": kinds.QuantityOptions(clients=20, sigma=2.0, min_size=3),
    "quantity, power law": kinds.QuantityOptions(clients=20, law="power", exponent=1.5),
    "quantity, empty clients": kinds.QuantityOptions(clients=200, sigma=4.0, min_size=0),
    "similarity, none": kinds.SimilarityOptions(clients=20, similarity=0.0),
    "similarity, some": kinds.SimilarityOptions(clients=20, similarity=0.1),
    "similarity, all": kinds.SimilarityOptions(clients=20, similarity=1.0),
    "natural": kinds.NaturalOptions(key="site"),
    "requested, labels and sizes": kinds.CalibratedOptions(clients=20, label_js=0.4, quantity_gini=0.4, min_size=7),
    "requested, features": kinds.CalibratedOptions(clients=20, label_emd=0.6, feature_shift=0.15, tolerance=0.02),
    "requested, features alone": kinds.CalibratedOptions(clients=9, feature_shift=0.1),
}
SEEDED = {name: options for name, options in EVERY.items() if name not in ("natural", "iid, one client in all")}
LEAST = {name: options.min_size for name, options in EVERY.items() if hasattr(options, "min_size")}

every = pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)


def test_list_has_every_kind() -> None:
    assert {options.kind for options in EVERY.values()} == set(PARTITIONS)


@every
def test_partition_is_exhaustive_and_disjoint(options: kinds.PartitionOptions) -> None:
    p = partition(options, LABELS, KEYS, seed=3, features=FEATURES)
    assert p.rows.dtype == p.offsets.dtype == np.int64
    assert p.offsets[0] == 0
    assert p.offsets[-1] == len(p.rows)
    assert (np.diff(p.offsets) >= 0).all()
    np.testing.assert_array_equal(np.sort(p.rows), np.arange(N))


@every
def test_rows_increase_within_a_client(options: kinds.PartitionOptions) -> None:
    p = partition(options, LABELS, KEYS, seed=3, features=FEATURES)
    falls = np.flatnonzero(np.diff(p.rows) < 0) + 1
    assert set(falls) <= set(p.offsets)


@every
def test_partition_has_the_configured_number_of_clients(options: kinds.PartitionOptions) -> None:
    p = partition(options, LABELS, KEYS, seed=3, features=FEATURES)
    assert len(p.sizes) == getattr(options, "clients", 17)
    assert p.names is None or len(p.names) == len(p.sizes)


@every
def test_same_seed_gives_same_bytes(options: kinds.PartitionOptions) -> None:
    a, b = (partition(options, LABELS, KEYS, seed=3, features=FEATURES) for _ in range(2))
    assert a.rows.tobytes() == b.rows.tobytes()
    assert a.offsets.tobytes() == b.offsets.tobytes()
    assert (a.laws is None) == (b.laws is None)
    assert a.laws is None or b.laws is None or a.laws.tobytes() == b.laws.tobytes()


@pytest.mark.parametrize("options", SEEDED.values(), ids=SEEDED)
def test_another_seed_differs(options: kinds.PartitionOptions) -> None:
    a, b = (partition(options, LABELS, KEYS, seed=seed, features=FEATURES) for seed in (3, 4))
    assert a.rows.tobytes() != b.rows.tobytes()


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize("seed", range(5))
def test_partition_keeps_its_minimum_size(name: str, seed: int) -> None:
    assert partition(EVERY[name], LABELS, KEYS, seed=seed, features=FEATURES).sizes.min() >= LEAST[name]


@every
def test_laws_sum_to_one(options: kinds.PartitionOptions) -> None:
    laws = partition(options, LABELS, KEYS, seed=3, features=FEATURES).laws
    assert (laws is not None) == (options.kind == "dirichlet")
    if laws is not None:
        assert laws.shape == (options.clients, 10)  # type: ignore[union-attr]
        assert (laws >= 0).all()
        np.testing.assert_allclose(laws.sum(axis=1), 1.0, rtol=1e-12)


EQUAL = [n for n in EVERY if n.startswith(("iid", "dirichlet by", "dirichlet uniform", "shards", "similarity"))]


@pytest.mark.parametrize("name", EQUAL)
def test_sizes_are_nearly_equal(name: str) -> None:
    options = EVERY[name]
    sizes = partition(options, LABELS, KEYS, seed=3, features=FEATURES).sizes
    # Shards are equal to within one, and a client gets several of them.
    assert np.ptp(sizes) <= getattr(options, "shards_per_client", 1)


def test_shards_give_few_labels() -> None:
    p = partition(kinds.ShardsOptions(clients=10, shards_per_client=2), np.repeat(np.arange(10), 100), {}, seed=0)
    for k in range(10):
        assert len(np.unique(p.rows[p.offsets[k] : p.offsets[k + 1]] // 100)) <= 2


def test_similarity_sorts_the_rest_by_label() -> None:
    labels = np.repeat(np.arange(10), 100)
    none = partition(kinds.SimilarityOptions(clients=10, similarity=0.0), labels, {}, seed=0)
    half = partition(kinds.SimilarityOptions(clients=10, similarity=0.5), labels, {}, seed=0)
    for k in range(10):
        assert (labels[none.rows[none.offsets[k] : none.offsets[k + 1]]] == k).all()
        own = (labels[half.rows[half.offsets[k] : half.offsets[k + 1]]] == k).mean()
        assert 0.4 < own < 0.75  # half of its block, and a tenth of the other half


def test_concentration_orders_skew() -> None:
    def spread(alpha: float) -> float:
        p = partition(kinds.DirichletOptions(clients=20, concentration=alpha), LABELS, {}, seed=0)
        counts = np.stack([np.bincount(LABELS[r], minlength=10) for r in np.split(p.rows, p.offsets[1:-1])])
        return float(np.abs(counts / counts.sum(axis=1, keepdims=True) - np.bincount(LABELS) / N).sum(axis=1).mean())

    assert spread(0.1) > spread(1.0) > spread(10.0) > spread(1000.0)


def test_clients_follow_their_laws_while_examples_last() -> None:
    """With mild skew no class runs out early: a client's frequencies differ from its law by counting noise."""
    labels = np.repeat(np.arange(10), 2000)
    p = partition(kinds.DirichletOptions(clients=20, concentration=20.0), labels, {}, seed=0)
    counts = np.stack([np.bincount(labels[r], minlength=10) for r in np.split(p.rows, p.offsets[1:-1])])
    assert p.laws is not None
    z = (counts - 1000 * p.laws) / np.sqrt(1000 * p.laws * (1 - p.laws))
    assert np.median(np.abs(z)) < 1.5


def test_joint_draw_equals_draws_one_by_one() -> None:
    """Law (0.9, 0.1), pools (1, 2), two draws: (1, 1) unless both draws are of the second class, 1 - 0.1 * 0.1."""
    generator = np.random.default_rng(0)
    draws = 20_000
    first = [draw_counts(2, np.array([0.9, 0.1]), np.array([1, 2]), generator)[0] for _ in range(draws)]
    assert np.mean(first) == pytest.approx(0.99, abs=4 * np.sqrt(0.99 * 0.01 / draws))


def test_exhausted_law_takes_the_remaining_examples() -> None:
    counts = draw_counts(3, np.array([1.0, 0.0, 0.0]), np.array([1, 0, 5]), np.random.default_rng(0))
    assert counts.tolist() == [1, 0, 2]


def test_power_law_sizes_follow_their_exponent() -> None:
    sizes = np.sort(partition(kinds.QuantityOptions(clients=50, law="power"), np.zeros(100_000), {}, seed=0).sizes)[
        ::-1
    ]
    slope = np.polyfit(np.log(np.arange(1, 51)), np.log(sizes), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.02)


def test_lognormal_sizes_follow_their_sigma() -> None:
    sizes = partition(kinds.QuantityOptions(clients=2000, sigma=0.7), np.zeros(1_000_000), {}, seed=0).sizes
    assert np.log(sizes).std() == pytest.approx(0.7, abs=0.05)


def test_natural_partition_has_names_and_members() -> None:
    keys = {"site": np.array(["b", "a", "b", "c"])}
    p = partition(kinds.NaturalOptions(key="site"), np.zeros(4), keys, seed=0)
    assert p.names == ("a", "b", "c")
    assert [r.tolist() for r in np.split(p.rows, p.offsets[1:-1])] == [[1], [0, 2], [3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (kinds.IidOptions(clients=11), "At most 10 clients fit"),
        (kinds.DirichletOptions(clients=5, concentration=1.0, min_size=3), "min_size = 2 or clients = 3 fits"),
        (kinds.DirichletOptions(clients=5, concentration=1e-4, convention="over_clients", min_size=2), "fits"),
        (kinds.QuantityOptions(clients=4, min_size=3), "min_size = 2 or clients = 3 fits"),
        (kinds.ShardsOptions(clients=4, shards_per_client=3), "At most 2 shards a client fit"),
        (kinds.NaturalOptions(key="sites"), "Nearest: 'site'"),
        (kinds.CalibratedOptions(clients=4, quantity_gini=0.3, min_size=3), "min_size = 2 or clients = 3 fits"),
        (kinds.CalibratedOptions(clients=2, quantity_gini=0.9), r"only from 0 .* to 0\.4 .*the ceiling"),
        (kinds.CalibratedOptions(clients=2, feature_shift=0.9), "needs features"),
    ],
)
def test_impossible_partition_names_what_would_fit(options: kinds.PartitionOptions, message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        partition(options, np.arange(10) % 2, {"site": np.arange(10)}, seed=0)


@pytest.mark.parametrize(
    "options",
    [
        kinds.DirichletOptions(clients=2, concentration=1.0),
        kinds.ShardsOptions(clients=2),
        kinds.SimilarityOptions(clients=2, similarity=0.5),
        kinds.CalibratedOptions(clients=2, label_js=0.5),
    ],
)
def test_label_partition_refuses_numeric_targets(options: kinds.PartitionOptions) -> None:
    with pytest.raises(PartitionError, match=r"needs class labels.*iid, quantity and natural work"):
        partition(options, np.zeros((10, 1)), {}, seed=0)


@settings(max_examples=60)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    clients=st.integers(1, 8),
    alpha=st.floats(1e-3, 1e3),
    convention=st.sampled_from(["prior", "uniform", "over_clients"]),
    seed=st.integers(0, 2**32),
)
def test_dirichlet_deals_every_example_once(
    labels: list[int], clients: int, alpha: float, convention: str, seed: int
) -> None:
    clients = min(clients, len(labels))
    options = kinds.DirichletOptions(
        clients=clients,
        concentration=alpha,
        convention=convention,  # type: ignore[arg-type]
        min_size=0,
    )
    p = partition(options, np.asarray(labels), {}, seed=seed)
    np.testing.assert_array_equal(np.sort(p.rows), np.arange(len(labels)))
    assert len(p.sizes) == clients
