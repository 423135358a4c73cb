"""The parts of `datasets` and `flwr_datasets` that fedscape uses, over columns in memory."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest


class Feature:
    """A column's type."""

    def __init__(self, values: Any) -> None:
        first = np.asarray(values[0])
        text = first.dtype.kind == "U"
        self.dtype = "list" if first.ndim else "string" if text else str(np.asarray(values).dtype)


class Dataset:
    """Columns of equal length."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns
        self.features = {name: Feature(values) for name, values in columns.items()}
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, what: Any) -> Any:
        return self.columns if isinstance(what, slice) else self.columns[what]

    def select_columns(self, names: list[str]) -> Dataset:
        return Dataset({name: self.columns[name] for name in names})

    def with_format(self, kind: str) -> Dataset:
        assert kind == "numpy"
        return Dataset({name: np.asarray(values) for name, values in self.columns.items()})

    def add_column(self, name: str, values: list[Any]) -> Dataset:
        return Dataset({**self.columns, name: values})

    def select(self, rows: Any) -> Dataset:
        return Dataset({name: [values[i] for i in rows] for name, values in self.columns.items()})


class IidPartitioner:
    """Contiguous shards."""

    def __init__(self, num_partitions: int) -> None:
        if num_partitions <= 0:
            raise ValueError("The number of partitions must be greater than zero.")
        self.num_partitions = num_partitions

    def load_partition(self, k: int) -> Dataset:
        n = len(self.dataset)
        return self.dataset.select(np.array_split(np.arange(n), self.num_partitions)[k].tolist())

    dataset: Dataset


class NaturalIdPartitioner:
    """One client for every value of a column."""

    def __init__(self, partition_by: str) -> None:
        self.by = partition_by

    @property
    def num_partitions(self) -> int:
        return len(set(self.dataset[self.by]))

    def load_partition(self, k: int) -> Dataset:
        values = list(self.dataset[self.by])
        wanted = sorted(set(values))[k]
        return self.dataset.select([i for i, v in enumerate(values) if v == wanted])

    dataset: Dataset


class DirichletPartitioner:
    """Takes the arguments of the real partitioner, and deals at random by its seed."""

    def __init__(self, num_partitions: int, partition_by: str, alpha: float, seed: int = 42) -> None:
        self.num_partitions, self.seed = num_partitions, seed

    def load_partition(self, k: int) -> Dataset:
        owners = np.random.default_rng(self.seed).integers(0, self.num_partitions, len(self.dataset))
        return self.dataset.select(np.flatnonzero(owners == k).tolist())

    dataset: Dataset


class VerticalEvenPartitioner:
    """Columns dealt out, every client with all examples."""

    def __init__(self, num_partitions: int) -> None:
        self.num_partitions = num_partitions

    def load_partition(self, k: int) -> Dataset:
        return self.dataset

    dataset: Dataset


def install(patch: pytest.MonkeyPatch, splits: dict[str, dict[str, Any]]) -> None:
    """Put both packages in place; whatever is loaded from disk holds `splits`."""
    datasets, flwr_datasets = ModuleType("datasets"), ModuleType("flwr_datasets")
    partitioner: Any = ModuleType("flwr_datasets.partitioner")
    found: Any = datasets
    found.load_from_disk = lambda path: {name: Dataset(columns) for name, columns in splits.items()}
    kinds = (DirichletPartitioner, IidPartitioner, NaturalIdPartitioner, VerticalEvenPartitioner)
    for kind in kinds:
        setattr(partitioner, kind.__name__, kind)
    partitioner.__all__ = [*(kind.__name__ for kind in kinds), "Partitioner"]
    for module in (datasets, flwr_datasets, partitioner):
        patch.setitem(sys.modules, module.__name__, module)
