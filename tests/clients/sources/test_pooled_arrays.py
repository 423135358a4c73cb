"""Arrays from Python: pooled and dealt out by a partition, converted without loss, or refused with what to write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from clients.core.checks import precision_notice
from clients.core.errors import DataError, PartitionError, UserError
from clients.core.population import Population
from clients.partition.options import DirichletOptions, IidOptions, NaturalOptions
from clients.sources.custom import custom_population
from clients.sources.image_shapes import shaped_examples
from clients.sources.images import digits_population
from clients.sources.options import DigitsOptions, ImagesOptions
from clients.sources.pooled_arrays import PooledArrays, arrays

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = np.arange(40) % 4


def dealt(data: PooledArrays, clients: int = 2, dtype: torch.dtype = torch.float32) -> Population:
    return data.deal(IidOptions(clients=clients), seed=0, dtype=dtype)


def first(population: Population) -> tuple[torch.Tensor, torch.Tensor]:
    one = population.cohort(np.array([0])).client(0)
    return one.features, one.targets


# Dealing out


def test_arrays_are_dealt_out_as_the_same_file_is() -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    partition = DirichletOptions(clients=9, concentration=0.3)
    options = DigitsOptions(long_tail=4.0, client_test_fraction=0.2)
    there = digits_population(options, partition, seed=3)
    pooled = arrays(x / 16, y, long_tail=4.0, client_test_fraction=0.2)
    here = pooled.deal(partition, seed=3)
    assert here.sizes.tolist() == there.sizes.tolist()
    everyone = np.arange(9)
    for mine, theirs in ((here.cohort, there.cohort), (here.clients.held_out, there.clients.held_out)):
        assert mine is not None
        assert theirs is not None
        one, other = mine(everyone), theirs(everyone)
        assert torch.equal(one.features[one.rows], other.features[other.rows])
        assert torch.equal(one.targets[one.rows], other.targets[other.rows])
    assert here.validation is not None
    assert there.validation is not None
    assert torch.equal(here.validation.features, there.validation.features)


def test_keys_make_natural_clients_with_names() -> None:
    users = np.array(["ann", "bob", "cid", "dan"])[np.arange(40) % 4]
    pooled = arrays(X, Y, keys={"user": users.tolist(), "day": torch.arange(40) // 20}, validation_fraction=0.0)
    by_user = pooled.deal(NaturalOptions(key="user"), seed=0)
    assert [by_user.federation.client_name(k) for k in range(4)] == ["ann", "bob", "cid", "dan"]
    assert pooled.deal(NaturalOptions(key="day"), seed=0).num_clients == 2
    for keys, says in (
        ({"user": users[:3]}, r"keys\['user'\]: must have one value for each of 40 examples, got shape \(3,\)"),
        ({"user": [None, *users[1:]]}, r"keys\['user'\]: must name a client for every example, and row 0 is None"),
        (users, "keys: must be arrays by name, got ndarray"),
    ):
        with pytest.raises(DataError, match=says):
            arrays(X, Y, keys=keys)  # type: ignore[arg-type]


def test_own_test_set_becomes_the_central_test() -> None:
    population = dealt(arrays(X, Y, test=(X[:5], np.full(5, 6))))
    assert population.test is not None
    assert (len(population.test), population.outputs) == (5, 7)
    with pytest.raises(DataError, match=r"test: features have shape \[2\] an example, and x has \[3\]"):
        arrays(X, Y, test=(X[:5, :2], Y[:5]))
    with pytest.raises(
        DataError, match=r"test: must be \(features, targets\), got ndarray. Pass test=\(x_test, y_test"
    ):
        arrays(X, Y, test=X[:5])  # type: ignore[arg-type]


def test_pool_without_a_partition_is_refused() -> None:
    with pytest.raises(PartitionError, match="come without clients"):
        arrays(X, Y).deal(None, seed=0)


# Targets


@pytest.mark.parametrize(
    ("targets", "note"),
    [
        (Y, ""),
        (Y.astype(np.uint8), ""),
        (Y.astype(np.float64), ""),
        (Y[:, None], ""),
        (torch.tensor(Y), ""),
        (Y.tolist(), ""),
        (np.eye(4)[Y], "labels are one-hot: the place of the 1 is the class"),
        (np.eye(4, dtype=bool)[Y], "labels are one-hot: the place of the 1 is the class"),
    ],
)
def test_labels_of_any_type_are_the_same_classes(targets: Any, note: str) -> None:
    pooled = arrays(X, targets, task="classification")
    np.testing.assert_array_equal(pooled.pool.targets, Y)
    assert pooled.pool.targets.dtype == np.int64
    assert pooled.pool.notices == ((note,) if note else ())
    p = custom_population(lambda k: (X, targets), [40], outputs=4)
    assert first(p)[1].tolist() == Y.tolist()


def test_truth_values_are_two_classes() -> None:
    p = custom_population(lambda k: (X, Y > 1), [40], outputs=2)
    assert first(p)[1].tolist() == (Y > 1).astype(int).tolist()


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (
            np.where(Y == 3, 0.5, Y),
            r"labels must be integers, and row 3 is 0.5. For numbers to predict pass task='regr",
        ),
        (
            np.array(["cat", "dog"] * 20),
            r"targets must be real numbers, got an array of <U3. Number the names from 0: n",
        ),
        ([1, -1] * 20, r"labels must be at least 0, and row 1 is -1. Number the classes from 0"),
        (np.zeros((40, 2)), r"labels must have one axis, got shape \(40, 2\). Pass one class an example"),
        (
            [3, 17, 200_000, 17] * 10,
            r"labels have 3 different values and make 200,001 outputs \(0 to 200,000\). Number",
        ),
        (np.where(Y == 3, np.nan, Y), r"targets must be finite, and row 3 is nan"),
        (Y[:30], r"has 40 rows of features and 30 targets"),
    ],
)
def test_unusable_labels_are_refused_with_the_fix(targets: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        arrays(X, targets, task="classification")


def test_outputs_that_no_label_has_are_stated() -> None:
    labels = [3, 17, 300, 17] * 10
    notice = "labels have 3 different values and make 301 outputs; classes 0, 1, 2, 4, 5, 6, ... have no example"
    assert arrays(X, labels, task="classification").pool.notices == (notice,)
    assert dealt(arrays(X, labels)).outputs == 301
    one = arrays(X, np.where(Y == 3, 4, Y), task="classification").pool.notices
    assert one == ("labels have 4 different values and make 5 outputs; class 3 has no example",)
    named = arrays(X, [3, 17, 200_000, 17] * 10, outputs=200_001, task="classification")
    assert "make 200,001 outputs" in named.pool.notices[0], "outputs= is the user's word"
    with pytest.raises(DataError, match=r"labels must be from 0 to 3 \(4 outputs\), and row 1 is 17"):
        arrays(X, [3, 17, 300, 17] * 10, outputs=4)


def test_guessed_task_is_stated() -> None:
    assert arrays(X, Y).pool.notices == ("targets are taken as 4 classes",)
    (many,) = arrays(X, np.arange(40)).pool.notices
    assert many == "targets are taken as 40 classes; task='regression' predicts numbers"
    (whole,) = arrays(X, Y.astype(float)).pool.notices
    assert whole.endswith("1 an example; task='classification' takes whole ones as classes")
    assert dealt(arrays(X, Y.astype(float))).task == "regression"
    assert dealt(arrays(X, Y, task="regression")).task == "regression"
    two = dealt(arrays(X, X[:, :2]))
    assert (two.task, two.outputs) == ("regression", 2)


# Types


TOKENS = RNG.integers(0, 500, (40, 6))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_float_targets_of_token_ids_keep_their_fractions(dtype: torch.dtype) -> None:
    targets = X[:, 0]
    for p in (
        custom_population(lambda k: (TOKENS, targets), [40], outputs=1, task="regression", dtype=dtype),
        arrays(TOKENS, targets, dtype=dtype, validation_fraction=0, test_fraction=0).deal(
            IidOptions(clients=1), seed=0
        ),
    ):
        features, numbers = first(p)
        assert features.dtype == dtype
        assert features.tolist() == TOKENS.tolist()
        assert numbers.dtype == torch.float32
        np.testing.assert_allclose(numbers[:, 0].numpy(), targets, rtol=1e-6)
        assert "features" not in " ".join(p.federation.notices)


def test_integers_that_become_floating_point_are_stated() -> None:
    notice = (
        "features are whole numbers (int64) and become floating-point numbers; for token ids pass dtype=torch.int64"
    )
    assert arrays(TOKENS, Y, task="classification").pool.notices == (notice,)
    p = custom_population(lambda k: (TOKENS, Y), [40], outputs=4)
    assert first(p)[0].dtype == torch.float32
    assert p.federation.notices == (f"client 0: {notice}",)
    (of_bytes,) = arrays(np.full((40, 2), 200, np.uint8), Y, task="classification").pool.notices
    assert of_bytes.endswith("bytes are not scaled, divide them by 255 for 0 to 1")
    assert custom_population(lambda k: (X, Y), [40], outputs=4).federation.notices == ()


def test_numbers_beyond_the_type_are_refused_before_the_cast() -> None:
    huge = X.copy()
    huge[7, 2] = 1e39
    with pytest.raises(DataError) as error:
        dealt(arrays(huge, Y))
    assert str(error.value) == (
        "data: features must fit into float32, at most 3.4e+38, and row 7, column 2 is 1e+39. "
        'Set run.dtype = "float64".'
    )
    assert dealt(arrays(huge, Y), dtype=torch.float64).feature_shape == (3,)
    says = (
        r"client 0: features must fit into float32, at most 3.4e\+38, and row 7, column 2 is 1e\+39. Pass dtype=torch"
    )
    with pytest.raises(DataError, match=says):
        custom_population(lambda k: (huge, Y), [40], outputs=4)
    with pytest.raises(DataError, match="client 0: targets must fit into float32"):
        custom_population(lambda k: (X, huge[:, 2]), [40], outputs=1, task="regression")
    with pytest.raises(
        DataError, match=r"features must be whole numbers for dtype=torch.int64, and row 0, column 0 is"
    ):
        custom_population(lambda k: (X, Y), [40], outputs=4, dtype=torch.int64)
    with pytest.raises(DataError, match="features must fit into int8, at most 127, and row"):
        custom_population(lambda k: (TOKENS, Y), [40], outputs=4, dtype=torch.int8)


def test_digits_that_the_type_loses_are_stated() -> None:
    stamps = np.column_stack([X, 1.7e9 + np.arange(40)])
    population = dealt(arrays(stamps, Y, task="classification"))
    (notice,) = population.federation.notices
    rounded = "features, column 3: numbers from 1700000000 to 1700000039, and float32 keeps them to within "
    assert notice.startswith(rounded)
    assert notice.endswith('Set run.dtype = "float64".')
    assert dealt(arrays(stamps, Y, task="classification"), dtype=torch.float64).federation.notices == ()
    (own,) = dealt(
        arrays(stamps, Y, task="classification", dtype=torch.float32), dtype=torch.float64
    ).federation.notices
    (client,) = custom_population(lambda k: (stamps, Y), [40], outputs=4).federation.notices
    assert own.startswith(rounded)
    assert client == f"client 0: {own}"
    assert own.endswith("Pass dtype=torch.float64, and run with run.dtype = 'float64'.")


def test_digits_of_targets_that_the_runs_type_loses_are_stated() -> None:
    stamps = 1.7e9 + np.arange(40)
    pooled = arrays(TOKENS, stamps, task="regression", dtype=torch.int64)
    assert dealt(pooled, dtype=torch.float64).federation.notices == ()
    (notice,) = dealt(pooled).federation.notices
    assert notice.startswith("targets, column 0: numbers from 1700000000 to 1700000039, and float32 keeps them")
    assert notice.endswith('Set run.dtype = "float64".')


def test_ids_beyond_float64_are_stated() -> None:
    ids = np.array([2**53 + 1, 5])
    notice = precision_notice(ids, torch.float64, "features", fix="")
    exact = "float64 keeps them exact up to 2**53 only. Number ids from 0."
    assert notice == f"features: whole numbers up to 9,007,199,254,740,993, and {exact}"
    assert precision_notice(ids - 1, torch.float64, "features", fix="") == ""


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (np.array([16_777_217.0, 3.0]), ""),
        (np.array([10_000_000.0, 10_000_000.25]), ""),
        (np.array([[[0, 0], [0, 2**24 + 1]], [[0, 0], [0, 2**24 + 3]]]), ", index (1, 1)"),
    ],
)
def test_lost_digits_have_their_place(values: np.ndarray, column: str) -> None:
    assert precision_notice(values, torch.float32, "features", fix="").startswith(f"features{column}: numbers from ")


@pytest.mark.parametrize(
    "values",
    [X, X * 1e9, np.array([16_777_216.0, 3.0]), np.full(5, 1.7e9), X.astype(np.float32) * 1e9, Y, np.zeros((0, 3))],
)
def test_rounding_that_tells_nothing_apart_is_not_stated(values: np.ndarray) -> None:
    assert precision_notice(values, torch.float32, "features", fix="") == ""


class Frame:
    """A data frame as pandas and polars have it."""

    def __init__(self, **columns: np.ndarray) -> None:
        self._values = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Column:
        return Column(self._values[name])

    def to_numpy(self) -> np.ndarray:
        return np.column_stack(list(self._values.values())).astype(object)


class Index(list[int]):
    def equals(self, other: object) -> bool:
        return self == other


class Column:
    def __init__(self, values: np.ndarray, index: list[int] | None = None) -> None:
        self._values, self.index = values, Index(index or [])

    def to_numpy(self) -> np.ndarray:
        return self._values


@pytest.mark.parametrize(
    "values",
    [
        X.tolist(),
        tuple(map(tuple, X.tolist())),
        X[::-1][::-1],
        np.asfortranarray(X),
        X.astype(">f8"),
        X.astype(np.longdouble),
        np.ma.MaskedArray(X, mask=False),
        torch.tensor(X, requires_grad=True),
        [torch.tensor(row) for row in X],
        Frame(a=X[:, 0], b=X[:, 1], c=X[:, 2]),
        np.frombuffer(X.tobytes()).reshape(40, 3),
    ],
    ids=lambda v: type(v).__name__,
)
def test_every_kind_of_array_gives_the_same_features(values: Any) -> None:
    features = first(custom_population(lambda k: (values, Y), [40], outputs=4))[0]
    np.testing.assert_array_equal(features.numpy(), X.astype(np.float32))
    features = first(arrays(values, Y, validation_fraction=0, test_fraction=0).deal(IidOptions(clients=1), seed=0))[0]
    np.testing.assert_array_equal(features.numpy(), X.astype(np.float32))


def test_frame_of_numbers_and_truth_values_keeps_both() -> None:
    features = arrays(Frame(a=X[:, 0], on=Y > 1), Y).pool.features
    np.testing.assert_array_equal(features, np.column_stack([X[:, 0], Y > 1]))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.ma.masked_less(X, 0), "features have 55 masked values. Fill them, values.filled"),
        (
            np.array(["2020-01-01"] * 40, "M8[s]"),
            r"got an array of datetime64\[s\]. Make them numbers: \(t - t.min\(\)\)",
        ),
        (np.zeros(40, "m8[s]"), r"got an array of timedelta64\[s\]. Make them numbers: t / np.timedelta64"),
        (X.astype(complex), "got an array of complex128. Pass the real and the imaginary part as two features"),
        (np.zeros(40, [("a", float)]), "Pass one array of numbers: numpy.lib.recfunctions.structured_to_unstructured"),
        (X.astype(object), "got an array of object. Convert them with astype"),
        (np.array([[1, "a"]] * 40, object), "got an array of object; row 0, column 1 is 'a'. Number the names from 0"),
        ([[1, 2], [3]] * 20, "features must be an array or a tensor: .*inhomogeneous.* Examples must be of one shape"),
        (
            Frame(a=X[:, 0], city=np.array(["K"] * 40)),
            "features, column 'city', must be real numbers, got an array of <U",
        ),
        (torch.zeros(40, 3).to_sparse(), r"features are a sparse tensor. Pass values.to_dense\(\)"),
        (DataLoader(TensorDataset(torch.zeros(40, 3))), r"got a DataLoader. Pass its arrays: x = torch.stack\("),
        (TensorDataset(torch.zeros(40, 3)), "got a TensorDataset. Pass dataset.tensors"),
        (None, "features must be an array or a tensor, got None"),
        ({"a": X}, "features must be an array or a tensor, got a dict"),
        (3.0, "features must have an axis of examples, got a single number"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_array_is_refused_with_the_fix(values: Any, says: str) -> None:
    with pytest.raises(DataError, match=f"^x: .*{says}"):
        arrays(values, Y)
    with pytest.raises(DataError, match=f"^client 0: .*{says}"):
        custom_population(lambda k: (values, Y), [40], outputs=4)


def test_data_set_without_targets_is_answered_with_code() -> None:
    with pytest.raises(
        DataError, match=r"y: is missing. Pass the arrays of the data set: x = torch.stack\(\[f for f, _ in"
    ):
        arrays(TensorDataset(torch.zeros(40, 3), torch.tensor(Y)))
    with pytest.raises(
        DataError, match=r"client 0: must be \(features, targets\), got TensorDataset. Return its arrays"
    ):
        custom_population(lambda k: TensorDataset(torch.zeros(2, 3)), [2], outputs=2)  # type: ignore[arg-type,return-value]


def test_rows_of_frames_in_another_order_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"x: features and targets have different indexes.* Align them, y = y.loc\[x.index"
    ):
        arrays(Column(X[:, :1], [0, 1]), Column(Y, [1, 0]))
    assert len(arrays(Column(X[:, :1], [0, 1]), Column(Y, [0, 1])).pool.targets) == 40


def test_targets_of_a_sparse_matrix_are_refused() -> None:
    from scipy.sparse import csr_matrix

    with pytest.raises(DataError, match=r"x: features are sparse, a csr_matrix. Pass values.toarray\(\)"):
        arrays(csr_matrix(X), Y)


def test_examples_do_not_change_with_the_users_arrays() -> None:
    x = X.astype(np.float32)
    p = custom_population(lambda k: (x, Y), [40], outputs=4, test=(x, Y))
    kept = p.test.features.clone() if p.test is not None else torch.zeros(0)
    x[:] = 0
    assert p.test is not None
    assert torch.equal(p.test.features, kept)


@pytest.mark.parametrize("dtype", [np.float64, "float64", torch.complex64, torch.bool])
def test_dtype_that_features_cannot_have_is_refused(dtype: Any) -> None:
    with pytest.raises(
        UserError, match=r"dtype: must be a torch type of numbers.* Pass torch.float32, torch.float64, or"
    ):
        arrays(X, Y, dtype=dtype)
    with pytest.raises(UserError, match="dtype: must be a torch type of numbers"):
        custom_population(lambda k: (X, Y), [40], outputs=4, dtype=dtype)


# Layouts of images


def image(n: int, *shape: int) -> np.ndarray:
    return np.arange(n * int(np.prod(shape))).reshape(n, *shape).astype(np.float32)


HWC = image(5, 6, 4, 3)
CHW = np.moveaxis(HWC, -1, 1)


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        (HWC, {"layout": "HWC"}, CHW),
        (HWC, {"layout": "HWC", "shape": (3, 6, 4)}, CHW),
        (HWC, {"shape": (3, 6, 4)}, CHW),
        (CHW, {"layout": "CHW"}, CHW),
        (CHW, {"shape": (3, 6, 4)}, CHW),
        (image(5, 3, 6, 8), {}, image(5, 3, 6, 8)),
        (HWC.reshape(5, -1), {"layout": "HWC", "shape": (3, 6, 4)}, CHW),
        (CHW.reshape(5, -1), {"shape": (3, 6, 4)}, CHW),
        (image(5, 8, 8, 12), {"layout": "HWC"}, np.moveaxis(image(5, 8, 8, 12), -1, 1)),
        (image(5, 4, 6), {"layout": "HW"}, image(5, 4, 6)[:, None]),
        (image(5, 4, 6), {"shape": (1, 4, 6)}, image(5, 4, 6)[:, None]),
        (image(5, 1, 4, 4), {}, image(5, 1, 4, 4)),
    ],
)
def test_channels_go_first(stored: np.ndarray, options: dict[str, Any], expected: np.ndarray) -> None:
    shaped, _ = shaped_examples(stored, ImagesOptions(path="x", flat=False, **options), "x")
    np.testing.assert_array_equal(shaped, expected)


@pytest.mark.parametrize(
    ("stored", "options", "says"),
    [
        (HWC, {"shape": (3, 6, 4)}, "examples of shape [6, 4, 3] became [3, 6, 4]: the last axis went first"),
        (image(5, 8, 8, 3), {}, "images of shape [8, 8, 3] are taken as HWC: channels went first"),
        (
            image(5, 9, 8, 12),
            {},
            "examples of shape [9, 8, 12] are taken as channels, height, width; if channels are last",
        ),
        (HWC, {"shape": (8, 9)}, "examples of shape [6, 4, 3] were reshaped to [8, 9]"),
    ],
)
def test_guessed_places_of_channels_are_stated(stored: np.ndarray, options: dict[str, Any], says: str) -> None:
    (notice,) = shaped_examples(stored, ImagesOptions(path="x", flat=False, **options), "x")[1]
    assert notice.startswith(says)


@pytest.mark.parametrize(
    ("stored", "options", "says"),
    [
        (
            image(5, 3, 8, 4),
            {},
            r"layout: is needed: the channels of x, shape \[3, 8, 4\], could be the first axis or the l",
        ),
        (
            image(5, 28, 32),
            {"shape": (32, 28)},
            r"shape: \[32, 28\] has the axes of the examples of x, \[28, 32\], in anot",
        ),
        (
            HWC,
            {"shape": (4, 6, 3)},
            r"shape: \[4, 6, 3\] has the axes .* in another order. Leave shape out, and say what",
        ),
        (HWC, {"layout": "HW"}, r"layout: is 'HW', and x has examples of shape \[6, 4, 3\], 3 axes"),
        (HWC.reshape(5, -1), {"layout": "HWC"}, r"layout: is 'HWC', and x has flat examples of 72 numbers. Give shape"),
        (
            HWC,
            {"layout": "HWC", "shape": (6, 4, 3)},
            r"shape: \[6, 4, 3\] is not the shape of the images of x, \[3, 6, 4\]",
        ),
    ],
)
def test_layouts_that_cannot_be_known_are_refused(stored: np.ndarray, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        shaped_examples(stored, ImagesOptions(path="x", flat=False, **options), "x")
    with pytest.raises(UserError, match="layout: must be CHW, HWC or HW, got 'NHWC'"):
        ImagesOptions(path="x", layout="NHWC")  # type: ignore[arg-type]
