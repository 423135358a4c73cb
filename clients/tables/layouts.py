"""Makes one series a client from the columns and rows of a table: the layouts "wide", "long" and "files"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clients.core.arrays import F64, I64
from clients.core.errors import DataError
from clients.core.file_paths import find_files
from clients.tables.files import SUFFIXES, read_frame
from clients.tables.frame import Frame
from clients.tables.series import Series, on_grid, refuse_gaps
from clients.tables.text.steps import parse_frequency, show_step
from clients.tables.text.times import Clock, find_time, read_times

if TYPE_CHECKING:
    from clients.tables.options import TableOptions

Notes = dict[str, str | int | float]
"""Facts about how the data were read, for the record."""


def read_series(options: TableOptions, notes: Notes) -> list[Series]:
    """Read the clients' series in the options' layout, each on its time grid.

    Args:
        options: what to read.
        notes: gets facts about the files and how they were read.

    Raises:
        DataError: naming the file, the column and the line at fault.
    """
    files = find_files(options.path, "path", SUFFIXES)
    other = [file for file in files if not file.name.endswith(SUFFIXES)]
    if other:
        raise DataError("path", f"{other[0]} is not one of {', '.join(SUFFIXES)}")
    frames = [read_frame(file) for file in files]
    notes |= {"files": len(files), "layout": options.layout}
    if options.layout == "files":
        names = file_names(files)
        series = [_site(options, frame, name) for frame, name in zip(frames, names, strict=True)]
    elif options.layout == "long":
        series = _long(options, frames)
    else:
        return _wide(options, frames, notes)
    gridded = [_gridded(options, s, notes) for s in series]
    twice = {s.name for s in gridded if [g.name for g in gridded].count(s.name) > 1}
    if twice:
        raise DataError("id_column", f"several files are of {min(twice)!r}; they must be of different clients")
    return gridded


def _gridded(options: TableOptions, series: Series, notes: Notes) -> Series:
    gridded, step = on_grid(series, parse_frequency(options.frequency), options.gaps)
    if step:
        notes["frequency"] = show_step(step)
    inserted = len(gridded.values) - len(series.values)
    notes["rows_inserted"] = int(notes.get("rows_inserted", 0)) + inserted
    if options.gaps == "error":
        refuse_gaps(gridded)
    return gridded


def _times(options: TableOptions, frame: Frame) -> tuple[tuple[str, ...], I64 | None]:
    """Return the names of the time columns and the times."""
    names = (options.time,) if isinstance(options.time, str) else options.time
    if names:
        frame.require_columns(names, "time")
        if len(names) == 2:
            raise DataError("time", f"must be one column, or year, month, day and so on, got {list(names)}")
    else:
        names = find_time(frame)
    if not names:
        if options.frequency:
            raise DataError("time", f"{frame.file} has no column of times to check frequency by", fix="Name it.")
        return (), None
    return names, read_times(frame, names, Clock(options.time_format)).stamps


def _matrix(options: TableOptions, frame: Frame, columns: tuple[str, ...], field: str, sensors: int) -> F64:
    """Return columns of numbers. In the first `sensors` of them `missing_value` marks a missing value."""
    values = np.stack([frame.numbers(name, field) for name in columns], axis=1)
    if options.missing_value is not None:
        forecast = values[:, :sensors]
        forecast[forecast == options.missing_value] = np.nan
    return values


def _site(options: TableOptions, frame: Frame, name: str) -> Series:
    """Read the file of one client."""
    frame.require_columns((options.target,), "target")
    frame.require_columns(options.features, "features")
    if options.id_column:
        frame.require_columns((options.id_column,), "id_column")
        ids = set(map(str, frame.texts(options.id_column)))
        if len(ids) != 1:
            found = f"{frame.file} names {len(ids)} clients in column {options.id_column!r}"
            raise DataError(
                "id_column", f"{found}, and with layout = 'files' it must be one", fix="Use layout = 'long'."
            )
        name = ids.pop()
    channels = (options.target, *options.features)
    _, time = _times(options, frame)
    return Series(
        name,
        _matrix(options, frame, channels, "target", 1),
        channels,
        time,
        frame.place,
        np.arange(frame.table.num_rows),
    )


def file_names(files: list[Path]) -> list[str]:
    """Name clients by the parts in which their files' names differ, cut at separators."""
    stems = [re.sub(r"\.(csv|parquet|pq)(\.gz|\.xz)?$", "", f.name) for f in files]
    if len(stems) < 2:
        return stems
    head = re.sub(r"[^ _.-]*$", "", _common_start(stems))
    tail = re.sub(r"[^ _.-]*$", "", _common_start([s[len(head) :][::-1] for s in stems]))
    short = [s[len(head) : len(s) - len(tail)] for s in stems]
    return short if all(short) else stems


def _common_start(texts: Sequence[str]) -> str:
    return "".join(letters[0] for letters in takewhile(lambda c: len(set(c)) == 1, zip(*texts, strict=False)))


def _joined(frames: list[Frame], pieces: list[Series]) -> Series:
    """Join consecutive files, with the place of each row."""
    ends = np.cumsum([len(p.values) for p in pieces])

    def place(row: int) -> str:
        which = int(np.searchsorted(ends, row, side="right"))
        return frames[which].place(row - (int(ends[which - 1]) if which else 0))

    times = [p.time for p in pieces if p.time is not None]
    if times and len(times) < len(pieces):
        raise DataError("time", f"{frames[0].file} and the other files must all have times, or none")
    time = np.concatenate(times) if times else None
    values = np.concatenate([p.values for p in pieces])
    return Series(pieces[0].name, values, pieces[0].channels, time, place, np.arange(len(values)))


def _long(options: TableOptions, frames: list[Frame]) -> list[Series]:
    """Read a table with a row for each client and time; clients are in order of their names."""
    ids: list[str] = []
    for frame in frames:
        frame.require_columns((options.id_column,), "id_column")
        own = frame.texts(options.id_column)
        if None in own:
            raise DataError("id_column", f"{frame.place(own.index(None))}: column {options.id_column!r} is empty")
        ids += map(str, own)
    whole = _joined(frames, [_site(replace(options, id_column="", layout="files"), f, "") for f in frames])
    names, owner = np.unique(np.asarray(ids), return_inverse=True)
    order = np.argsort(owner, kind="stable")
    cuts = np.split(order, np.cumsum(np.bincount(owner))[:-1])
    return [
        replace(
            whole,
            name=str(name),
            values=whole.values[rows],
            time=None if whole.time is None else whole.time[rows],
            rows=rows.astype(np.int64),
        )
        for name, rows in zip(names, cuts, strict=True)
    ]


def _wide(options: TableOptions, frames: list[Frame], notes: Notes) -> list[Series]:
    """Read a table with a column for each client; files of the same columns follow each other in time."""
    first = frames[0]
    for frame in frames[1:]:
        if set(frame.names) != set(first.names):
            other = sorted(set(frame.names) ^ set(first.names))[0]
            raise DataError(
                "path", f"{frame.file} and {first.file} differ in column {other!r}", fix="Use layout = 'files'?"
            )
    first.require_columns(options.features, "features")
    time_names, _ = _times(options, first)
    sensors = _sensors(options, first, time_names, notes)
    columns = (*sensors, *options.features)
    pieces = [
        Series(
            str(f.file),
            _matrix(options, f, columns, "columns", len(sensors)),
            columns,
            _times(options, f)[1],
            f.place,
            np.arange(f.table.num_rows),
        )
        for f in frames
    ]
    table = _gridded(options, _joined(frames, pieces), notes)
    extra = table.values[:, len(sensors) :]
    return [
        replace(
            table,
            name=sensor,
            values=np.concatenate((table.values[:, c : c + 1], extra), axis=1),
            channels=(sensor, *options.features),
        )
        for c, sensor in enumerate(sensors)
    ]


def _sensors(options: TableOptions, frame: Frame, time_names: tuple[str, ...], notes: Notes) -> tuple[str, ...]:
    """Return the columns of sensors: those of the options, or all numeric columns except a row count."""
    if options.columns:
        frame.require_columns(options.columns, "columns")
        return options.columns
    others = [n for n in frame.names if n not in time_names and n not in options.features]
    skipped = [n for n in others if not frame.is_numeric(n) and frame.parsed(n).numbers < frame.parsed(n).bad]
    sensors = [n for n in others if n not in skipped]
    if sensors and sensors[0] == frame.names[0] and frame.is_numeric(sensors[0]):
        values = frame.numbers(sensors[0], "columns")
        if len(values) > 2 and (np.diff(values) == 1).all():  # a row count, which data frames are often saved with
            skipped.append(sensors.pop(0))
    if skipped:
        notes["columns_skipped"] = ", ".join(skipped)
    if not sensors:
        raise DataError(
            "columns", f"{frame.file} has no column of numbers to forecast; it has {', '.join(frame.names)}"
        )
    return tuple(sensors)
