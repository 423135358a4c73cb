"""Reads CSV, Parquet and HDF5 files as frames. Errors name the file, line and column."""

from __future__ import annotations

import lzma
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import Bool
from clients.core.errors import DataError
from clients.tables.finding import HDF5_SUFFIXES, PARQUET_SUFFIXES
from clients.tables.frame import Frame
from clients.tables.hdf5 import read_hdf5
from clients.tables.text.csv_files import CsvFile, Source, open_csv, read_text_columns
from clients.tables.text.dialect import Dialect
from clients.tables.text.unit_rows import MOST_UNIT_ROWS, count_unit_rows

_MOST_COLUMNS_WITH_UNITS = 2000


def read_frame(file: Path, dialect: Dialect | None = None) -> Frame:
    """Read one file; see `read_frames`."""
    return read_frames([file], dialect)[0]


def read_frames(files: Sequence[Path], dialect: Dialect | None = None) -> list[Frame]:
    """Read files, plain or compressed.

    Args:
        files: CSV, Parquet or a data frame in HDF5, by the suffix of the name (`SUFFIXES`, else CSV).
        dialect: how CSV files are written, as far as it is known.

    Returns:
        Frames in the order of the files. Files in a row that have the same columns and dialect share one.

    Raises:
        DataError: one cannot be read, holds no rows, or repeats a column name.
    """
    dialect = dialect or Dialect()
    opened: list[Any] = []
    for file in files:
        before = opened[-1] if opened and isinstance(opened[-1], CsvFile) else None
        opened.append(_open(file, dialect, before))
    frames: list[Frame] = []
    for _, group in groupby(opened, key=_kind):
        same = list(group)
        frames.append(_csv_frame(same) if isinstance(same[0], CsvFile) else _typed_frame(same, dialect))
    return frames


def _open(file: Path, dialect: Dialect, before: CsvFile | None) -> Any:
    """Return a CSV that is not yet cut into cells, or the path and table of another file."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        if file.name.lower().endswith(HDF5_SUFFIXES):
            return file, read_hdf5(file)
        if file.name.lower().endswith(PARQUET_SUFFIXES):
            with parquet.ParquetFile(file) as archive:
                return file, _plain_text(archive.read(use_threads=archive.metadata.num_columns > 100))
        return open_csv(file, dialect, before)
    except (OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
        raise DataError("path", f"{file} cannot be read ({str(error)[:200]})") from error


def _kind(opened: Any) -> object:
    """Return what files of one frame have in common."""
    if isinstance(opened, CsvFile):
        return opened.names, opened.dialect.delimiter
    return tuple(zip(opened[1].column_names, map(str, opened[1].schema.types), strict=True))


def _csv_frame(files: list[CsvFile]) -> Frame:
    table, named, sources = read_text_columns(files)
    names = list(files[0].names)
    remarks = list(files[0].remarks)
    empty = [i for i, n in enumerate(names) if not n and table.column(i).null_count == table.num_rows]
    if empty:  # rows that end in separators
        kept = [i for i in range(len(names)) if i not in empty]
        table, named = table.select(kept), None if named is None else named.select(kept)
        remarks.append(f"{len(empty)} empty column{'s' * (len(empty) > 1)} without a name left out")
    whole = table
    table, named, sources, units = _kept(table, named, sources, _unit_rows(table, sources))
    if units:
        first = next(text for c in whole.itercolumns() if (text := c[0].as_py()))
        counted = f"{units} rows" if units > 1 else "1 row"
        remarks.append(f"{counted} of units under the header left out (without time and numbers, from {first!r})")
    table, named, sources, dropped = _kept(table, named, sources, _empty_end(table, sources))
    if dropped:
        remarks.append(f"{dropped} empty row{'s' * (dropped > 1)} at the end left out")
    _check(files[0].file, table, sources)
    encodings = sorted({f.dialect.encoding for f in files})
    if len(encodings) > 1:
        remarks.append(f"encodings: {', '.join(encodings)}")
    quoted = any(b'"' in f.records.text for f in files)
    return Frame(table, tuple(sources), files[0].dialect, named, quoted, tuple(remarks))


def _empty_end(table: Any, sources: list[Source]) -> Bool:
    """Return which rows to keep: all but those without any value at the end of each file. Spreadsheets write them."""
    keep: Bool = np.ones(table.num_rows, np.bool_)
    if not table.num_columns or not table.column(0).null_count:
        return keep
    for source, end in zip(sources, np.cumsum([s.rows for s in sources]).tolist(), strict=True):
        row = end - 1
        while row > end - source.rows and all(not c[row].is_valid for c in table.itercolumns()):
            keep[row] = False
            row -= 1
    return keep


def _unit_rows(table: Any, sources: list[Source]) -> Bool:
    """Return which rows to keep: all but the rows of units under each file's header. Loggers write them."""
    keep: Bool = np.ones(table.num_rows, np.bool_)
    begin = 0
    for source in sources:
        few = table.slice(begin, min(source.rows, MOST_UNIT_ROWS + 1))
        if few.num_rows and 0 < few.num_columns <= _MOST_COLUMNS_WITH_UNITS:
            count = count_unit_rows([[c[i].as_py() for c in few.itercolumns()] for i in range(few.num_rows)])
            keep[begin : begin + count] = False
        begin += source.rows
    return keep


def _kept(table: Any, named: Any, sources: list[Source], keep: Bool) -> tuple[Any, Any, list[Source], int]:
    """Return some rows of each file, from a first to a last one, and how many are left out."""
    import pyarrow as pa

    dropped = int((~keep).sum())
    if not dropped:
        return table, named, sources, 0
    shorter: list[Source] = []
    begin = 0
    for source in sources:
        rows = np.flatnonzero(keep[begin : begin + source.rows])
        first = int(rows[0]) if len(rows) else 0
        lines = None if source.lines is None else source.lines[rows]
        shorter.append(replace(source, rows=len(rows), lines=lines, first=source.first + first))
        begin += source.rows
    mask = pa.array(keep)
    return table.filter(mask), None if named is None else named.filter(mask), shorter, dropped


def _typed_frame(opened: list[tuple[Path, Any]], given: Dialect) -> Frame:
    """Return the frame of Parquet or HDF5 files."""
    import pyarrow as pa

    table = opened[0][1] if len(opened) == 1 else pa.concat_tables([t for _, t in opened])
    sources = [Source(file, t.num_rows, None, 1, "row") for file, t in opened]
    _check(opened[0][0], table, sources)
    return Frame(table, tuple(sources), given=given)


def _check(file: Path, table: Any, sources: list[Source]) -> None:
    name, count = Counter(table.column_names).most_common(1)[0] if table.num_columns else ("", 0)
    if count > 1:
        called = f"called {name!r}" if name else "without a name"
        raise DataError("path", f"{file} has more than one column {called}", fix="Give each a name of its own.")
    for source in sources:
        if not source.rows:
            raise DataError("path", f"{source.file} holds no rows")


def _plain_text(table: Any) -> Any:
    """Return a table whose columns of text, coded or large, are plain strings."""
    import pyarrow as pa

    for i, column in enumerate(table.schema):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if kind != column.type or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
            new = table.column(i).cast(pa.string() if text else kind)
            table = table.set_column(i, column.name, new)
    return table
