"""Reads CSV and Parquet files as numbers, times and names. Errors name the file, line and column."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import F64, I64, Bool
from clients.core.errors import DataError, unknown_name
from clients.tables.hdf5 import read_hdf5

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
SUFFIXES = (".csv", ".csv.gz", ".csv.xz", ".parquet", ".pq", *HDF5_SUFFIXES)
TIME_FORMATS = ("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y-%m-%d %H:%M")
TIME_NAMES = ("time", "timestamp", "date", "datetime", "date_time")
TIME_PARTS = ("year", "month", "day", "hour", "minute", "second")
_UNITS = {"ms": 10**3, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}


@dataclass(frozen=True)
class Frame:
    """One file's table.

    Attributes:
        file: its path.
        table: a `pyarrow.Table` with distinct column names.
        lines: line of the header and of every row of a CSV, from 1, int64 (rows + 1,); None where none is skipped.
    """

    file: Path
    table: Any
    lines: I64 | None = None

    @property
    def names(self) -> list[str]:
        """Column names."""
        return list(self.table.column_names)

    def place(self, row: int) -> str:
        """Describe the place of row `row` (from 0), for people."""
        if self.file.name.endswith((".parquet", ".pq", *HDF5_SUFFIXES)):
            return f"{self.file}, row {row + 1}"
        return f"{self.file}, line {row + 2 if self.lines is None else self.lines[row + 1]}"

    def require_columns(self, names: Sequence[str], field: str) -> None:
        """Refuse names that are not columns."""
        for name in names:
            if name not in self.names:
                raise DataError(field, f"{self.file}: {unknown_name(name, self.names, 'a column')}")

    def is_numeric(self, name: str) -> bool:
        """Return whether a column was read as numbers (or is empty)."""
        import pyarrow as pa

        kind = self.table.schema.field(name).type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        return bool(number or pa.types.is_boolean(kind) or pa.types.is_null(kind))

    def is_time(self, name: str) -> bool:
        """Return whether a column was read as timestamps or dates."""
        import pyarrow as pa

        kind = self.table.schema.field(name).type
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))

    def numbers(self, name: str, field: str) -> F64:
        """Return a column as float64, NaN where it is empty.

        Raises:
            DataError: it holds text, or an infinity; the first is named.
        """
        import pyarrow as pa

        column = self.table.column(name)
        if not self.is_numeric(name):
            texts = column.cast(pa.string()).to_pylist()
            row = next((i for i, t in enumerate(texts) if t is not None and not _is_number(t)), 0)
            raise DataError(field, f"{self.place(row)}, column {name!r}: {texts[row]!r} is not a number")
        values: F64 = column.cast(pa.float64()).to_numpy().astype(np.float64)
        if np.isinf(values).any():
            row = int(np.flatnonzero(np.isinf(values))[0])
            raise DataError(field, f"{self.place(row)}, column {name!r}: {values[row]} is not finite")
        return values

    def share_of_numbers(self, name: str) -> float:
        """Return the share of a text column that reads as numbers, from 0 to 1."""
        import pyarrow as pa

        if self.is_time(name):
            return 0.0
        texts = [t for t in self.table.column(name).cast(pa.string()).to_pylist() if t is not None]
        return sum(map(_is_number, texts)) / max(len(texts), 1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_frame(file: Path, time_format: str = "", *, delimiter: str = ",", missing: Sequence[str] = ()) -> Frame:
    """Read one file, plain or compressed.

    Args:
        file: CSV, Parquet or a data frame in HDF5, by the suffix of its name (`SUFFIXES`, else CSV).
        time_format: a `strptime` format that is tried first for times.
        delimiter: separator of the columns of a CSV.
        missing: texts in a CSV that mark a missing value, besides the usual ("", "NA", "nan", ...).

    Raises:
        DataError: it cannot be read, holds no rows, or repeats a column name.
    """
    import pyarrow as pa
    from pyarrow import parquet

    lines = None
    if file.name.endswith(HDF5_SUFFIXES):
        table = read_hdf5(file)
    else:
        try:
            if file.name.endswith((".parquet", ".pq")):
                table = parquet.read_table(file)
            else:
                opener = gzip.open if file.suffix == ".gz" else lzma.open if file.suffix == ".xz" else open
                with opener(file, "rb") as stream:
                    raw = stream.read()
                lines = _lines(raw)
                table = _read_csv(raw, time_format, delimiter, missing)
        except (OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
            raise DataError("path", f"{file} cannot be read ({_by_line(str(error), lines)})") from error
    names = table.column_names
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError("path", f"{file} has more than one column called {twice[0]!r}")
    if not table.num_rows:
        raise DataError("path", f"{file} holds no rows")
    return Frame(file, table, lines)


def _read_csv(raw: bytes, time_format: str, delimiter: str, missing: Sequence[str]) -> Any:
    """Return the `pyarrow.Table` of a CSV."""
    import pyarrow as pa
    from pyarrow import csv

    usual = csv.ConvertOptions()
    how: dict[str, Any] = {
        "parse_options": csv.ParseOptions(delimiter=delimiter),
        "convert_options": csv.ConvertOptions(
            timestamp_parsers=[*([time_format] if time_format else []), csv.ISO8601, *TIME_FORMATS],
            null_values=[*usual.null_values, *missing],
            strings_can_be_null=True,
        ),
    }
    # One block, since a column's type is inferred from the first block alone.
    block = min(max(len(raw) + 1, 1 << 16), 2**31 - 1)
    try:
        return csv.read_csv(pa.BufferReader(raw), csv.ReadOptions(block_size=block), **how)
    except pa.ArrowInvalid:  # pyarrow counts rows only if one thread reads them all
        return csv.read_csv(pa.BufferReader(raw), csv.ReadOptions(block_size=block, use_threads=False), **how)


def _lines(raw: bytes) -> I64 | None:
    """Return the numbers of the lines that are not empty (pyarrow skips empty ones), or None if no line is empty."""
    if b"\n\n" not in raw and b"\n\r\n" not in raw and not raw.startswith((b"\n", b"\r\n")):
        return None
    return np.asarray([i for i, line in enumerate(raw.split(b"\n"), 1) if line not in (b"", b"\r")], np.int64)


def _by_line(problem: str, lines: I64 | None) -> str:
    """Replace pyarrow's row number, which counts the header, by a line number; a quotation of the row may follow."""

    def line(row: re.Match[str]) -> str:
        return f"line {row[1] if lines is None else lines[int(row[1]) - 1]}"

    return re.sub(r"Row #(\d+)", line, problem)[:200]


def find_time(frame: Frame) -> tuple[str, ...]:
    """Return the columns of times, or none: year, month, day ..., or one that was read or named as a time.

    A text column whose first entry looks like a time counts too, so one bad entry is reported and does not hide the
    times.
    """
    if all(part in frame.names for part in TIME_PARTS[:3]):
        absent = [part not in frame.names for part in TIME_PARTS]
        return TIME_PARTS[: absent.index(True) if any(absent) else len(TIME_PARTS)]
    read = [n for n in frame.names if frame.is_time(n)]
    named = [n for n in frame.names if n.lower() in TIME_NAMES]
    text = [n for n in frame.names if not frame.is_numeric(n) and _is_iso(str(frame.table.column(n)[0].as_py()))]
    return tuple((*read, *named, *text)[:1])


def read_times(frame: Frame, names: tuple[str, ...]) -> I64:
    """Return the time of every row in microseconds since 1970, from one column or from parts.

    Args:
        frame: the file.
        names: one column of timestamps (or of seconds since 1970), or at least the columns of year, month and day, and
            then of hour, minute and second.

    Raises:
        DataError: a time is missing or invalid.
    """
    import pyarrow as pa

    if len(names) == 1:
        column = frame.table.column(names[0])
        if frame.is_time(names[0]):
            stamps = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)))
            _refuse_empty(frame, names[0], np.asarray(stamps.is_null().to_numpy()))
            return np.asarray(stamps.cast(pa.int64()).to_numpy(), np.int64)
        if frame.is_numeric(names[0]):
            seconds = frame.numbers(names[0], "time")
            _refuse_empty(frame, names[0], np.isnan(seconds))
            return np.rint(seconds * 1e6).astype(np.int64)
        texts = column.cast(pa.string()).to_pylist()
        row = next((i for i, text in enumerate(texts) if not _is_iso(text)), 0)
        raise DataError(
            "time",
            f"{frame.place(row)}, column {names[0]!r}: {texts[row]!r} is not a time like 2013-03-01 05:00:00",
            fix="Correct it, or give time_format as strptime reads it, such as '%d.%m.%Y %H:%M'.",
        )
    parts = [frame.numbers(name, "time") for name in names]
    for name, part in zip(names, parts, strict=True):
        _refuse_empty(frame, name, np.isnan(part))
    whole = [part.astype(np.int64) for part in parts]
    months = ((whole[0] - 1970) * 12 + whole[1] - 1).astype("M8[M]")
    days = months.astype("M8[D]") + (whole[2] - 1)
    bad = (whole[1] < 1) | (whole[1] > 12) | (days.astype("M8[M]") != months)
    times = days.astype("M8[us]").astype(np.int64)
    for count, unit, limit in zip(whole[3:], ("h", "min", "s"), (24, 60, 60), strict=False):
        bad |= (count < 0) | (count >= limit)
        times = times + count * _UNITS[unit]
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        got = ", ".join(f"{name} {count[row]}" for name, count in zip(names, whole, strict=True))
        raise DataError("time", f"{frame.place(row)}: {got} is not a time")
    return times


def _refuse_empty(frame: Frame, name: str, empty: Bool) -> None:
    if empty.any():
        raise DataError("time", f"{frame.place(int(np.flatnonzero(empty)[0]))}, column {name!r}: the time is missing")


def _is_iso(text: str | None) -> bool:
    try:
        np.datetime64(text)
    except (ValueError, TypeError):
        return False
    return text is not None


def parse_frequency(text: str) -> int:
    """Return a frequency such as "5min", "1h", "30s" or "1d" in microseconds; 0 for an empty one.

    Raises:
        DataError: it is not a frequency.

    Example:
        >>> parse_frequency("5min") // 10**6
        300
    """
    if not text:
        return 0
    found = re.fullmatch(r"\s*(\d*)\s*(ms|s|min|h|d)\s*", text.lower())
    step = int(found[1] or 1) * _UNITS[found[2]] if found else 0
    if step <= 0:
        raise DataError("frequency", f"must be a number and one of {', '.join(_UNITS)}, such as '5min', got {text!r}")
    return step


def show_time(microseconds: int) -> str:
    """Format a time for people.

    Example:
        >>> show_time(parse_frequency("1h"))
        '1970-01-01 01:00:00'
    """
    stamp = np.datetime64(int(microseconds), "us")
    return str(stamp.astype("M8[s]") if microseconds % 10**6 == 0 else stamp).replace("T", " ")


def show_step(microseconds: int) -> str:
    """Format a time step in the largest unit that divides it.

    Example:
        >>> show_step(5400 * 10**6)
        '90min'
    """
    unit = next((u for u in ("d", "h", "min", "s", "ms") if microseconds % _UNITS[u] == 0), "")
    return f"{microseconds // _UNITS[unit]}{unit}" if unit else f"{microseconds}us"
