"""Digits, image files, synthetic, quadratic and custom data."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from needs import shared_data

from clients.core.errors import DataError, PartitionError, UserError
from clients.core.examples import FaultCounts
from clients.core.on_demand import ExampleLayout, Made, on_demand_cohort
from clients.core.population import Population
from clients.federation.data_kinds import DATA, build_population
from clients.heterogeneity.measures import partition_measures
from clients.partition.options import DirichletOptions, IidOptions, NaturalOptions, QuantityOptions
from clients.sources.custom import custom_population
from clients.sources.options import DigitsOptions, ImagesOptions, QuadraticOptions, SyntheticOptions
from clients.sources.quadratic import quadratics
from clients.sources.synthetic import _devices, device_sizes


def everyone(population: Population) -> np.ndarray:
    return np.arange(population.num_clients)


# Digits and pools


def test_digits_have_their_sizes_and_scale() -> None:
    p = build_population(DigitsOptions(), IidOptions(clients=10), seed=0)
    assert p.num_examples == 1437
    assert p.validation is not None
    assert p.test is not None
    assert (len(p.validation), len(p.test), p.outputs, p.feature_shape) == (180, 180, 10, (64,))
    data = p.cohort(everyone(p))
    assert data.features.dtype == torch.float32
    assert (data.features.min(), data.features.max()) == (0, 1)
    assert data.targets.dtype == torch.int64


def test_digits_equal_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    options = DigitsOptions(validation_fraction=0.0, test_fraction=0.0)
    one = build_population(options, IidOptions(clients=1), seed=0).cohort(np.array([0])).client(0)
    np.testing.assert_allclose(one.features.numpy() * 16, x)
    np.testing.assert_array_equal(one.targets.numpy(), y)
    images = build_population(DigitsOptions(flat=False), IidOptions(clients=1), seed=0)
    assert images.feature_shape == (1, 8, 8)


def test_parts_of_a_pool_are_disjoint_and_seeded() -> None:
    def parts(seed: int, validation: float = 0.2) -> list[list[bytes]]:
        options = DigitsOptions(validation_fraction=validation)
        p = build_population(options, IidOptions(clients=4), seed=seed, dtype=torch.float64)
        assert p.validation is not None
        assert p.test is not None
        data = p.cohort(everyone(p))
        return [[row.numpy().tobytes() for row in f] for f in (data.features, p.validation.features, p.test.features)]

    train, validation, test = parts(0)
    assert len({*train, *validation, *test}) == 1797  # all digits differ, so a digit in two parts would be found
    assert parts(0) == [train, validation, test]
    assert parts(1)[2] != test
    assert parts(0, validation=0.1)[2] == test


def test_clients_hold_out_their_own_examples() -> None:
    options = DigitsOptions(client_test_fraction=0.25)
    whole = build_population(DigitsOptions(), QuantityOptions(clients=30), seed=0)
    p = build_population(options, QuantityOptions(clients=30), seed=0)
    assert p.clients.held_out is not None
    held = p.clients.held_out(everyone(p))
    np.testing.assert_array_equal(held.sizes, whole.sizes // 4)
    np.testing.assert_array_equal(p.sizes + held.sizes, whole.sizes)
    train = p.cohort(everyone(p))
    for k in range(30):
        mine = [*train.rows[train.offsets[k] : train.offsets[k + 1]], *held.rows[held.offsets[k] : held.offsets[k + 1]]]
        before = whole.cohort(np.array([k])).rows
        assert sorted(mine) == before.tolist()


def test_label_counts_count_labels() -> None:
    p = build_population(DigitsOptions(), DirichletOptions(clients=20, concentration=0.3), seed=0)
    assert p.clients.label_counts is not None
    clients = np.array([7, 2, 7])
    data = p.cohort(clients)
    expected = [np.bincount(data.client(j).targets, minlength=10) for j in range(3)]
    np.testing.assert_array_equal(p.clients.label_counts(clients), expected)


def test_partition_is_required_for_pools_alone() -> None:
    with pytest.raises(PartitionError, match=r"digits.*come without clients.*dirichlet"):
        build_population(DigitsOptions(), None, seed=0)
    with pytest.raises(PartitionError, match="bring their own clients"):
        build_population(SyntheticOptions(), IidOptions(clients=3), seed=0)
    assert build_population(SyntheticOptions(), NaturalOptions(key="client"), seed=0).num_clients == 30


def test_every_kind_is_named_after_itself() -> None:
    for kind, row in DATA.items():
        assert row.options.__dataclass_fields__["kind"].default == kind


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_fractions_out_of_range_are_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="test_fraction: must be at least 0 and below 1"):
        DigitsOptions(test_fraction=fraction)


# Image files


def save(path: Path, **arrays: Any) -> ImagesOptions:
    np.savez(path, **arrays)
    return ImagesOptions(path=str(path))


def pixels(n: int = 40, side: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side), dtype=np.uint8)


def test_npz_bytes_are_scaled_and_arrays_become_keys(tmp_path: Path) -> None:
    y = np.arange(40) % 3
    options = save(tmp_path / "a.npz", images=pixels(), labels=y, house=np.repeat(["x", "y"], 20), size=np.arange(7))
    p = build_population(options, NaturalOptions(key="house"), seed=0)
    assert [p.federation.client_name(k) for k in range(2)] == ["x", "y"]
    assert p.feature_shape == (16,)
    assert p.cohort(everyone(p)).features.max() <= 1
    with pytest.raises(PartitionError, match=r"'size' is not a key of these data.*house, labels"):
        build_population(options, NaturalOptions(key="size"), seed=0)


def test_npz_examples_take_the_requested_shape(tmp_path: Path) -> None:
    y = np.arange(40) % 3
    flat = pixels().reshape(40, 16)
    for name, x, more, shape in [
        ("square", flat, {}, (1, 4, 4)),
        ("bytes", pixels(), {}, (1, 4, 4)),
        ("given shape", flat, {"shape": (2, 8)}, (2, 8)),
        ("channels last", np.stack([pixels(side=5)] * 3, -1), {}, (3, 5, 5)),
        ("windows", np.zeros((40, 9, 5), np.float32), {}, (9, 5)),
    ]:
        np.savez(tmp_path / "a.npz", x=x, y=y)
        options = ImagesOptions(path=str(tmp_path / "a.npz"), flat=False, **more)
        assert build_population(options, IidOptions(clients=2), seed=0).feature_shape == shape, name


def test_npz_test_set_becomes_the_central_test(tmp_path: Path) -> None:
    y = np.arange(40) % 3
    options = save(tmp_path / "a.npz", x_train=pixels(), y_train=y, x_test=pixels(10), y_test=np.full(10, 4))
    p = build_population(options, IidOptions(clients=2), seed=0)
    assert p.test is not None
    assert (len(p.test), p.num_examples, p.outputs) == (10, 36, 5)
    split = ImagesOptions(path=options.path, test_fraction=0.5)
    p = build_population(split, IidOptions(clients=2), seed=0)
    assert p.test is not None
    assert len(p.test) == 20


def idx(path: Path, array: np.ndarray) -> None:
    raw = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_folder_is_read_with_its_test_set(tmp_path: Path, end: str) -> None:
    labels = (np.arange(40) % 5).astype(np.uint8)
    idx(tmp_path / f"train-images-idx3-ubyte{end}", pixels())
    idx(tmp_path / f"train-labels-idx1-ubyte{end}", labels)
    idx(tmp_path / f"t10k-images-idx3-ubyte{end}", pixels(8))
    idx(tmp_path / f"t10k-labels-idx1-ubyte{end}", labels[:8])
    options = ImagesOptions(path=str(tmp_path), flat=False, validation_fraction=0.0)
    p = build_population(options, IidOptions(clients=1), seed=0)
    assert p.test is not None
    assert (p.feature_shape, len(p.test), p.outputs) == ((1, 4, 4), 8, 5)
    assert p.federation.notices == ("features are bytes and were divided by 255",)
    one = p.cohort(np.array([0])).client(0)
    np.testing.assert_allclose(one.features[:, 0].numpy() * 255, pixels(), rtol=1e-6)
    np.testing.assert_array_equal(one.targets.numpy(), labels)


def test_npz_says_what_it_converted_and_moves_channels(tmp_path: Path) -> None:
    x = np.stack([pixels(side=5)] * 3, -1)
    whole, one_hot = (np.arange(40) % 3).astype(float), np.eye(3)[np.arange(40) % 3]
    labels = {}
    for y, more in (
        (whole, ()),
        (one_hot, ("labels are one-hot: the place of the 1 is the class",)),
        (whole[:, None], ()),
    ):
        np.savez(tmp_path / "a.npz", x=x, y=y, site=np.arange(40) % 2)
        options = ImagesOptions(path=str(tmp_path / "a.npz"), flat=False, layout="HWC", validation_fraction=0.0)
        p = build_population(options, NaturalOptions(key="site"), seed=0)
        assert p.federation.notices == ("features are bytes and were divided by 255", *more)
        labels[str(y.shape)] = p.cohort(everyone(p)).targets.tolist()
        features = p.cohort(everyone(p)).features
        assert features.shape[1:] == (3, 5, 5)
        assert torch.equal(features[:, 0], features[:, 2])
    assert len({str(found) for found in labels.values()}) == 1
    flat = build_population(ImagesOptions(path=options.path, layout="HWC"), NaturalOptions(key="site"), seed=0)
    assert flat.feature_shape == (75,)
    np.savez(tmp_path / "b.npz", x=pixels(), y=np.arange(40) % 3 * 2)
    p = build_population(ImagesOptions(path=str(tmp_path / "b.npz")), IidOptions(clients=2), seed=0)
    assert p.federation.notices[1] == "labels have 3 different values and make 5 outputs; classes 1, 3 have no example"


def test_broken_files_are_named(tmp_path: Path) -> None:
    def refuse(path: Path, says: str, **more: Any) -> None:
        with pytest.raises(DataError, match=says):
            build_population(ImagesOptions(path=str(path), **more), IidOptions(clients=2), seed=0)

    refuse(tmp_path / "none.npz", "does not exist; .* holds nothing")
    (tmp_path / "text.npz").write_text("not an archive")
    refuse(tmp_path / "text.npz", "cannot be read as .npz")
    idx(tmp_path / "train-images-idx3-ubyte", pixels())
    refuse(tmp_path / "train-images-idx3-ubyte", "needs its labels beside it, in train-labels-idx1-ubyte")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x28" + bytes(39))
    refuse(tmp_path / "train-images-idx3-ubyte", r"must hold \(40,\) numbers by its header and holds 39 bytes")
    save(tmp_path / "a.npz", pictures=pixels(), y=np.arange(40) % 3)
    refuse(tmp_path / "a.npz", r"no array with a usual name .*it holds pictures \(40, 4, 4\)")
    refuse(tmp_path / "a.npz", "no array 'picture'", features="picture")
    save(tmp_path / "b.npz", x=np.ones((40, 6)), y=np.arange(40) % 3)
    refuse(tmp_path / "b.npz", "6 numbers, no square", flat=False)
    refuse(tmp_path / "b.npz", r"\[7\] does not fit", shape=(7,))


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 0.0), np.zeros(4, int), "row 2, column 1 is nan"),
        (np.where(np.arange(12).reshape(4, 3) == 7, np.inf, 0.0), np.zeros(4, int), "row 2, column 1 is inf"),
        (np.zeros((4, 3)), np.array([0, 1, -1, 0]), "labels must be at least 0, and row 2 is -1"),
        (np.zeros((4, 3)), np.full(4, 0.5), "labels must be integers, and row 0 is 0.5"),
        (np.zeros((4, 3)), np.zeros(5, int), "4 rows of features and 5 targets"),
        (np.full((4, 3), "a"), np.zeros(4, int), "must be real numbers"),
    ],
)
def test_unusable_examples_are_named(tmp_path: Path, x: np.ndarray, y: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        build_population(save(tmp_path / "a.npz", x=x, y=y), IidOptions(clients=2), seed=0)


def test_mnist_is_read() -> None:
    options = ImagesOptions(path=str(shared_data("mnist/mnist_test10k.npz")), flat=False)
    p = build_population(options, NaturalOptions(key="pfllib_client"), seed=0)
    assert (p.num_clients, p.num_examples, p.feature_shape, p.outputs) == (20, 8000, (1, 28, 28), 10)


def test_activity_partitions_by_subject() -> None:
    options = ImagesOptions(path=str(shared_data("activity_uci_har/uci_har_windows_25hz_int16.npz")), flat=False)
    p = build_population(options, NaturalOptions(key="subject"), seed=0)
    assert (p.num_clients, p.feature_shape, p.outputs) == (30, (9, 64), 6)
    assert p.cohort(np.array([3])).features.abs().max() == pytest.approx(29872 * 0.0002, rel=1e-5)


# Synthetic


def synthetic(**options: Any) -> Population:
    return build_population(SyntheticOptions(**options), None, seed=3, dtype=torch.float64)


def test_synthetic_sizes_follow_the_papers_law() -> None:
    n = device_sizes(SyntheticOptions(clients=40_000), 1)
    assert n.min() >= 50
    z = (np.log(n[n > 60] - 50 + 0.5) - 4) / 2  # away from the lower end, where the floor matters
    expected = np.sort(np.random.default_rng(0).standard_normal(400_000))
    expected = expected[expected > (np.log(10.5) - 4) / 2]
    assert z.mean() == pytest.approx(expected.mean(), abs=0.03)
    assert z.std() == pytest.approx(expected.std(), abs=0.03)


def test_synthetic_splits_nine_to_one() -> None:
    p = synthetic(clients=50)
    n = device_sizes(SyntheticOptions(clients=50), 3)
    np.testing.assert_array_equal(p.sizes, [int(0.9 * k) for k in n])
    assert p.clients.held_out is not None
    assert p.test is not None
    assert p.validation is not None
    held = p.clients.held_out(everyone(p)).sizes
    assert len(p.test) == held.sum()
    assert len(p.test) + len(p.validation) == (n - p.sizes).sum()
    assert (held - (n - p.sizes - held) >= 0).all()
    assert (held - (n - p.sizes - held) <= 1).all()


@pytest.mark.parametrize("examples", [1, 9, 10, 200])
def test_synthetic_sizes_are_training_sizes(examples: int) -> None:
    assert set(synthetic(clients=4, sizes=examples).sizes) == {examples}


def test_synthetic_inputs_have_the_papers_law() -> None:
    """Var(x_j | client) = j^-1.2; v_k has mean B_k ~ N(0, beta) with beta a standard deviation."""
    p = synthetic(clients=400, sizes=100, alpha=0.0, beta=3.0)
    data = p.cohort(everyone(p))
    x = data.features[torch.from_numpy(data.rows)].numpy().reshape(400, 100, 60)
    within = x.var(axis=1, ddof=1).mean(axis=0)
    np.testing.assert_allclose(within, np.arange(1, 61) ** -1.2, rtol=0.05)
    v = x.mean(axis=1)
    assert v.mean(axis=1).std() == pytest.approx(3.0, rel=0.12)  # sd of B_k (and of a mean of 60 about it)
    assert (v - v.mean(axis=1, keepdims=True)).std() == pytest.approx(1.0, rel=0.03)


def test_synthetic_models_have_the_papers_law() -> None:
    clients = np.arange(2000)
    _, w, b = _devices(SyntheticOptions(clients=2000, alpha=3.0, beta=0.0), 5, clients)
    model = np.concatenate((w.reshape(2000, -1), b), axis=1)
    assert model.mean(axis=1).std() == pytest.approx(3.0, rel=0.06)  # u_k, shared by W and b
    assert model.std(axis=1).mean() == pytest.approx(1.0, rel=0.01)
    assert np.corrcoef(w.mean(axis=(1, 2)), b.mean(axis=1))[0, 1] > 0.9


def test_synthetic_labels_are_the_argmax() -> None:
    p = synthetic(clients=6, alpha=0.5, beta=0.5)
    _, w, b = _devices(SyntheticOptions(clients=6, alpha=0.5, beta=0.5), 3, np.arange(6))
    for k in range(6):
        one = p.cohort(np.array([k])).client(0)
        np.testing.assert_array_equal(one.targets.numpy(), (one.features.numpy() @ w[k] + b[k]).argmax(axis=1))


def test_synthetic_iid_has_one_model_for_all_clients() -> None:
    p = synthetic(clients=40, iid=True)
    _, w, b = _devices(SyntheticOptions(clients=40, iid=True), 3, np.arange(1))
    data = p.cohort(everyone(p))
    x, y = data.features.numpy(), data.targets.numpy()
    np.testing.assert_array_equal(y, (x @ w[0] + b[0]).argmax(axis=1))
    assert abs(x[:, 0].mean()) < 4 / np.sqrt(len(x))
    with pytest.raises(UserError, match="alpha: has no effect"):
        SyntheticOptions(iid=True, alpha=1.0)


def test_synthetic_heterogeneity_grows_with_alpha_and_beta() -> None:
    emds = [
        partition_measures(synthetic(clients=100, sizes=100, **o), 0).label_emd
        for o in ({"iid": True}, {}, {"alpha": 1.0, "beta": 1.0})
    ]
    assert emds[0] is not None
    assert emds[1] is not None
    assert emds[2] is not None
    assert emds[0] < 0.5 * emds[1]
    assert emds[1] < emds[2]


def test_added_client_changes_no_other_client() -> None:
    few, many = synthetic(clients=5), synthetic(clients=9)
    np.testing.assert_array_equal(few.sizes, many.sizes[:5])
    a, b = few.cohort(np.array([4])).client(0), many.cohort(np.array([8, 4])).client(1)
    assert torch.equal(a.features, b.features)
    assert torch.equal(a.targets, b.targets)


def test_million_clients_need_little_memory() -> None:
    tracemalloc.start()
    p = build_population(SyntheticOptions(clients=1_000_000, sizes=20), None, seed=0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert p.num_clients == 1_000_000
    assert held < 16 * 1_000_000 + 2**20
    data = p.cohort(np.array([999_999, 0]))
    assert data.sizes.tolist() == [20, 20]
    assert p.federation.record["central_examples_from_clients"] == 1000


# Cohorts made on demand


def on_demand(sizes: list[int], **limits: int) -> tuple[Any, list[int]]:
    made: list[int] = []

    def make(clients: np.ndarray) -> Made:
        made.extend(clients.tolist())
        owner = torch.from_numpy(np.repeat(clients, np.asarray(sizes)[clients]))
        counts = FaultCounts({"noise": clients / 8.0}, {"noise": clients * 2.0})
        return Made(owner[:, None].double(), owner, counts)

    layout = ExampleLayout((1,), (), torch.float64, torch.int64)
    return on_demand_cohort(make, np.asarray(sizes, np.int32), layout, faults=("noise",), **limits), made


@pytest.mark.parametrize("limits", [{}, {"resident_bytes": 0}, {"resident_bytes": 0, "cache_bytes": 0}])
def test_on_demand_cohort_holds_the_right_clients_and_their_fault_counts(limits: dict[str, int]) -> None:
    sizes = [3, 0, 5, 2, 1, 4]
    cohort, _ = on_demand(sizes, **limits)
    for clients in ([2], [0, 1, 2], [5, 0], [2, 3, 5, 4], [1], [3, 3, 0], []):
        data = cohort(np.asarray(clients, np.int64))
        assert data.sizes.tolist() == [sizes[c] for c in clients]
        for j, c in enumerate(clients):
            assert data.client(j).targets.tolist() == [c] * sizes[c]
            assert data.client(j).features[:, 0].tolist() == [c] * sizes[c]
        assert data.fault_counts.changed["noise"].tolist() == [c / 8.0 for c in clients]
        assert data.fault_counts.effect["noise"].tolist() == [c * 2.0 for c in clients]


def test_resident_clients_are_made_once() -> None:
    cohort, made = on_demand([3, 1, 2])
    for clients in ([0, 2], [2, 1], [0, 1, 2]):
        cohort(np.asarray(clients))
    assert made == [0, 2, 1]


def test_recent_clients_are_kept_and_old_ones_are_dropped() -> None:
    cohort, made = on_demand([4] * 10, resident_bytes=0, cache_bytes=2 * 4 * 16)  # room for two clients
    for clients in ([0], [1], [0], [2], [0], [1]):
        cohort(np.asarray(clients))
    assert made == [0, 1, 2, 1]  # 2 replaced 1, the least recent


# Quadratic


def quadratic(**options: Any) -> Population:
    return build_population(QuadraticOptions(**options), None, seed=0, dtype=torch.float64)


def objective(population: Population, client: int, w: np.ndarray) -> float:
    """Mean of (w - w*)' H (w - w*) / 2 over a client's examples, from the documented layout [H, w*]."""
    x = population.cohort(np.array([client])).client(0).features.numpy()
    d = population.outputs
    return float(np.mean([(w - r[d * d :]) @ r[: d * d].reshape(d, d) @ (w - r[d * d :]) / 2 for r in x]))


def test_two_client_quadratic_has_its_optimum() -> None:
    """THEORY.md section 2: a = (1, 4), b = (-1, 3), optimum 2.2."""
    p = quadratic(curvatures=(1.0, 4.0), centres=(-1.0, 3.0))
    assert p.objective is not None
    assert p.objective.optimum.tolist() == pytest.approx([2.2])
    assert p.objective.optimal_value == pytest.approx((3.2**2 + 4 * 0.8**2) / 4)
    assert objective(p, 1, np.array([1.0])) == pytest.approx(8.0)
    assert (p.task, p.outputs, p.feature_shape) == ("objective", 1, (2,))


@pytest.mark.parametrize(
    "options",
    [
        {"clients": 4, "dimension": 3},
        {"clients": 3, "dimension": 2, "weights": (1, 5, 2)},
        {"clients": 3, "dimension": 2, "weights": (4, 5, 2), "noise": 0.7},
        {"curvatures": (2.0, (1.0, 3.0), ((2.0, 0.5), (0.5, 1.0))), "centres": (1.0, (0.0, 2.0), (3.0, -1.0))},
    ],
)
def test_optimum_is_the_weighted_minimiser(options: dict[str, Any]) -> None:
    p = quadratic(**options)
    weight = p.sizes / p.sizes.sum()

    def mean(w: np.ndarray) -> float:
        return sum(weight[k] * objective(p, k, w) for k in range(p.num_clients))

    assert p.objective is not None
    best = p.objective.optimum.numpy()
    assert mean(best) == pytest.approx(p.objective.optimal_value, rel=1e-12)
    for step in np.vstack((np.eye(p.outputs), -np.eye(p.outputs))) * 1e-3:
        assert mean(best + step) > p.objective.optimal_value


def test_drawn_curvatures_keep_their_condition() -> None:
    p = quadratic(clients=50, dimension=3, condition=20.0)
    for k in range(50):
        h = p.cohort(np.array([k])).client(0).features[0, :9].reshape(3, 3)
        assert torch.equal(h, h.T)
        values = torch.linalg.eigvalsh(h)
        assert values[0] >= 1 / 20 - 1e-12
        assert values[-1] <= 1 + 1e-12


def test_noise_is_the_deviation_of_gradients() -> None:
    p = quadratic(curvatures=(((2.0, 0.5), (0.5, 1.0)),), centres=((3.0, -1.0),), weights=(50,), noise=0.7)
    x = p.cohort(np.array([0])).client(0).features.numpy()
    w = np.array([0.3, 0.4])
    gradients = np.stack([r[:4].reshape(2, 2) @ (w - r[4:]) for r in x])
    np.testing.assert_allclose(gradients.mean(axis=0), np.array([[2.0, 0.5], [0.5, 1.0]]) @ (w - [3, -1]), rtol=1e-10)
    np.testing.assert_allclose(gradients.std(axis=0), 0.7, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"curvatures": (1.0,), "centres": ()}, "centres: must be one a curvature"),
        ({"curvatures": (1.0,), "centres": (1.0,), "clients": 4}, "clients: is 4"),
        ({"noise": 0.1}, "at least two examples a client"),
        ({"clients": 2, "weights": (1,)}, "weights: must be one a client"),
        ({"clients": 2, "weights": (0, 0)}, "must not all be 0"),
        ({"condition": 0.5}, "condition: must be a finite number >= 1"),
    ],
)
def test_wrong_quadratic_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        QuadraticOptions(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"curvatures": ((1.0, 2.0), 1.0), "centres": ((0.0,), 1.0)}, "must have one dimension"),
        ({"curvatures": (((1.0, 2.0), (0.0, 1.0)),), "centres": ((0.0, 1.0),)}, "must be symmetric, client 0"),
        (
            {"curvatures": (1.0, ((1.0, 0.5), (0.25, 1.0))), "centres": (0.0, 0.0)},
            r"client 1's has 0.5 in row 1, column 2 and 0.25 in row 2, column 1",
        ),
        ({"curvatures": (((1.0, 1.0), (1.0, 1.0)),), "centres": (0.0,)}, "positive definite"),
        ({"curvatures": (-1.0,), "centres": (0.0,)}, "positive definite"),
    ],
)
def test_wrong_quadratics_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        quadratic(**options)


MATRICES = (((2.0, 0.5), (0.5, 1.0)), (1.0, 3.0), 1.0)
LINEAR = ((0.1, 0.2), 0.0, 1.0)
SHARES = (0.2, 0.5, 0.3)


def test_linear_terms_and_real_weights_have_the_exact_optimum() -> None:
    p = quadratic(curvatures=MATRICES, linear=LINEAR, weights=SHARES)
    h = np.array([[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 3.0]], np.eye(2)])
    b = np.array([[0.1, 0.2], [0.0, 0.0], [1.0, 1.0]])
    mean, pull = np.tensordot(SHARES, h, 1), SHARES @ b
    optimum = -np.linalg.solve(mean, pull)
    assert p.objective is not None
    np.testing.assert_allclose(p.objective.optimum, optimum, rtol=1e-14)
    assert p.objective.optimal_value == pytest.approx(optimum @ mean @ optimum / 2 + pull @ optimum, rel=1e-14)
    assert p.sizes.tolist() == [1, 1, 1]
    assert p.federation.shares is not None
    np.testing.assert_allclose(p.federation.shares, SHARES, rtol=1e-15)


def test_whole_weights_are_numbers_of_examples() -> None:
    counted = quadratic(curvatures=(1.0, 4.0), centres=(-1.0, 3.0), weights=(1, 3))
    real = quadratic(curvatures=(1.0, 4.0), centres=(-1.0, 3.0), weights=(0.25, 0.75))
    assert (counted.sizes.tolist(), counted.federation.shares) == ([1, 3], None)
    assert counted.objective is not None
    assert real.objective is not None
    np.testing.assert_allclose(counted.objective.optimum, real.objective.optimum, rtol=1e-14)
    assert counted.objective.optimal_value == pytest.approx(real.objective.optimal_value, rel=1e-14)


def test_client_of_weight_zero_has_no_examples() -> None:
    assert quadratic(curvatures=(1.0, 4.0), centres=(-1.0, 3.0), weights=(0.0, 0.5)).sizes.tolist() == [0, 1]


@pytest.mark.parametrize(("apart", "says"), [(3e-16, ""), (4e-13, "client 0's matrix is asymmetric by 2e-13")])
def test_slightly_asymmetric_matrices_are_made_symmetric(apart: float, says: str) -> None:
    p = quadratic(curvatures=(((2.0, 0.5 + apart), (0.5, 1.0)),), centres=(1.0,))
    found = p.cohort(np.array([0])).client(0).features[0, :4].reshape(2, 2)
    assert torch.equal(found, found.T)
    assert found[0, 1].item() == pytest.approx(0.5 + apart / 2, rel=1e-15)
    assert [says in notice for notice in p.federation.notices] == ([True] if says else [])


def test_quadratics_from_arrays_equal_those_from_options() -> None:
    matrices = np.array([[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 3.0]]])
    centres = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    ours = quadratics(matrices, centres, linear=[1.0, [0.0, 2.0]], weights=np.array([1, 2]))
    theirs = quadratic(
        curvatures=((((2.0, 0.5), (0.5, 1.0))), (1.0, 3.0)), centres=((1.0, 2.0), (3.0, 4.0)),
        linear=(1.0, (0.0, 2.0)), weights=(1, 2),
    )  # fmt: skip
    assert torch.equal(ours.cohort(everyone(ours)).features, theirs.cohort(everyone(theirs)).features)
    assert ours.objective is not None
    assert theirs.objective is not None
    assert torch.equal(ours.objective.optimum, theirs.objective.optimum)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"curvatures": 3.0}, "curvatures: must have one entry a client, got 3.0"),
        ({"curvatures": []}, "curvatures: must have one entry a client, got none"),
        ({"curvatures": [1.0, "a"]}, "client 1's is not"),
        ({"curvatures": [[1.0, float("nan")]]}, "curvatures: must be finite, client 0"),
        ({"curvatures": [1.0, 2.0], "centres": [1.0]}, "centres: must be one a curvature, got 1 for 2"),
        ({"curvatures": [1.0, 2.0], "linear": [1.0]}, "linear: must be one a curvature, got 1 for 2"),
        ({"curvatures": [1.0, 2.0], "weights": [0.5, -0.5]}, "weights: must be numbers of examples or p_k"),
        ({"curvatures": [1.0, 2.0], "weights": [0.5, 1.5], "noise": 0.1}, "at least two examples"),
    ],
)
def test_wrong_arrays_of_quadratics_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        quadratics(**arguments)


# Custom


def test_custom_clients_are_read_on_demand() -> None:
    read: list[int] = []

    def client(k: int) -> tuple[np.ndarray, torch.Tensor]:
        read.append(k)
        return np.full((k, 3), k), torch.full((k,), k % 2)

    p = custom_population(client, [0, 1, 2, 3], outputs=2, names=list("abcd"), feature_shape=(3,))
    assert read == []
    data = p.cohort(np.array([3, 0, 1]))
    assert sorted(read) == [1, 3]
    assert data.sizes.tolist() == [3, 0, 1]
    assert data.client(0).features.tolist() == [[3.0] * 3] * 3
    assert data.client(2).targets.tolist() == [1]
    assert p.federation.client_name(2) == "c"


def test_custom_regression_holds_out_examples() -> None:
    p = custom_population(
        lambda k: (np.ones((2, 1)), np.array([1.0, 2.0])),
        [2, 2],
        outputs=1,
        task="regression",
        client_test=lambda k: (np.zeros((1, 1)), np.array([[5.0]])),
        client_test_sizes=[1, 0],
        test=(np.zeros((3, 1)), np.zeros((3, 1))),
        dtype=torch.float64,
    )
    assert p.cohort(np.array([0])).client(0).targets.tolist() == [[1.0], [2.0]]
    assert p.clients.held_out is not None
    assert p.clients.held_out(np.array([1, 0])).client(1).targets.tolist() == [[5.0]]
    assert p.test is not None
    assert len(p.test) == 3


GOOD = (np.zeros((2, 3)), np.array([0, 1]))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ((np.array([[0, 0, 0], [0, np.nan, 0]]), GOOD[1]), "client 1: features must be finite, and row 1, column 1"),
        ((GOOD[0], np.array([0, 2])), r"client 1: labels must be from 0 to 1 \(2 outputs\), and row 1 is 2"),
        ((GOOD[0], np.array([0, -1])), "client 1: labels must be from 0 to 1"),
        (
            (GOOD[0], np.array([0.0, 0.5])),
            "client 1: labels must be integers, and row 1 is 0.5. For numbers to predict",
        ),
        ((GOOD[0], np.array([0])), "client 1: has 2 rows of features and 1 targets"),
        ((np.zeros((3, 3)), np.zeros(3, int)), "client 1: has 3 examples, and its size is given as 2"),
        ((np.zeros((2, 4)), GOOD[1]), r"client 1: features have shape \[4\]"),
        ((np.full((2, 3), None), GOOD[1]), "client 1: features must be real numbers, got an array of object"),
        (np.zeros((2, 3)), r"client 1: must be \(features, targets\), got ndarray"),
    ],
)
def test_custom_mistakes_name_the_client(bad: Any, says: str) -> None:
    p = custom_population(lambda k: bad if k == 1 else GOOD, [2, 2], outputs=2)
    p.cohort(np.array([0]))
    with pytest.raises(DataError, match=says):
        p.cohort(np.array([0, 1]))


@pytest.mark.parametrize("sizes", [[], [1, -1], [0.5], [[1]], "ab"])
def test_wrong_custom_sizes_are_refused(sizes: Any) -> None:
    with pytest.raises(UserError, match="sizes: must be whole numbers"):
        custom_population(lambda k: GOOD, sizes, outputs=2)


def test_single_client_with_one_example_works() -> None:
    p = custom_population(lambda k: (np.zeros((1, 3)), np.array([1])), [1], outputs=2)
    assert partition_measures(p, 0).label_emd == 0
    assert len(p.cohort(np.array([0])).client(0)) == 1
