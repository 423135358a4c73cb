"""Labelled rows of the user's tables for classification and regression: one row an example, clients by a key.

All files form one table, and a column names each row's client; or each file is a client; or a partition deals the
rows out. Statistics and categories come from training rows alone, so rows are split before they are encoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from clients.core.arrays import F64, I64, Array, Bool
from clients.core.errors import DataError, PartitionError, unknown_name
from clients.core.file_paths import find_files
from clients.core.population import Population
from clients.partition.options import NaturalOptions, PartitionOptions
from clients.tables.files import SUFFIXES, read_frames
from clients.tables.layouts import file_names
from clients.tables.options import TableOptions
from clients.tables.rows.classes import class_notice, classes_of
from clients.tables.rows.columns import RowTable, partition_key, read_features, roles_of, row_table
from clients.tables.rows.encoding import Column, Groups, client_moments, encode, listed
from clients.tables.rows.leaf import leaf_rows
from clients.tables.rows.parts import I8, TRAINING, named_parts, random_parts, split_notice
from clients.tables.rows.population import Dealing, LabelledRows, is_dealt, require_clients, rows_population
from clients.tables.series import moments


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
        rows, keys = _table_rows(options, partition, seed)
    dealing = None
    if dealt:
        assert partition is not None
        dealing = Dealing(options=partition, keys=keys, client_test_fraction=options.client_test_fraction)
    return rows_population(rows, dealing, seed=seed, dtype=dtype)


@dataclass(frozen=True)
class _Read:
    """Columns as read, for the rows that are kept."""

    columns: list[Column]
    target: Column
    owner: I64 | None
    clients: tuple[str, ...]
    parts: I8 | None
    keys: Mapping[str, Array]


def _table_rows(
    options: TableOptions, partition: PartitionOptions | None, seed: int
) -> tuple[LabelledRows, Mapping[str, Array]]:
    """Read, split and encode the rows of a table; return them, and the key of a natural partition."""
    files, table = _read_table(options)
    dealt = is_dealt(partition)
    require_clients(bool(options.id_column) or options.layout == "files", dealt, str(options.path))
    key = partition.key if isinstance(partition, NaturalOptions) else ""
    if key and key not in table.names:
        raise PartitionError("key", unknown_name(key, table.names, f"a column of {table.where}"))
    roles = roles_of(table, options, key)
    notices = [*roles.notices]
    target = _target(table, options)
    columns = read_features(table, roles)
    keys = {key: partition_key(table, key)} if key else {}
    owner, clients = (None, ()) if dealt else _owners(options, table, files)
    parts = (
        named_parts(*table.codes(options.split_column), options.split_column, table.where)
        if options.split_column
        else None
    )
    kept = _kept(table, options, columns, target, notices)
    read = _taken(_Read(columns, target, owner, clients, parts, keys), kept)
    return _encoded(options, table, read, notices, seed), read.keys


def _encoded(options: TableOptions, table: RowTable, read: _Read, notices: list[str], seed: int) -> LabelledRows:
    count = len(read.target.missing)
    facts: dict[str, str | int | float] = {"rows": count, "files": len(table.frames)}
    if options.task == "classification":
        labels, names = classes_of(read.target, options.max_categories)
    else:
        labels, names = np.zeros(count, np.int64), ()
    parts, split = _split(options, read, labels, seed)
    training = parts == TRAINING
    notices.append(split)
    scale = options.scale_of_task
    if scale == "client" and read.owner is None:
        fix = "Name id_column, or leave scale out and set features.normalise = 'client'."
        raise DataError("scale", "is 'client', and the rows have no clients before the partition", fix=fix)
    groups = Groups(training, read.owner if scale == "client" else None, len(read.clients), scaled=scale != "none")
    encoded = encode(read.columns, groups, options.max_categories)
    notices += encoded.notices
    if scale != "none" and any(c.measured for c in encoded.channels):
        of = "all training rows" if scale == "global" else "each client's training rows"
        notices.append(f"numbers are scaled by the mean and deviation of {of} (scale = {scale!r})")
    facts["features"] = ", ".join(c.name for c in encoded.channels)
    if names:
        facts["classes"] = ", ".join(names)
        notices.append(class_notice(options.target, names, labels, training))
        targets: Array = labels
    else:
        targets = _scaled_target(read.target, groups, facts)[:, None]
        if "target_mean" in facts:
            notices.append(
                f"target {options.target!r} in deviations: mean {facts['target_mean']:.6g}, "
                f"deviation {facts['target_deviation']:.6g}"
            )
    return LabelledRows(
        name=str(options.path).rsplit("/", 1)[-1],
        task="classification" if names else "regression",
        features=encoded.features,
        targets=targets,
        outputs=len(names) or 1,
        parts=parts,
        owner=read.owner,
        clients=read.clients,
        channels=encoded.channels,
        facts=facts,
        notices=tuple(notices),
    )


def _read_table(options: TableOptions) -> tuple[tuple[str, ...], RowTable]:
    """Read the files; return their names as clients, and their rows."""
    files = find_files(options.path, "path", SUFFIXES)
    return tuple(file_names(files)), row_table(read_frames(files))


def _target(table: RowTable, options: TableOptions) -> Column:
    """Read the column of labels."""
    if options.task == "classification" and table.kind(options.target) in ("text", "truth"):
        return Column(options.target, None, *table.codes(options.target))
    try:
        return Column(options.target, table.numbers(options.target, "target"))
    except DataError as error:
        fix = error.fix or "For labels that are text set task = 'classification'."
        raise DataError(error.field, error.problem, fix=fix) from None


def _owners(options: TableOptions, table: RowTable, names: tuple[str, ...]) -> tuple[I64, tuple[str, ...]]:
    """Return each row's client, (n,), and the names of the clients."""
    if options.layout == "files":
        return np.repeat(np.arange(len(names)), table.file_rows).astype(np.int64), names
    codes, ids = table.codes(options.id_column)
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise DataError("id_column", f"{table.place(row)}: column {options.id_column!r} is empty")
    return codes, ids


def _kept(table: RowTable, options: TableOptions, columns: Sequence[Column], target: Column, notices: list[str]) -> I64:
    """Return the rows that are used, by the treatment of missing values."""
    unlabelled = target.missing
    missing = {c.name: c.missing for c in columns if c.missing.any()}
    drop: Bool = unlabelled.copy()
    if options.gaps != "mean":
        for empty in missing.values():
            drop |= empty
    if unlabelled.any():
        missing = {options.target: unlabelled, **missing}
    if options.gaps == "error" and drop.any():
        row = int(np.flatnonzero(drop)[0])
        name = next(n for n, empty in missing.items() if empty[row])
        raise DataError(
            "gaps",
            f"{table.place(row)}, column {name!r}: the value is missing ({int(drop.sum()):,} rows have missing values)",
            fix="Set gaps to 'drop' (these rows) or 'mean' (fill by the training mean, or the category 'missing').",
        )
    if drop.all():
        raise DataError("gaps", f"{table.where}: every row has a missing value, so no row is left")
    if drop.any():
        counts = [f"{n} {int(e.sum()):,}" for n, e in missing.items() if options.gaps != "mean" or e is unlabelled]
        notices.append(f"{int(drop.sum()):,} of {len(drop):,} rows dropped for missing values: {listed(counts)}")
    return np.flatnonzero(~drop).astype(np.int64)


def _taken(read: _Read, kept: I64) -> _Read:
    """Return the rows that are kept; clients without any are no clients."""
    if len(kept) == len(read.target.missing):
        return read
    owner, clients = read.owner, read.clients
    if owner is not None:
        used, owner = np.unique(owner[kept], return_inverse=True)
        clients = tuple(clients[k] for k in used)
    return replace(
        read,
        columns=[c.taken(kept) for c in read.columns],
        target=read.target.taken(kept),
        owner=owner,
        clients=clients,
        parts=None if read.parts is None else read.parts[kept],
        keys={name: key[kept] for name, key in read.keys.items()},
    )


def _split(options: TableOptions, read: _Read, labels: I64, seed: int) -> tuple[I8, str]:
    """Return each row's part, (n,), and a sentence on the split."""
    owner = np.zeros(len(labels), np.int64) if read.owner is None else read.owner
    clients = 1 if read.owner is None else len(read.clients)
    if read.parts is not None:
        parts, how = read.parts, f"by column {options.split_column!r}"
    else:
        shares = options.validation_fraction, options.test_fraction
        parts = random_parts(owner, clients, labels, *shares, seed)
        how = "at random by the seed, " + (
            "each client by itself" if read.owner is not None else "before the partition"
        )
        how += ", classes in proportion" if options.task == "classification" else ""
    has = np.bincount(owner[parts == TRAINING], minlength=clients)
    empty = [read.clients[k] for k in np.flatnonzero(has == 0)] if read.owner is not None else []
    return parts, split_notice(parts, how, empty)


def _scaled_target(target: Column, groups: Groups, facts: dict[str, str | int | float]) -> F64:
    """Return the targets of a regression, scaled as the features are."""
    assert target.numbers is not None
    values = target.numbers
    if not groups.scaled:
        return values
    if groups.owner is not None:
        mean, deviation = client_moments(values, groups)
        scaled: F64 = (values - mean[groups.owner]) / deviation[groups.owner]
        return scaled
    (mean,), (deviation,) = moments(values[groups.training][:, None])
    facts["target_mean"], facts["target_deviation"] = float(mean), float(deviation)
    result: F64 = (values - mean) / deviation
    return result
