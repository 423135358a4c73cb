"""Federated normalisation and selection equal those of pooled data and use no held-out examples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from clients.core.channels import Channel
from clients.core.errors import UserError
from clients.core.examples import Examples
from clients.core.population import DataHistory
from clients.core.population_parts import CentralData, CentralExamples
from clients.federation.feature_statistics import (
    REACH,
    class_histograms,
    client_sums,
    federated_scale,
    mutual_information,
    scale_of,
    statistics_clients,
)
from clients.federation.features import with_features
from clients.federation.options import FeatureOptions
from clients.sources.custom import custom_population

SIZES = [12, 40, 0, 7, 1]
ALL = np.arange(len(SIZES))


def readings(k, n, shape):
    """Return features of client k; each has a place and a width of its own."""
    random = np.random.default_rng(k)
    return (3 + 2 * k) * random.normal(size=(n, *shape)) + 100 * np.arange(shape[-1]) - 20 * k


def federation(shape=(3,), sizes=SIZES, classes=2, dtype=torch.float64):
    """Return a population whose clients hold out half as much as they train on, with central examples of two owners."""

    def client(k):
        return readings(k, sizes[k], shape), np.random.default_rng((k, 1)).integers(0, classes, sizes[k])

    def held(k):
        return readings(k, sizes[k] // 2, shape) + 1e6, np.zeros(sizes[k] // 2, np.int64)

    central = (np.full((4, *shape), 1e6), np.zeros(4, np.int64))
    population = custom_population(
        client,
        sizes,
        outputs=classes,
        feature_shape=shape,
        client_test=held,
        client_test_sizes=[n // 2 for n in sizes],
        validation=central,
        test=central,
        dtype=dtype,
    )
    return with_channels(with_validation(population, owners=np.array([0, 1, 1, 2])), shape[-1])


def with_channels(population, count):
    channels = tuple(Channel(name=f"c{i}") for i in range(count))
    return replace(population, spec=replace(population.spec, channels=channels))


def with_validation(population, **fields):
    central = population.central
    return replace(population, central=replace(central, validation=replace(central.validation, **fields)))


def with_cohort(population, cohort):
    return replace(population, clients=replace(population.clients, cohort=cohort))


def pooled(population, clients=ALL):
    data = population.cohort(clients)
    rows = torch.from_numpy(data.rows)
    return data.features[rows].numpy(), data.targets[rows].numpy()


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3)])
def test_federated_scale_is_the_pooled_mean_and_deviation(shape):
    population = federation(shape)
    features, _ = pooled(population)
    found = federated_scale(population, ALL)
    together = features.reshape(-1, 3)
    np.testing.assert_allclose(found.mean, together.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, together.std(0), rtol=1e-9)
    result = with_features(population, FeatureOptions(normalise="federated"), seed=0)
    np.testing.assert_allclose(pooled(result)[0], (features - together.mean(0)) / together.std(0), atol=1e-9)
    held = result.clients.held_out(np.array([1])).features
    raw = population.clients.held_out(np.array([1])).client(0).features.numpy()
    np.testing.assert_allclose(held, (raw - together.mean(0)) / together.std(0), rtol=1e-9)
    np.testing.assert_allclose(result.test.features, (1e6 - together.mean(0)) / together.std(0) * np.ones((4, *shape)))


@pytest.mark.parametrize("shape", [(3,), (5, 3)])
def test_client_normalises_by_its_own_training_readings(shape):
    population = federation(shape)
    result = with_features(population, FeatureOptions(normalise="client"), seed=0)
    scales = {}
    for k in (0, 1, 3):
        own = population.cohort(np.array([k])).client(0).features.numpy().reshape(-1, 3)
        scales[k] = own.mean(0), own.std(0)
        found = result.cohort(np.array([k])).client(0).features.reshape(-1, 3)
        np.testing.assert_allclose(found, (own - scales[k][0]) / scales[k][1], atol=1e-12)
        held = population.clients.held_out(np.array([k])).client(0).features.numpy()
        found = result.clients.held_out(np.array([k])).client(0).features
        np.testing.assert_allclose(found, (held - scales[k][0]) / scales[k][1], rtol=1e-12)
    whole = federated_scale(population, ALL)
    expected = [scales[0], scales[1], scales[1], (whole.mean, whole.deviation)]  # client 2 has no readings of its own
    for x, (mean, deviation) in zip(result.validation.features, expected, strict=True):
        np.testing.assert_allclose(x, (1e6 - mean) / deviation * np.ones(shape))
    np.testing.assert_allclose(result.test.features[0], (1e6 - whole.mean) / whole.deviation * np.ones(shape))


def test_constant_channel_takes_the_federations_deviation():
    def client(k):
        return np.array([[1.0, 5.0], [1.0 + 2 * k, 5.0]]), np.array([0, 1])

    population = custom_population(client, [2, 2], outputs=2, dtype=torch.float64)
    found = with_features(population, FeatureOptions(normalise="client"), seed=0)
    first = found.cohort(np.array([0])).client(0).features
    assert not first.any(), "its own mean is subtracted"
    second = found.cohort(np.array([1])).client(0).features
    assert second[:, 0].tolist() == [-1.0, 1.0]
    single = federation()  # client 4 has one example
    scale = federated_scale(single, ALL)
    examples = Examples(pooled_tensor(single, 4) + 1.0, torch.zeros(1, dtype=torch.int64))
    moved = with_validation(single, examples=examples, owners=np.array([4]))
    found = with_features(moved, FeatureOptions(normalise="client"), seed=0)
    np.testing.assert_allclose(found.validation.features[0], 1 / scale.deviation, rtol=1e-9)


def pooled_tensor(population, k):
    return population.cohort(np.array([k])).client(0).features


def test_client_sums_do_not_depend_on_other_clients():
    random = np.random.default_rng(0)
    sizes = np.array([3, 0, 17, 1, 90])
    for shape in ((4,), (9, 4), (9, 1), (2, 3, 5)):
        features = torch.from_numpy(random.normal(size=(sizes.sum(), *shape)).astype(np.float32))
        sums, offsets = client_sums(features, sizes), np.concatenate(([0], np.cumsum(sizes)))
        assert sums.total.shape == (5, shape[-1])
        for k in range(5):
            own = features[offsets[k] : offsets[k + 1]]
            alone = client_sums(own, sizes[k : k + 1])
            assert sums.count[k] == alone.count[0] == own[..., 0].numel()
            assert (sums.total[k] == alone.total[0]).all()
            assert (sums.squares[k] == alone.squares[0]).all()
            np.testing.assert_allclose(alone.total[0], own.double().reshape(-1, shape[-1]).sum(0), atol=1e-9)
        assert np.isnan(scale_of(sums).mean[1]).all()


@pytest.mark.parametrize("normalise", ["none", "client", "federated"])
def test_features_of_a_client_do_not_depend_on_other_clients(normalise):
    options = FeatureOptions(normalise=normalise, select="variance", keep=2)
    population = federation((5, 3), dtype=torch.float32)
    together = with_features(population, options, seed=0).cohort(ALL)
    for k in (0, 1, 3, 4):
        alone = with_features(federation((5, 3), dtype=torch.float32), options, seed=0).cohort(np.array([k]))
        assert torch.equal(alone.client(0).features, together.client(k).features)


@pytest.mark.parametrize("shape", [(3,), (6, 3)])
@pytest.mark.parametrize("bins", [2, 7])
def test_mutual_information_equals_scikit_learns(shape, bins):
    random = np.random.default_rng(3)
    labels = random.integers(0, 4, 200)
    scaled = random.normal(size=(200, *shape)) + 0.8 * labels.reshape(-1, *[1] * len(shape)) * np.array([0, 1, 2])
    counts = class_histograms(torch.from_numpy(scaled), torch.from_numpy(labels), bins, 4)
    found = mutual_information(counts)
    edges = np.linspace(-REACH, REACH, bins + 1)[1:-1]
    for c in range(3):
        values = scaled[..., c].reshape(200, -1)
        binned = np.digitize(values, edges)
        expected = mutual_info_score(np.repeat(labels, values.shape[1]), binned.ravel())
        assert found[c] == pytest.approx(expected, abs=1e-12)
    assert found[0] < found[1] < found[2]


def informative(shape, places=(1, 4), sizes=(60,) * 8, shifts=False):
    """Return a population of 6 channels, of which `places` depend on the class; shifts move each client's channels."""

    def client(k):
        random = np.random.default_rng(k)
        labels = random.integers(0, 3, sizes[k])
        x = random.normal(size=(sizes[k], *shape)) * np.array([9.0, 1.0, 3.0, 2.0, 0.5, 5.0])
        for c in places:
            x[..., c] += 2 * labels.reshape(-1, *[1] * (len(shape) - 1)) * x[..., c].std()
        return x + (100 * random.normal(size=6) if shifts else 0.0), labels

    return custom_population(client, sizes, outputs=3, feature_shape=shape, validation=client(0), test=client(1))


@pytest.mark.parametrize("shape", [(6,), (4, 6)])
def test_selection_finds_the_informative_channels(shape):
    population = informative(shape)
    population = with_channels(population, 6)
    found = with_features(population, FeatureOptions(select="mutual_information", keep=2), seed=0)
    assert found.feature_shape == (*shape[:-1], 2)
    assert [c.name for c in found.spec.channels] == ["c1", "c4"]
    assert found.federation.record["features"] == "c1, c4"
    before, after = (p.cohort(np.array([3, 1])) for p in (population, found))
    for j in range(2):
        assert torch.equal(after.client(j).features, before.client(j).features[..., [1, 4]])
    assert torch.equal(found.validation.features, population.validation.features[..., [1, 4]])
    assert torch.equal(found.test.features, population.test.features[..., [1, 4]])
    widest = with_features(population, FeatureOptions(select="variance", keep=2), seed=0)
    assert [c.name for c in widest.spec.channels] == ["c0", "c5"]


def test_selection_finds_channels_that_are_informative_once_normalised():
    """A shift of each client's channels hides the class in common bins, but not in normalised channels."""
    population = informative((6,), shifts=True)
    options = FeatureOptions(normalise="client", select="mutual_information", keep=2)
    assert with_features(population, options, seed=0).federation.record["features"] == "1, 4"


def test_features_do_not_depend_on_held_out_examples():
    population = federation()
    nothing = CentralExamples(Examples(torch.full((4, 3), torch.nan), population.test.targets))
    hidden = replace(
        population,
        clients=replace(population.clients, held_out=lambda clients: pytest.fail("held-out examples were made")),
        central=CentralData(validation=nothing, test=nothing),
    )
    for normalise in ("none", "client", "federated"):
        options = FeatureOptions(normalise=normalise, select="mutual_information", keep=2)
        clean, other = (with_features(p, options, seed=0) for p in (population, hidden))
        assert clean.federation.record == other.federation.record
        np.testing.assert_array_equal(pooled(clean)[0], pooled(other)[0])


def test_statistics_read_a_few_of_a_million_clients():
    calls = []

    def client(k):
        calls.append(k)
        return np.random.default_rng(k).normal(size=(2, 4)) + k, np.array([0, 1])

    population = custom_population(client, np.full(1_000_000, 2), outputs=2, feature_shape=(4,))
    options = FeatureOptions(normalise="client", select="mutual_information", keep=2, statistics_clients=30)
    found = with_features(population, options, seed=0)
    assert 30 <= len(set(calls)) <= 32
    assert found.federation.record["statistics_clients"] == 30
    calls.clear()
    mean = found.cohort(np.array([999_999, 5])).features.mean(0)
    assert set(calls) <= {999_999, 5}
    assert mean.abs().max() < 1e-5
    other = set(statistics_clients(population, 30, seed=1).tolist())
    assert other != set(statistics_clients(population, 30, seed=0).tolist())


def test_statistics_are_fixed_before_the_first_round():
    population = federation()
    data = population.cohort
    warmer = with_cohort(population, lambda clients: replace_features(data(clients), 7.0))
    moving = replace(population, history=DataHistory(schedule=lambda r: population if r < 3 else warmer))
    for normalise in ("client", "federated"):
        found = with_features(moving, FeatureOptions(normalise=normalise, select="variance", keep=3), seed=0)
        assert found.during(1) is found.during(2), "a population is made once"
        scale = federated_scale(population, ALL)
        before, after = (pooled(found.during(r), np.array([1]))[0] for r in (2, 3))
        own = pooled(population, np.array([1]))[0]
        deviation = own.std(0) if normalise == "client" else scale.deviation
        np.testing.assert_allclose(after - before, 7 / deviation * np.ones((40, 1)), rtol=1e-6)


def replace_features(data, more):
    return replace(data, features=data.features + more)


def test_masks_have_the_selected_channels():
    population = federation()
    mask = np.arange(36).reshape(12, 3) % 3 == 2
    masked = replace(population, history=DataHistory(masks=lambda _: {"spikes": [mask], "labels": [mask[:, 0]]}))
    found = with_features(masked, FeatureOptions(select="variance", keep=2), seed=0)
    kept = [int(name[1:]) for name in found.federation.record["features"].split(", ")]
    made = found.masks(np.array([0]))
    np.testing.assert_array_equal(made["spikes"][0], mask[:, kept])
    assert made["labels"][0].shape == (12,)


def test_features_without_options_return_the_same_population():
    population = federation()
    assert with_features(population, FeatureOptions(), seed=0) is population


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"select": "variance"}, "keep"),
        ({"keep": 2}, "keep"),
        ({"select": "variance", "keep": 0}, "keep"),
        ({"bins": 1}, "bins"),
        ({"statistics_clients": 0}, "statistics_clients"),
    ],
)
def test_contradictory_feature_options_are_refused(options, field):
    with pytest.raises(UserError) as error:
        FeatureOptions(**options)
    assert error.value.field == field


def test_unsuitable_data_are_refused(population_of):
    with pytest.raises(UserError, match="at most the 3 channels, got 4"):
        with_features(federation(), FeatureOptions(select="variance", keep=4), seed=0)
    regression = population_of([4], (3,), 1, "regression")
    with pytest.raises(UserError, match="mutual_information needs class labels"):
        with_features(regression, FeatureOptions(select="mutual_information", keep=1), seed=0)
    with pytest.raises(UserError, match="objective"):
        with_features(population_of([4], (3,), 2, "objective"), FeatureOptions(normalise="client"), seed=0)
    tokens = custom_population(lambda k: (np.ones((2, 3), np.int64), np.zeros(2, np.int64)), [2], outputs=1)
    data = tokens.cohort
    tokens = with_cohort(tokens, lambda clients: replace(data(clients), features=data(clients).features.long()))
    with pytest.raises(UserError, match="needs real numbers"):
        with_features(tokens, FeatureOptions(normalise="client"), seed=0)
