"""Labelled rows of the user's tables for classification and regression: one row an example, clients by a key.

All files form one table, and a column names each row's client; or each file is a client; or a partition deals the
rows out. Statistics and categories come from training rows alone, so rows are split before they are encoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clients.core.arrays import F64, I64, Array
from clients.core.errors import DataError
from clients.core.population import Population
from clients.partition.options import PartitionOptions
from clients.tables.reading import Reading
from clients.tables.rows.classes import class_notice, classes_of, labels_of
from clients.tables.rows.encoding import Column, Encoded, Groups, check_range, client_moments, encode
from clients.tables.rows.leaf import leaf_rows
from clients.tables.rows.parts import I8, TRAINING, random_parts, split_notice
from clients.tables.rows.population import Dealing, LabelledRows, is_dealt, rows_population
from clients.tables.rows.table_rows import TableRows, table_rows
from clients.tables.series import moments

if TYPE_CHECKING:
    from clients.tables.options import TableOptions


def labelled_population(
    options: TableOptions,
    partition: PartitionOptions | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Population:
    """Read the rows and make the population: features [n, F], labels by the sorted classes or targets [n, 1].

    Args:
        options: the files, the columns, and how rows are split and scaled.
        partition: None for the rows' own clients; or any other. A natural one may use a column of text or whole
            numbers.
        seed: root seed.
        dtype: of the features, and of regression targets.

    Raises:
        DataError: naming the file, the column and the line at fault.
        PartitionError: the rows have no clients and there is no partition, or it cannot be made.
    """
    dealt = is_dealt(partition)
    if options.client_test_fraction and not dealt:
        fix = "Use test_fraction: each client's own test rows are held out on it."
        raise DataError("client_test_fraction", "is for rows that a partition deals out, and none does", fix=fix)
    if options.layout == "leaf":
        rows, keys = leaf_rows(options, dealt=dealt, seed=seed)
    else:
        reading = Reading()
        read = table_rows(options, partition, reading)
        rows, keys = _encoded(options, read, reading, seed), read.keys
    dealing = None
    if dealt:
        assert partition is not None
        dealing = Dealing(options=partition, keys=keys, client_test_fraction=options.client_test_fraction)
    return rows_population(rows, dealing, seed=seed, dtype=dtype)


def _encoded(options: TableOptions, read: TableRows, reading: Reading, seed: int) -> LabelledRows:
    """Split and encode rows."""
    names: tuple[str, ...] = ()
    labels = np.zeros(len(read.rows), np.int64)
    if options.task == "classification":
        labels, names = (
            (labels_of(read.target, options.classes), options.classes)
            if options.classes
            else classes_of(read.target, options.max_categories)
        )
    parts = _split(options, read, labels, seed, reading)
    groups = _groups(options, read, parts)
    encoded = encode(read.columns, groups, options.max_categories)
    _describe(options, encoded, reading)
    reading.record["rows"] = len(read.rows)
    targets: Array = labels
    if names:
        reading.record["classes"] = ", ".join(names)
        reading.say(class_notice(options.target, names, labels, groups.training))
    else:
        targets = _scaled_target(read.target, groups, reading)[:, None]
    return LabelledRows(
        name=options.path.rstrip("/").rsplit("/", 1)[-1],
        task="classification" if names else "regression",
        features=encoded.features,
        targets=targets,
        outputs=len(names) or 1,
        parts=parts,
        owner=read.owner,
        clients=read.clients,
        channels=encoded.channels,
        facts=reading.record,
        notices=reading.notices(),
    )


def _split(options: TableOptions, read: TableRows, labels: I64, seed: int, reading: Reading) -> I8:
    """Return each row's part, (n,)."""
    owned = read.owner is not None
    owner = read.owner if read.owner is not None else np.zeros(len(labels), np.int64)
    clients = len(read.clients) if owned else 1
    if read.parts is not None:
        parts, how = read.parts, f"by column {options.split_column!r}"
        if not (parts == TRAINING).any():
            raise DataError("split_column", f"column {options.split_column!r} leaves no training row")
    else:
        parts = random_parts(owner, clients, labels, options.validation_fraction, options.test_fraction, seed)
        how = "at random by the seed, " + ("each client by itself" if owned else "before the partition")
        how += ", classes in proportion" if options.task == "classification" else ""
    has = np.bincount(owner[parts == TRAINING], minlength=clients)
    reading.say(split_notice(parts, how, [read.clients[k] for k in np.flatnonzero(has == 0)] if owned else []))
    return parts


def _groups(options: TableOptions, read: TableRows, parts: I8) -> Groups:
    """Return whose statistics scale the rows."""
    scale = options.scale_of_task
    if scale == "client" and read.owner is None:
        fix = "Name id_column, or leave scale out and set features.normalise = 'client'."
        raise DataError("scale", "is 'client', and the rows have no clients before the partition", fix=fix)
    by_client = read.owner if scale == "client" else None
    return Groups(parts == TRAINING, by_client, len(read.clients), scaled=scale != "none")


def _describe(options: TableOptions, encoded: Encoded, reading: Reading) -> None:
    for sentence in encoded.notices:
        reading.say(sentence)
    reading.record["features"] = ", ".join(c.name for c in encoded.channels)
    scale = options.scale_of_task
    if scale != "none" and any(c.measured for c in encoded.channels):
        of = "all training rows" if scale == "global" else "each client's training rows"
        reading.say(f"numbers are scaled by the mean and deviation of {of} (scale = {scale!r})")


def _scaled_target(target: Column, groups: Groups, reading: Reading) -> F64:
    """Return the targets of a regression, scaled as the features are."""
    assert target.numbers is not None
    values = target.numbers
    check_range(target.name, values, "target")
    if not groups.scaled:
        return values
    if groups.owner is not None:
        mean, deviation = client_moments(values, groups)
        by_client: F64 = (values - mean[groups.owner]) / deviation[groups.owner]
        return by_client
    (center,), (spread,) = moments(values[groups.training][:, None])
    reading.record.update({"target_mean": float(center), "target_deviation": float(spread)})
    reading.say(f"target {target.name!r} in deviations: mean {center:.6g}, deviation {spread:.6g}")
    scaled: F64 = (values - center) / spread
    return scaled
