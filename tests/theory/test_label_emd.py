"""Label EMD of Dirichlet laws and of j classes a client agree with THEORY.md section 6."""

from __future__ import annotations

import numpy as np
import pytest

from clients.heterogeneity.measures import label_emd
from clients.partition.label_skew import client_laws, draw_counts
from clients.partition.options import DirichletOptions, ShardsOptions
from clients.partition.partitions import partition

ALPHAS = (100.0, 10.0, 1.0, 0.5, 0.1)
BY_PRIOR = (0.23736, 0.69736, 1.42128, 1.57261, 1.74483)
UNIFORM = (0.07563, 0.23736, 0.69736, 0.91652, 1.42128)
BALANCED = np.full(10, 0.1)
CLIENTS = 20_000


@pytest.mark.parametrize(
    ("by_prior", "alpha", "exact"),
    [(True, a, e) for a, e in zip(ALPHAS, BY_PRIOR, strict=True)]
    + [(False, a, e) for a, e in zip(ALPHAS, UNIFORM, strict=True)],
)
def test_drawn_laws_have_the_expected_emd(by_prior: bool, alpha: float, exact: float) -> None:
    """Mean EMD of drawn laws: 2K m^a (1-m)^(9a) / (B(a, 9a) 10a), m = 1/10; four standard errors and the last digit."""
    laws = client_laws(np.repeat(np.arange(10), 50), CLIENTS, alpha, by_prior, np.random.default_rng(11))
    emd = label_emd(laws, BALANCED)
    assert emd.mean() == pytest.approx(exact, abs=4 * emd.std() / np.sqrt(CLIENTS) + 1e-5)


@pytest.mark.parametrize("convention", ["prior", "uniform"])
def test_partition_reports_the_laws_it_drew(convention: str) -> None:
    options = DirichletOptions(clients=500, concentration=0.5, convention=convention)  # type: ignore[arg-type]
    laws = partition(options, np.repeat(np.arange(10), 100), {}, seed=2).laws
    assert laws is not None
    emd = label_emd(laws, BALANCED)
    exact = {"prior": 1.57261, "uniform": 0.91652}[convention]
    assert emd.mean() == pytest.approx(exact, abs=4 * emd.std() / np.sqrt(500))


def test_laws_over_clients_have_the_expected_emd() -> None:
    """10 clients at concentration 0.5: 0.873 (known to three digits); clients of one draw depend on each other."""
    options = DirichletOptions(clients=10, concentration=0.5, convention="over_clients", min_size=0)
    labels = np.repeat(np.arange(10), 100)
    means = []
    for seed in range(1500):
        laws = partition(options, labels, {}, seed=seed).laws
        assert laws is not None
        means.append(label_emd(laws, BALANCED).mean())
    assert np.mean(means) == pytest.approx(0.873, abs=4 * np.std(means) / np.sqrt(len(means)) + 5e-4)


@pytest.mark.parametrize("classes", [1, 2, 5, 10])
def test_j_classes_per_client_have_the_expected_emd(classes: int) -> None:
    """Balanced 10 classes, j of them a client in equal parts: EMD = 2 (1 - j / 10)."""
    laws = np.zeros((10, 10))
    for k in range(10):
        laws[k, (k + np.arange(classes)) % 10] = 1 / classes
    np.testing.assert_allclose(label_emd(laws, BALANCED), 2 * (1 - classes / 10), atol=1e-15)


def test_one_shard_per_client_is_one_class_per_client() -> None:
    labels = np.repeat(np.arange(10), 60)
    p = partition(ShardsOptions(clients=20, shards_per_client=1), labels, {}, seed=0)
    counts = np.stack([np.bincount(labels[r], minlength=10) for r in np.split(p.rows, p.offsets[1:-1])])
    np.testing.assert_allclose(label_emd(counts / 30, BALANCED), 1.8)


def test_realised_labels_differ_more_than_their_law() -> None:
    """At alpha 100 by prior 50 labels realise an EMD of 0.404 on average (Dirichlet-multinomial), their law 0.237."""
    generator = np.random.default_rng(3)
    laws = client_laws(np.repeat(np.arange(10), 50), 5000, 100.0, True, generator)
    plenty = np.full(10, 1_000_000)
    counts = np.stack([draw_counts(50, law, plenty, generator) for law in laws])
    emd = label_emd(counts / 50, BALANCED)
    assert emd.mean() == pytest.approx(0.404, abs=4 * emd.std() / np.sqrt(5000) + 5e-4)


def test_exhaustive_partition_changes_the_emd_little() -> None:
    """The last clients take the remaining examples: the mean over a partition lies a little above 0.404."""
    labels = np.repeat(np.arange(10), 10_000)
    p = partition(DirichletOptions(clients=2000, concentration=100.0), labels, {}, seed=5)
    owner = np.repeat(np.arange(2000), 50)
    counts = np.bincount(owner * 10 + labels[p.rows], minlength=20_000).reshape(2000, 10)
    assert 0.40 < label_emd(counts / 50, BALANCED).mean() < 0.43
