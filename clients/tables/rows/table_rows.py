"""Reads the rows of a table: features, label, client and part. Rows that are not used are left out and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from clients.core.arrays import I64, Array, Bool
from clients.core.errors import DataError, PartitionError, listed, unknown_name
from clients.partition.options import NaturalOptions, PartitionOptions
from clients.tables.columns import keep_clients
from clients.tables.files import read_frames
from clients.tables.finding import find_tables
from clients.tables.names import file_names
from clients.tables.reading import Reading, describe_files, describe_missing
from clients.tables.rows.columns import read_features, roles_of
from clients.tables.rows.encoding import SHOWN, Column
from clients.tables.rows.parts import I8, named_parts
from clients.tables.rows.population import is_dealt, require_clients
from clients.tables.rows.row_table import RowTable, partition_key, row_table

if TYPE_CHECKING:
    from clients.tables.options import TableOptions


@dataclass(frozen=True)
class TableRows:
    """The rows of a table.

    Attributes:
        table: the files.
        rows: which of the table's rows these are, (n,).
        columns: the features.
        target: the label.
        owner: each row's client, (n,); None before a partition.
        clients: names of the clients.
        parts: each row's part, where a column names it.
        keys: the key of a natural partition, by name.
    """

    table: RowTable
    rows: I64
    columns: tuple[Column, ...]
    target: Column
    owner: I64 | None = None
    clients: tuple[str, ...] = ()
    parts: I8 | None = None
    keys: Mapping[str, Array] = field(default_factory=dict)

    def taken(self, kept: Bool) -> TableRows:
        """Return some of the rows; clients that keep none are no clients."""
        if kept.all():
            return self
        at, owner, clients = np.flatnonzero(kept), self.owner, self.clients
        if owner is not None:
            used, owner = np.unique(owner[at], return_inverse=True)
            clients = tuple(clients[k] for k in used)
        return replace(
            self,
            rows=self.rows[at],
            columns=tuple(c.taken(at) for c in self.columns),
            target=self.target.taken(at),
            owner=owner,
            clients=clients,
            parts=None if self.parts is None else self.parts[at],
            keys={name: key[at] for name, key in self.keys.items()},
        )


def table_rows(options: TableOptions, partition: PartitionOptions | None, reading: Reading) -> TableRows:
    """Read the rows that are used.

    Args:
        options: the files, the columns, and the treatment of missing values.
        partition: of the rows, or None.
        reading: gets what was read, skipped and dropped.

    Raises:
        DataError: naming the file, the column and the line at fault.
        PartitionError: the rows have no clients and there is no partition, or its key is no column.
    """
    found = find_tables(options.path)
    frames = read_frames(found.files, options.dialect)
    reading.record.update({"files": len(found.files), "layout": options.layout})
    describe_files(reading, frames, found.remarks)
    table, dealt = row_table(frames), is_dealt(partition)
    require_clients(bool(options.id_column) or options.layout == "files", dealt, options.path)
    key = partition.key if isinstance(partition, NaturalOptions) else ""
    if key and key not in table.names:
        raise PartitionError("key", unknown_name(key, table.names, f"a column of {table.where}"))
    roles = roles_of(table, options, key)
    reading.sentences.extend(roles.notices)
    target = _target(table, options)
    owner, clients = (None, ()) if dealt else _owners(options, table, tuple(file_names(found.files)))
    rows = TableRows(
        table=table,
        rows=np.arange(int(table.ends[-1])),
        columns=read_features(table, roles),
        target=target,
        owner=owner,
        clients=clients,
        parts=named_parts(*table.codes(options.split_column), options.split_column, table.where)
        if options.split_column
        else None,
        keys={key: partition_key(table, key)} if key else {},
    )
    numbers = [c.name for c in (*rows.columns, target) if c.numbers is not None]
    describe_missing(reading, frames, numbers)
    return _without_missing(options, _of_clients(options, rows), reading)


def _target(table: RowTable, options: TableOptions) -> Column:
    """Read the column of labels."""
    if options.task == "classification" and table.kind(options.target) in ("text", "truth"):
        return Column(options.target, None, *table.codes(options.target))
    try:
        return Column(options.target, table.numbers(options.target, "target"))
    except DataError as error:
        fix = f"{error.fix} For labels that are text set task = 'classification'.".strip()
        raise DataError(error.field, error.problem, fix=fix) from None


def _owners(options: TableOptions, table: RowTable, names: tuple[str, ...]) -> tuple[I64, tuple[str, ...]]:
    """Return each row's client, (n,), and the names of the clients."""
    if options.layout == "files":
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise DataError("path", f"several files are of the client {twice[0]!r}", fix="Give them different names.")
        return np.repeat(np.arange(len(names)), table.file_rows).astype(np.int64), names
    codes, ids = table.codes(options.id_column)
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise DataError("id_column", f"{table.place(row)}: column {options.id_column!r} is empty")
    return codes, ids


def _of_clients(options: TableOptions, rows: TableRows) -> TableRows:
    """Leave out the clients that `clients` and `exclude` leave out; `exclude` names columns too."""
    columns = set(rows.table.names)
    out = tuple(n for n in options.exclude if n not in columns)
    stray = [n for n in out if n not in rows.clients]
    if stray:
        known = [*rows.table.names, *rows.clients]
        raise DataError("exclude", unknown_name(stray[0], known, "a column or a client"))
    if rows.owner is None:
        if options.clients:
            raise DataError("clients", "names clients, and a partition deals the rows out", fix="Leave one out.")
        return rows
    kept = keep_clients(replace(options, exclude=out), rows.clients)
    return rows.taken(np.isin(rows.owner, kept)) if len(kept) < len(rows.clients) else rows


def _without_missing(options: TableOptions, rows: TableRows, reading: Reading) -> TableRows:
    """Refuse or drop rows with missing values, by the option `gaps`; "mean" drops rows without a label alone."""
    unlabelled = rows.target.missing
    missing = {options.target: unlabelled} if unlabelled.any() else {}
    if options.gaps != "mean":
        missing |= {c.name: empty for c in rows.columns if (empty := c.missing).any()}
    drop: Bool = np.zeros(len(unlabelled), np.bool_)
    for empty in missing.values():
        drop |= empty
    if options.gaps == "error" and drop.any():
        row = int(np.flatnonzero(drop)[0])
        name = next(n for n, empty in missing.items() if empty[row])
        place = rows.table.place(int(rows.rows[row]))
        raise DataError(
            "gaps",
            f"{place}, column {name!r}: the value is missing ({int(drop.sum()):,} rows have missing values)",
            fix="Set gaps to 'drop' (these rows) or 'mean' (fill by the training mean, or the category 'missing').",
        )
    if drop.all():
        raise DataError("gaps", f"{rows.table.where}: every row has a missing value, so no row is left")
    if drop.any():
        reading.add("rows_dropped", int(drop.sum()))
        counts = listed([f"{n} {int(empty.sum()):,}" for n, empty in missing.items()], SHOWN)
        reading.say(f"{int(drop.sum()):,} of {len(drop):,} rows dropped for missing values: {counts}")
    return rows.taken(~drop)
