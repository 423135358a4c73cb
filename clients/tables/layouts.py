"""Makes one series a client from the columns and rows of a table: the layouts "wide", "long" and "files"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from clients.core.arrays import F64, I64
from clients.core.errors import DataError
from clients.tables.columns import keep_clients, sensors
from clients.tables.files import read_frames
from clients.tables.finding import find_tables
from clients.tables.frame import Frame, place_in
from clients.tables.names import describe_names, file_names, without_spaces
from clients.tables.reading import Reading, describe_files, describe_missing
from clients.tables.repair import put_on_grid
from clients.tables.series import Series
from clients.tables.text.times import Clock, find_time, read_times

if TYPE_CHECKING:
    from clients.tables.options import TableOptions


def read_series(options: TableOptions, reading: Reading) -> list[Series]:
    """Read the clients' series in the options' layout, each on its time grid.

    Args:
        options: what to read.
        reading: gets facts about the files and how they were read.

    Raises:
        DataError: naming the file, the column and the line at fault.
    """
    found = find_tables(options.path)
    frames = read_frames(found.files, options.dialect)
    reading.record.update({"files": len(found.files), "layout": options.layout})
    describe_files(reading, frames, found.remarks)
    if options.layout == "wide":
        return _wide(options, frames, reading)
    series = _long(options, frames, reading) if options.layout == "long" else _files(options, frames, reading)
    kept = keep_clients(options, [s.name for s in series])
    if len(kept) < len(series):
        reading.parts.append(f"{len(kept):,} of {len(series):,} clients")
    return put_on_grid(options, [series[i] for i in kept], reading)


def _times(
    options: TableOptions, frame: Frame, reading: Reading, owners: I64 | None
) -> tuple[tuple[str, ...], I64 | None]:
    """Return the names of the time columns and the times."""
    names = (options.time,) if isinstance(options.time, str) else options.time
    if names:
        frame.require_columns(names, "time")
    else:
        names = find_time(frame, options.time_format, owners)
        if out := next((n for n in names if n in options.exclude), ""):
            names = ()
            reading.say(f"column {out!r} of times is excluded: rows are taken as evenly spaced")
    if not names:
        if options.time_format or options.time_zone:
            key = "time_format" if options.time_format else "time_zone"
            raise DataError("time", f"{frame.file} has no column of times that {key} fits", fix="Name it.")
        if options.frequency:
            raise DataError("time", f"{frame.file} has no column of times to check frequency by", fix="Name it.")
        if "no times" not in reading.parts:
            reading.parts.append("no times")
        return (), None
    times = read_times(frame, names, Clock(options.time_format, options.time_zone), owners)
    if times.read not in reading.parts:
        reading.parts.append(times.read)
        reading.record["time"] = times.read
    return names, times.stamps


def _matrix(options: TableOptions, frame: Frame, columns: tuple[str, ...], field: str, reading: Reading) -> F64:
    """Return the forecast columns and then the features. In the former `missing_value` marks a missing value."""
    frame.parse([*columns, *options.features])
    parts = [frame.matrix(columns, field)]
    if options.missing_value is not None:
        marks = parts[0] == options.missing_value
        parts[0][marks] = np.nan
        reading.add("values_marked", int(marks.sum()))
    if options.features:
        parts.append(frame.matrix(options.features, "features"))
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def _joined(
    options: TableOptions, frames: Sequence[Frame], reading: Reading, owners: Sequence[I64 | None], target: str
) -> Series:
    """Return the rows of all frames with their target and features, and the place of each."""
    channels = (target, *options.features)
    for frame in frames:
        frame.require_columns((target,), "target")
        frame.require_columns(options.features, "features")
    times = [_times(options, f, reading, o)[1] for f, o in zip(frames, owners, strict=True)]
    values = np.concatenate([_matrix(options, f, (target,), "target", reading) for f in frames])
    describe_missing(reading, frames, channels)
    return Series("", values, channels, _all_or_none(frames, times), partial(place_in, frames), np.arange(len(values)))


def _all_or_none(frames: Sequence[Frame], times: Sequence[I64 | None]) -> I64 | None:
    known = [t for t in times if t is not None]
    if known and len(known) < len(times):
        raise DataError("time", f"{frames[0].file} and the other files must all have times, or none")
    return np.concatenate(known) if known else None


def _split(whole: Series, names: Sequence[str], ends: Sequence[int], order: I64 | None = None) -> list[Series]:
    """Cut a series into its clients', which follow each other, in `order` of its rows."""
    if order is not None:
        time = None if whole.time is None else whole.time[order]
        whole = replace(whole, values=whole.values[order], time=time, rows=whole.rows[order])
    starts = [0, *ends[:-1]]
    return [
        replace(
            whole,
            name=name,
            values=whole.values[a:b],
            time=None if whole.time is None else whole.time[a:b],
            rows=whole.rows[a:b],
        )
        for name, a, b in zip(names, starts, ends, strict=True)
    ]


def _files(options: TableOptions, frames: list[Frame], reading: Reading) -> list[Series]:
    """Read one client a file, named by the file or by a column of one value."""
    sources = [source for frame in frames for source in frame.sources]
    owners = [np.repeat(np.arange(len(f.sources)), [s.rows for s in f.sources]) for f in frames]
    names = file_names([source.file for source in sources])
    if options.id_column:
        names = [name for frame in frames for name in _one_name(options.id_column, frame)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError("id_column", f"several files are of {min(twice)!r}; they must be of different clients")
    whole = _joined(options, frames, reading, owners, options.target)
    describe_names(reading, names)
    return _split(whole, names, np.cumsum([s.rows for s in sources]).tolist())


def _one_name(column: str, frame: Frame) -> list[str]:
    """Return the name that each file of a frame has in a column."""
    frame.require_columns((column,), "id_column")
    known, codes = frame.codes(column)
    names: list[str] = []
    for source, start, end in zip(frame.sources, frame.starts[:-1].tolist(), frame.starts[1:].tolist(), strict=True):
        own = codes[start:end]
        if (own < 0).any():
            row = start + int(np.flatnonzero(own < 0)[0])
            raise DataError("id_column", f"{frame.place(row)}: column {column!r} is empty")
        if own.min() != own.max():
            found = f"{source.file} names {len(np.unique(own))} clients in column {column!r}"
            raise DataError(
                "id_column", f"{found}, and with layout = 'files' it must be one", fix="Use layout = 'long'."
            )
        names.append(known[own[0]])
    return names


def _long(options: TableOptions, frames: list[Frame], reading: Reading) -> list[Series]:
    """Read a table with a row for each client and time; clients are in order of their names."""
    owners: list[I64] = []
    index: dict[str, int] = {}
    for frame in frames:
        frame.require_columns((options.id_column,), "id_column")
    coded = [frame.codes(options.id_column) for frame in frames]
    bare = without_spaces([name for names, _ in coded for name in names], reading)
    for frame, (known, codes) in zip(frames, coded, strict=True):
        if (codes < 0).any():
            place = frame.place(int(np.flatnonzero(codes < 0)[0]))
            raise DataError("id_column", f"{place}: column {options.id_column!r} is empty")
        owners.append(np.array([index.setdefault(bare.get(name, name), len(index)) for name in known], np.int64)[codes])
    whole = _joined(options, frames, reading, owners, options.target)
    names = sorted(index)
    rank = np.empty(len(names), np.int64)
    rank[[index[name] for name in names]] = np.arange(len(names))
    owner = rank[np.concatenate(owners)]
    describe_names(reading, names)
    ends = np.cumsum(np.bincount(owner, minlength=len(names)))
    return _split(whole, names, ends.tolist(), np.argsort(owner, kind="stable").astype(np.int64))


def _wide(options: TableOptions, frames: list[Frame], reading: Reading) -> list[Series]:
    """Read a table with a column for each client; files of the same columns follow each other in time."""
    first = frames[0]
    for frame in frames[1:]:
        if set(frame.names) != set(first.names):
            other = sorted(set(frame.names) ^ set(first.names))[0]
            raise DataError(
                "path", f"{frame.file} and {first.file} differ in column {other!r}", fix="Use layout = 'files'?"
            )
    first.require_columns(options.features, "features")
    read = [_times(options, frame, reading, None) for frame in frames]
    names = sensors(options, first, read[0][0], reading)
    values = np.concatenate([_matrix(options, frame, names, "columns", reading) for frame in frames])
    describe_missing(reading, frames, (*names, *options.features))
    file = str(first.file)
    time = _all_or_none(frames, [times for _, times in read])
    rows = Series(file, values, (*names, *options.features), time, partial(place_in, frames), np.arange(len(values)))
    named = read[0][0]
    off_grid = f"; exclude = {list(named)} takes rows as evenly spaced" if named else ""
    (table,) = put_on_grid(options, [rows], reading, off_grid)
    extra = table.values[:, len(names) :]
    block = np.empty((len(names), len(table.values), 1 + extra.shape[1]))
    block[:, :, 0] = table.values[:, : len(names)].T
    block[:, :, 1:] = extra
    return [
        replace(table, name=name, values=block[k], channels=(name, *options.features)) for k, name in enumerate(names)
    ]
