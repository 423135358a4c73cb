"""Measures of heterogeneity against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import gamma, hyp1f1

from clients.core.examples import CohortData, FaultCounts
from clients.core.population import Population
from clients.core.population_parts import Places
from clients.heterogeneity.feature_shift import feature_shift, measured_examples, population_shift
from clients.heterogeneity.measures import gini, label_distances, label_emd, label_hellinger, label_js
from clients.heterogeneity.spatial import morans_i, nearest
from clients.heterogeneity.table import label_noise, measure_clients
from clients.partition.options import QuantityOptions
from clients.partition.partitions import partition
from clients.sources.custom import custom_population

BALANCED = np.full(10, 0.1)


def one_label(classes: int, of: int) -> np.ndarray:
    """Laws of clients that each hold `classes` of `of` labels in equal parts."""
    laws = np.zeros((of, of))
    for k in range(of):
        laws[k, (k + np.arange(classes)) % of] = 1 / classes
    return laws


@pytest.mark.parametrize("j", [1, 2, 5, 10])
def test_label_measures_of_clients_with_j_labels(j: int) -> None:
    """EMD 2 (1 - j/C) (Zhao et al. 2018), H^2 = 1 - sqrt(j/C), and JS from its definition in bits."""
    laws, part = one_label(j, 10), j / 10
    np.testing.assert_allclose(label_emd(laws, BALANCED), 2 * (1 - part), atol=1e-12)
    np.testing.assert_allclose(label_hellinger(laws, BALANCED) ** 2, 1 - math.sqrt(part), atol=1e-12)
    mine, theirs = 1 / j, 1 / 10
    middle = (mine + theirs) / 2
    js = 0.5 * (math.log2(mine / middle) + part * math.log2(theirs / middle) + (1 - part) * 1.0)
    np.testing.assert_allclose(label_js(laws, BALANCED), js, atol=1e-12)


def test_label_measures_of_two_one_label_clients() -> None:
    """Laws (1,0) and (0,1), p = (1/2,1/2): JS = (log2(4/3) + log2(2/3)/2 + 1/2)/2 bits; apart from each other 1 bit."""
    each, mean = label_distances([[7, 0], [0, 7]])
    assert mean["label_js"] == pytest.approx(0.5 * (math.log2(4 / 3) + 0.5 * math.log2(2 / 3) + 0.5), abs=1e-12)
    assert mean["label_emd"] == 1.0
    assert each["label_hellinger"] == pytest.approx(math.sqrt(1 - math.sqrt(0.5)))
    assert label_js([[1.0, 0.0]], [0.0, 1.0]).tolist() == label_hellinger([[1.0, 0.0]], [0.0, 1.0]).tolist() == [1.0]


def test_means_weigh_by_examples_and_skip_empty_clients() -> None:
    each, mean = label_distances([[3, 0], [0, 0], [0, 1]])
    assert np.isnan(each["label_emd"][1])
    assert mean["label_emd"] == pytest.approx(3 / 4 * 0.5 + 1 / 4 * 1.5)
    assert label_distances([[0, 0]])[1] == {}


@pytest.mark.parametrize(
    ("sizes", "exact"), [([0, 1], 1 / 2), ([1, 3], 1 / 4), ([4, 4, 4], 0), ([0, 0, 0, 9], 3 / 4), ([0, 0], 0)]
)
def test_gini_equals_values_by_hand(sizes: list[int], exact: float) -> None:
    assert gini(sizes) == pytest.approx(exact, abs=1e-15)
    assert gini(sizes[::-1]) == pytest.approx(exact, abs=1e-15)


def test_gini_equals_its_double_sum_and_its_lognormal_value() -> None:
    x = np.random.default_rng(0).exponential(size=50)
    assert gini(x) == pytest.approx(np.abs(x[:, None] - x).sum() / (2 * 50**2 * x.mean()))
    sizes = partition(QuantityOptions(clients=4000, sigma=0.8), np.zeros(1_000_000), {}, seed=1).sizes
    assert gini(sizes) == pytest.approx(math.erf(0.8 / 2), abs=0.02)  # Aitchison and Brown 1957: 2 Phi(s/sqrt 2) - 1


def mean_norm(shift: float, deviation: float, dimension: int) -> float:
    """Mean norm of a normal vector with mean of norm `shift` and covariance deviation^2 I."""
    half = dimension / 2
    scale = deviation * math.sqrt(2) * gamma(half + 0.5) / gamma(half)
    return float(scale * hyp1f1(-0.5, half, -(shift**2) / (2 * deviation**2)))


@pytest.mark.parametrize("dimension", [1, 3])
def test_energy_distance_of_shifted_normals_equals_theory(dimension: int) -> None:
    """Two clients N(0, I) and N(mu, I): E|X - Y| of both kinds are means of norms of normal vectors."""
    random, n, mu = np.random.default_rng(5), 1200, 1.5
    x = random.normal(size=(2 * n, dimension))
    x[n:, 0] += mu
    got = feature_shift(x, np.array([0, n, 2 * n]), [n, n])
    spread = np.ones(dimension)
    spread[0] = math.sqrt(1 + mu * mu / 4)  # deviation of the mixture, by which features are divided
    if dimension == 1:
        same, other = mean_norm(0, math.sqrt(2), 1), mean_norm(mu, math.sqrt(2), 1)
        exact = (other - same) / 2 / spread[0]  # 2 (same + other)/2 - same - (same + other)/2
    else:  # the first feature is divided by more than the others: by simulation of independent pairs
        a, b = random.normal(size=(2, 400_000, dimension)) / spread
        shift = np.zeros(dimension)
        shift[0] = mu / spread[0]
        exact = (np.linalg.norm(a - b + shift, axis=1).mean() - np.linalg.norm(a - b, axis=1).mean()) / 2
    assert got.mean == pytest.approx(exact, rel=0.06)
    np.testing.assert_allclose(got.each, exact, rtol=0.1)
    assert 0 < got.coefficient < 1


def test_norm_formula_equals_simulation() -> None:
    x = np.random.default_rng(0).normal(size=(200_000, 3)) * 1.4 + np.array([0.0, 2.0, 0.0])
    assert mean_norm(2.0, 1.4, 3) == pytest.approx(np.linalg.norm(x, axis=1).mean(), rel=0.005)


def test_energy_distance_of_equal_clients_is_unbiased() -> None:
    """Thirty clients have 2 to 9 examples of one law; a biased estimate would be near E|X - X'| / n, above 0.1."""
    random = np.random.default_rng(7)
    sizes = random.integers(2, 10, size=30)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    got = [feature_shift(random.normal(size=(offsets[-1], 2)), offsets, sizes).mean for _ in range(300)]
    assert np.mean(got) == pytest.approx(0, abs=4 * np.std(got) / math.sqrt(300))
    assert min(got) < 0 < max(got)


@pytest.mark.parametrize(("spread", "sizes"), [
    (0.0, [50] * 10), (0.0, [200, 10, 10, 40]), (1.0, [20] * 10), (0.0, [2] * 8 + [3]), (1.0, [2] * 30 + [10] * 4),
])  # fmt: skip
def test_error_of_the_energy_distance_is_that_of_repeated_draws_or_somewhat_more(spread, sizes) -> None:
    """A jackknife exceeds the standard error on average, by the root of 2 at a distance of 0 (a degenerate case)."""
    random, offsets = np.random.default_rng(1), np.concatenate(([0], np.cumsum(sizes)))
    centres = np.repeat(random.normal(size=(len(sizes), 2)) * spread, sizes, axis=0)
    got = [feature_shift(random.normal(size=(offsets[-1], 2)) + centres, offsets, sizes) for _ in range(200)]
    means, errors = np.array([g.mean for g in got]), np.array([g.error for g in got])
    assert 1.0 < np.sqrt((errors**2).mean()) / means.std() < 1.8
    assert (abs(means - means.mean()) <= 2 * errors).mean() > 0.95


def test_error_of_the_energy_distance_equals_the_jackknife_by_leaving_examples_out() -> None:
    random = np.random.default_rng(4)
    x, sizes = random.normal(size=(12, 2)), np.array([5, 4, 3])
    w = sizes / 12
    z = (x - x.mean(0)) / x.std(0)
    owner = np.repeat(np.arange(3), sizes)

    def distance(left: np.ndarray) -> float:
        between = np.linalg.norm(z[left][:, None] - z[left], axis=2)
        of = owner[left]
        m = np.array([[between[of == k][:, of == j].sum() / ((of == k).sum() * ((of == j).sum() - (k == j)))
                       for j in range(3)] for k in range(3)])  # fmt: skip
        return float(w @ m @ w - w @ np.diagonal(m))

    whole = np.arange(12)
    change = np.array([distance(np.delete(whole, i)) - distance(whole) for i in range(12)])
    expected = np.sqrt((((sizes - 1) / sizes)[owner] * change**2).sum())
    assert feature_shift(x, np.array([0, 5, 9, 12]), sizes).error == pytest.approx(expected, rel=1e-12)


def test_energy_distance_equals_its_definition() -> None:
    """Computes every pair, for clients of 3, 1 and 4 examples (a client of one example cannot be measured)."""
    random = np.random.default_rng(1)
    x, offsets = random.normal(size=(8, 2)), np.array([0, 3, 4, 8])
    got = feature_shift(x, offsets, [3, 1, 8])
    w = np.array([3, 8]) / 11
    z = x[[0, 1, 2, 4, 5, 6, 7]]
    weights = np.repeat(w / [3, 4], [3, 4])
    centred = z - weights @ z
    z = centred / np.sqrt(weights @ centred**2)
    d = np.linalg.norm(z[:, None] - z, axis=2)
    m = np.array([[d[:3, :3].sum() / 6, d[:3, 3:].mean()], [d[3:, :3].mean(), d[3:, 3:].sum() / 12]])
    among = w @ m @ w
    expected = [2 * (w @ m[k]) - m[k, k] - among for k in range(2)]
    np.testing.assert_allclose(got.each[[0, 2]], expected, rtol=1e-9)
    assert np.isnan(got.each[1])
    assert got.mean == pytest.approx(w @ expected)


def test_energy_distance_ignores_constant_features_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    x, offsets = random.normal(size=(90, 2)), np.arange(0, 91, 9)
    plain = feature_shift(x, offsets, np.full(10, 9))
    wide = np.column_stack((x, np.full(90, 1e6)))
    np.testing.assert_allclose(feature_shift(wide, offsets, np.full(10, 9)).each, plain.each, rtol=1e-12)
    monkeypatch.setattr("clients.heterogeneity.feature_shift._BLOCK", 1000)
    np.testing.assert_allclose(feature_shift(x, offsets, np.full(10, 9)).each, plain.each, rtol=1e-9)


def test_sampled_examples_do_not_depend_on_other_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.heterogeneity.feature_shift.EXAMPLES", 400)
    sizes = np.array([500, 3, 0, 300])
    chosen, offsets = measured_examples(np.array([5, 6, 7, 9]), sizes, 2, seed=0)
    assert np.diff(offsets).tolist() == [133, 3, 0, 133]
    assert (np.diff(chosen) > 0).all()
    assert chosen[offsets[1] : offsets[2]].tolist() == [500, 501, 502]
    again, _ = measured_examples(np.array([5, 1, 2, 9]), np.array([500, 9, 9, 300]), 2, seed=0)
    both = set(chosen[:133]) & set(again[:100])
    assert len(both) == 100  # the smaller choice is a subset of the larger


def torus(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours of a checkerboard on a torus, and the four neighbours of each field."""
    at = np.arange(side * side).reshape(side, side)
    around = [np.roll(at, step, axis).ravel() for axis in (0, 1) for step in (-1, 1)]
    return (np.add.outer(np.arange(side), np.arange(side)) % 2).ravel(), np.stack(around, axis=1)


def test_morans_i_of_a_checkerboard_is_minus_one() -> None:
    colours, around = torus(6)
    moran = morans_i(colours, around)
    assert moran is not None
    assert moran.value == pytest.approx(-1, abs=1e-12)
    assert moran.expected == -1 / 35


def test_morans_i_of_a_gradient_is_near_one() -> None:
    x, y = (axis.ravel().astype(float) for axis in np.meshgrid(np.arange(12), np.arange(12)))
    smooth = morans_i(x + 2 * y, nearest(x, y, 4))
    assert smooth is not None
    assert 0.85 < smooth.value < 1
    assert smooth.value > smooth.expected + 10 * smooth.deviation


def test_morans_i_of_random_values_has_its_stated_mean_and_deviation() -> None:
    random = np.random.default_rng(2)
    around = nearest(random.random(60), random.random(60))
    found = [morans_i(random.normal(size=60), around) for _ in range(2000)]
    values = np.array([m.value for m in found if m is not None])
    assert found[0] is not None
    assert values.mean() == pytest.approx(found[0].expected, abs=4 * values.std() / math.sqrt(2000))
    assert values.std() == pytest.approx(found[0].deviation, rel=0.06)


def test_nearest_excludes_the_place_itself() -> None:
    spot = nearest(np.zeros(20), np.zeros(20), 3)
    assert spot.shape == (20, 3)
    assert (spot != np.arange(20)[:, None]).all()
    assert nearest([0, 1, 2], [0, 0, 0], 8).shape == (3, 2)
    assert morans_i([1, 1, 1, 1], nearest(np.arange(4), np.zeros(4), 1)) is None


def city(clients: int = 40) -> Population:
    """Return clients on a line along which features move; even ones have faults in labels and readings."""

    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(k)
        return random.normal(size=(6, 2)) + 4 * k / clients, np.arange(6) % 3

    base = custom_population(client, [6] * clients, outputs=3, feature_shape=(2,))

    def cohort(some: np.ndarray) -> CohortData:
        hit = (some % 2 == 0).astype(float)
        counts = FaultCounts({"flip": hit / 2, "bias": hit / 4}, {"flip": hit, "bias": 3 * hit})
        return replace(base.cohort(some), fault_counts=counts)

    def masks(some: np.ndarray) -> dict[str, list[np.ndarray]]:
        return {
            "flip": [np.arange(6) < (3 if k % 2 == 0 else 0) for k in some],
            "bias": [np.zeros((6, 2), bool) for _ in some],
        }

    def places(some: np.ndarray) -> Places:
        return Places(some.astype(float), np.zeros(len(some)), np.zeros(len(some), np.int64))

    return replace(
        base,
        federation=replace(base.federation, places=places, districts=("Line",)),
        clients=replace(base.clients, cohort=cohort),
        history=replace(base.history, faults=("flip", "bias"), masks=masks),
    )


def test_small_city_has_every_measure() -> None:
    measures, held = measure_clients(city(), seed=0)
    assert measures.estimated_from == dict.fromkeys(("labels", "features", "places", "faults", "noise"), 40)
    assert measures.label_emd == measures.quantity_gini == 0
    assert measures.label_noise == 0.25
    flip = measures.faults["flip"]
    assert (flip.changed, flip.clients, flip.effect) == (0.25, 0.5, 1.0)
    assert (measures.faults["bias"].changed, measures.faults["bias"].effect) == (0.125, 3.0)
    assert measures.feature_shift is not None
    assert measures.feature_shift > 0.2
    # Along the line features move smoothly, and the fault hits every other place.
    shift, fault = measures.spatial["feature_shift"], measures.spatial["fault flip"]
    assert shift.value > shift.expected + 3 * shift.deviation
    assert fault.value < 0.05
    assert set(held.quantities()) == {
        "size", "label_emd", "label_js", "label_hellinger", "feature_shift", "fault flip", "fault bias",
    }  # fmt: skip


def test_sample_estimates_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = measure_clients(city(200), seed=0)
    monkeypatch.setattr("clients.heterogeneity.table.SAMPLE", 100)
    monkeypatch.setattr("clients.heterogeneity.table.FEW", 50)
    part, held = measure_clients(city(200), seed=0)
    assert part.estimated_from == {"labels": 100, "features": 50, "places": 100, "faults": 100, "noise": 50}
    assert np.isfinite(held.feature_shift).sum() == 50  # type: ignore[arg-type]
    assert whole.feature_shift is not None
    assert part.feature_shift == pytest.approx(whole.feature_shift, rel=0.3)
    assert part.clients == 200


def test_label_noise_counts_a_label_once() -> None:
    masks = {"a": [np.array([True, False, False, False])], "b": [np.array([True, True, False, False])]}
    assert label_noise(masks) == 0.5
    assert label_noise({"readings": [np.ones((4, 2), bool)]}) is None


def test_feature_shift_reads_few_clients_at_a_time() -> None:
    made: list[int] = []
    base = city(300)

    def cohort(clients: np.ndarray) -> object:
        made.append(len(clients))
        return base.cohort(clients)

    counted = replace(base, clients=replace(base.clients, cohort=cohort))
    shift = population_shift(counted, np.arange(300), seed=0)
    assert max(made) <= 64
    assert sum(made) == 300
    assert shift.each == pytest.approx(population_shift(base, np.arange(300), seed=0).each)
