"""Hugging Face sets and partitioners: the same tests with the real packages, if installed, and with a fake of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_datasets
import numpy as np
import pytest
import torch
from needs import FLWR_DATASETS

from clients.core.errors import DataError, PartitionError, UserError
from clients.core.population import Population
from clients.datasets.example_options import HuggingFaceOptions
from clients.federation.data_kinds import build_population
from clients.partition.options import IidOptions, NaturalOptions

N = 60
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 4, 5), dtype=np.uint8)
TRAIN = {
    "image": list(IMAGES),
    "width": [float(i) for i in range(N)],
    "height": [2.0 * i for i in range(N)],
    "label": [i % 3 for i in range(N)],
    "what": [("ant", "bee", "cow")[i % 3] for i in range(N)],
    "writer": [f"w{i % 4}" for i in range(N)],
}
TEST = {name: values[:6] for name, values in TRAIN.items()}
Save = Callable[[dict[str, dict[str, Any]]], str]


@pytest.fixture(params=["fake", "real"])
def save(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Save splits to disk and return where."""

    def saved(splits: dict[str, dict[str, Any]]) -> str:
        folder = tmp_path / "set"
        if request.param == "fake":
            fake_datasets.install(monkeypatch, splits)
            folder.mkdir()
            (folder / "dataset_dict.json").write_text("{}")
        else:
            FLWR_DATASETS.require()
            datasets: Any = importlib.import_module("datasets")
            datasets.disable_progress_bars()
            sets = {n: datasets.Dataset.from_dict(columns) for n, columns in splits.items()}
            datasets.DatasetDict(sets).save_to_disk(str(folder))
        return str(folder)

    return saved


def population(path: str, partition: Any = None, **options: Any) -> Population:
    given = {"features": ("width", "height"), "label": "label", "validation_fraction": 0.0, **options}
    return build_population(HuggingFaceOptions(path=path, **given), partition, seed=5, dtype=torch.float64)


def test_partitioner_deals_out_the_examples(save: Save) -> None:
    path = save({"train": TRAIN, "test": TEST})
    p = population(path, partitioner="IidPartitioner", arguments={"num_partitions": 4})
    assert (p.num_clients, p.sizes.tolist(), p.outputs) == (4, [15] * 4, 3)
    third = p.cohort(np.array([1, 2])).client(1)
    assert third.features.tolist() == [[float(i), 2.0 * i] for i in range(30, 45)]
    assert third.targets.tolist() == [i % 3 for i in range(30, 45)]
    assert p.test is not None
    assert p.test.features[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert p.validation is None


def test_column_names_clients_and_text_labels_are_numbered(save: Save) -> None:
    path = save({"train": TRAIN, "test": TEST})
    p = population(path, partitioner="NaturalIdPartitioner", arguments={"partition_by": "writer"}, label="what")
    assert p.num_clients == 4
    for k in range(4):
        one = p.cohort(np.array([k])).client(0)
        order = one.features[:, 0].sort().indices
        assert one.features[order, 0].tolist() == list(range(k, N, 4))
        assert one.targets[order].tolist() == [i % 3 for i in range(k, N, 4)]
    assert p.test is not None
    assert p.test.targets.tolist() == [0, 1, 2, 0, 1, 2]


def test_seed_reaches_the_partitioner_unless_it_has_its_own(save: Save) -> None:
    path = save({"train": TRAIN})

    def first(root: int, **own: int) -> list[float]:
        arguments = {"num_partitions": 2, "partition_by": "label", "alpha": 1.0, **own}
        options = HuggingFaceOptions(
            path=path,
            features=("width",),
            label="label",
            partitioner="DirichletPartitioner",
            arguments=arguments,
            validation_fraction=0.0,
            test_fraction=0.0,
        )
        return sorted(
            build_population(options, None, seed=root).cohort(np.array([0])).client(0).features[:, 0].tolist()
        )

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert first(1, seed=9) == first(2, seed=9)


def test_partition_of_the_scenario_deals_out_the_examples(save: Save) -> None:
    path = save({"train": TRAIN})
    p = population(path, NaturalOptions(key="writer"))
    assert [p.federation.client_name(k) for k in range(4)] == ["w0", "w1", "w2", "w3"]
    assert p.test is not None
    assert len(p.test) == 6  # a tenth, since there is no test split
    assert population(path, IidOptions(clients=5)).num_clients == 5
    with pytest.raises(PartitionError, match="come without clients"):
        population(path)
    with pytest.raises(PartitionError, match=r"kind: 'iid' and data\.partitioner both deal out"):
        population(path, IidOptions(clients=5), partitioner="IidPartitioner", arguments={"num_partitions": 4})


def test_images_are_scaled_and_shaped(save: Save) -> None:
    path = save({"train": TRAIN})
    given = {"partitioner": "IidPartitioner", "arguments": {"num_partitions": 1}, "test_fraction": 0.0}
    flat = population(path, features="image", **given).cohort(np.array([0])).client(0).features
    shaped = population(path, features="image", flat=False, **given).cohort(np.array([0])).client(0).features
    assert shaped.shape == (N, 1, 4, 5)
    assert torch.equal(flat, shaped.flatten(1))
    if flat.max() > 1:  # lists of whole numbers are int64 when read from disk: not bytes, so they are not divided
        flat = flat / 255
    np.testing.assert_allclose(flat.numpy(), IMAGES.reshape(N, -1) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"features": "widht"}, DataError, "features: 'widht' is not a column of .*Nearest: 'width'"),
        ({"features": "what"}, DataError, "features: .*column 'what' holds no numbers of one shape"),
        ({"features": ("width", "image")}, DataError, r"column 'image' has shape \(4, 5\) an example"),
        ({"label": "width"}, DataError, "label: .*'width' must hold whole numbers or names"),
        ({"split": "trian"}, DataError, "split: 'trian' is not a split .*Nearest: 'train'"),
        ({"partitioner": "IidPartitoner"}, PartitionError, "data.partitioner: .*Nearest: 'IidPartitioner'"),
        ({"arguments": {"num_partitions": 0}}, PartitionError, "data.arguments: IidPartitioner refuses .*greater than"),
        ({"arguments": {"clients": 3}}, PartitionError, "data.arguments: IidPartitioner refuses .*clients"),
        (
            {"partitioner": "VerticalEvenPartitioner", "arguments": {"num_partitions": 2}},
            PartitionError,
            "parts of one",
        ),
    ],
)
def test_mistakes_are_named(save: Save, options: dict[str, Any], error: type[UserError], says: str) -> None:
    path = save({"train": TRAIN, "test": TEST})
    given = {"partitioner": "IidPartitioner", "arguments": {"num_partitions": 2}}
    with pytest.raises(error, match=says):
        population(path, **{**given, **options})


def test_label_of_the_test_split_alone_counts_as_a_class(save: Save) -> None:
    path = save({"train": TRAIN, "test": {**TEST, "what": ["ant", "bee", "cow", "dog", "ant", "ant"]}})
    with pytest.raises(DataError, match="'dog' is not a label of the split 'train'"):
        population(path, IidOptions(clients=2), label="what")


def test_download_needs_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        population("someone/something")
    message = str(error.value)
    assert "https://huggingface.co/datasets/someone/something" in message
    assert "download = true" in message
    assert "licence" in message
    assert str(tmp_path / "someone" / "something") in message


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package datasets.*pip install 'fedscape\[datasets\]'"):
        population(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": ""}, "path: must not be empty"),
        ({"label": ""}, "label: must not be empty"),
        ({"arguments": {"num_partitions": 2}}, "arguments: are for a partitioner"),
        ({"validation_fraction": 1.0}, "validation_fraction: must be at least 0 and below 1"),
    ],
)
def test_wrong_huggingface_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        HuggingFaceOptions(**{"path": "x", "features": "a", "label": "b", **options})
