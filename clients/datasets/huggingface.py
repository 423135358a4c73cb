"""Data sets in Hugging Face's form, from its Hub or from disk, partitioned by `flwr-datasets` or fedscape.

The extra `datasets` installs `flwr-datasets`, which brings `datasets`. A partitioner is one of its
classes by name, with arguments as in Python; without one, fedscape's own `[partition]` deals out the examples.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients.core.arrays import I64, Array
from clients.core.errors import DataError, PartitionError, unknown_name
from clients.core.population import Population
from clients.core.shown.secrets import Secrets
from clients.core.shown.text import presentable
from clients.datasets.example_options import HuggingFaceOptions
from clients.partition.options import NaturalOptions, PartitionOptions
from clients.partition.pooled import Pool, pooled_population

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Environment variables with a token that the package `datasets` sends to the Hub."""
ROW = "fedscape_row"
"""The column with each example's client, which a partitioner adds."""


def huggingface_population(
    options: HuggingFaceOptions,
    partition: PartitionOptions | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Population:
    """Read the examples and make the population.

    Args:
        options: the data set and its columns.
        partition: one of fedscape's own (a natural one may use any column of one number or text); None with a
            partitioner.
        seed: root seed; the partitioner gets it too, if it takes one and its arguments have none.
        dtype: of the features.

    Raises:
        DataError: the set is missing and may not be downloaded, the extra is not installed, or a column is unusable.
        PartitionError: the partitioner is unknown or raises, or there are both a partitioner and a partition, or
            neither.
    """
    if options.partitioner and partition is not None and partition != NaturalOptions():
        fix = "Leave out the section partition, or data.partitioner."
        raise PartitionError("kind", f"'{partition.kind}' and data.partitioner both deal out the examples", fix=fix)
    return pooled_population(huggingface_pool(options, seed), partition, options, seed=seed, dtype=dtype)


def huggingface_pool(options: HuggingFaceOptions, seed: int) -> Pool:
    """Read the examples; with a partitioner, those that have a client.

    Raises:
        DataError: see `huggingface_population`.
        PartitionError: see there.
    """
    local = Path(options.path).expanduser()
    if not local.exists() and not options.download:
        fix = f"Set download = true to fetch it from the Hub, or put it at {local.absolute()} yourself."
        raise DataError(
            "path",
            f"{options.path} is not a folder here, and a download needs permission; the data set's page, with its "
            f"licence, would be https://huggingface.co/datasets/{options.path}",
            fix=fix,
        )
    splits = _load(options, local)
    if options.split not in splits:
        raise DataError("split", unknown_name(options.split, sorted(splits), f"a split of {options.path}"))
    data = splits[options.split]
    features, labels, names = _examples(data, options, options.split, None)
    keys = _keys(data, options, len(labels))
    test = None
    if options.test_fraction is None and options.test_split in splits and options.test_split != options.split:
        test = _examples(splits[options.test_split], options, options.test_split, names)[:2]
    if not options.partitioner:
        return Pool(options.path, options.path, features, labels, keys, test)
    owners = _owners(data, options, seed)
    kept = owners >= 0
    keys = {name: key[kept] for name, key in keys.items()} | {"partition": owners[kept]}
    facts: dict[str, str | int | float] = {"partition": options.partitioner}
    facts["examples_given_to_nobody"] = int((~kept).sum())
    return Pool(options.path, options.path, features[kept], labels[kept], keys, test, natural="partition", facts=facts)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        fix = "Install it with pip install 'fedscape[datasets]'."
        raise DataError("kind", f"'huggingface' needs the package {name}: {error}", fix=fix) from error


def _load(options: HuggingFaceOptions, local: Path) -> Mapping[str, Any]:
    """Return the data set's splits."""
    datasets = _package("datasets")
    try:
        if (local / "dataset_dict.json").is_file():
            return dict(datasets.load_from_disk(str(local)))
        if (local / "state.json").is_file():
            return {options.split: datasets.load_from_disk(str(local))}
        source = str(local) if local.exists() else options.path
        return dict(datasets.load_dataset(source, options.subset or None))
    except Exception as error:  # an error of any of its packages: the set cannot be read
        words = presentable(Secrets(map(os.environ.get, TOKENS)).hidden(str(error)))
        problem = f"{options.path} cannot be read as a Hugging Face data set ({type(error).__name__}: {words})"
        raise DataError("path", problem[:500]) from None  # the error may have a token, or a URL that is signed


def _column(data: Any, options: HuggingFaceOptions, name: str, split: str, setting: str) -> Array:
    """Return one column as an array."""
    if name not in data.column_names:
        problem = unknown_name(name, list(data.column_names), f"a column of {options.path}, split {split!r}")
        raise DataError(setting, problem)
    try:
        return np.asarray(data.select_columns([name]).with_format("numpy")[:][name])
    except Exception as error:  # a broken image, or a file that ends early
        problem = f"{options.path}, split {split!r}: column {name!r} cannot be read ({error})"
        raise DataError(setting, problem.replace("\n", " ")[:500]) from error


def _examples(
    data: Any, options: HuggingFaceOptions, split: str, names: Array | None
) -> tuple[Array, I64, Array | None]:
    """Return features, labels, and the labels' names if they are text (`names` are those known already)."""
    where = f"{options.path}, split {split!r}"
    columns = (options.features,) if isinstance(options.features, str) else options.features
    arrays = [_column(data, options, name, split, "features") for name in columns]
    for name, array in zip(columns, arrays, strict=True):
        if array.dtype.kind not in "iufb":
            raise DataError("features", f"{where}: column {name!r} holds no numbers of one shape ({array.dtype})")
        if len(columns) > 1 and array.ndim != 1:
            problem = f"{where}: column {name!r} has shape {array.shape[1:]} an example"
            raise DataError("features", f"{problem}, and several columns must hold one number each")
    features = arrays[0] if len(columns) == 1 else np.stack(arrays, axis=1).astype(np.float64)
    if features.dtype == np.uint8:
        features = features.astype(np.float32) / np.float32(255)
    features = features[:, None] if features.ndim == 1 else features
    if options.flat:
        features = features.reshape(len(features), -1)
    elif features.ndim == 3:
        features = features[:, None]
    elif features.ndim == 4 and features.shape[-1] in (1, 3, 4):
        features = np.moveaxis(features, -1, 1)
    labels = _column(data, options, options.label, split, "label")
    if labels.dtype.kind in "OUT":
        names = np.unique(labels.astype(str)) if names is None else names
        new = np.setdiff1d(labels.astype(str), names)
        if len(new):
            raise DataError("label", f"{where}: {str(new[0])!r} is not a label of the split {options.split!r}")
        return features, np.searchsorted(names, labels.astype(str)).astype(np.int64), names
    if labels.dtype.kind not in "iub" or labels.ndim != 1:
        raise DataError("label", f"{where}: column {options.label!r} must hold whole numbers or names ({labels.dtype})")
    return features, labels.astype(np.int64), None


def _keys(data: Any, options: HuggingFaceOptions, examples: int) -> dict[str, Array]:
    """Return the columns that a natural partition may use: one text or whole number an example."""
    keys = {}
    for name in data.column_names:
        kind = getattr(data.features[name], "dtype", "")
        if str(kind) == "string" or str(kind).startswith(("int", "uint")):
            values = _column(data, options, name, options.split, "features")
            if values.shape == (examples,):
                keys[name] = values.astype(str) if values.dtype.kind in "OUT" else values
    return keys


def _owners(data: Any, options: HuggingFaceOptions, seed: int) -> I64:
    """Return the client that the partitioner gives each example to, -1 for none."""
    partitioners = _package("flwr_datasets.partitioner")
    allowed = [n for n in partitioners.__all__ if n not in ("Partitioner", "IdToSizeFncPartitioner")]
    if options.partitioner not in allowed:
        raise PartitionError("data.partitioner", unknown_name(options.partitioner, allowed, "a partitioner"))
    make = getattr(partitioners, options.partitioner)
    arguments = dict(options.arguments)
    if "seed" in inspect.signature(make).parameters:
        arguments.setdefault("seed", seed % 2**32)
    owners = np.full(len(data), -1, np.int64)
    try:
        partitioner = make(**arguments)
        partitioner.dataset = data.add_column(ROW, list(range(len(data))))
        pieces = [partitioner.load_partition(k) for k in range(partitioner.num_partitions)]
        rows = [np.asarray(piece[ROW][:], np.int64) for piece in pieces if ROW in piece.column_names]
    except Exception as error:  # the partitioner's own error about its arguments, of any type
        problem = f"{options.partitioner} refuses ({type(error).__name__}: {error})"
        raise PartitionError("data.arguments", problem.replace("\n", " ")[:500]) from error
    if len(rows) < len(pieces) or sum(map(len, rows)) != len(np.unique(np.concatenate([*rows, owners[:0]]))):
        problem = f"{options.partitioner} gives parts of one example to several clients"
        raise PartitionError("data.partitioner", problem, fix="Use one that deals out whole examples.")
    for k, own in enumerate(rows):
        owners[own] = k
    return owners
