"""Puts rows in order of time and on a grid, and resolves rows of one time, where the options allow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from clients.core.errors import DataError
from clients.tables.reading import Reading, counted, describe_steps
from clients.tables.series import Series, on_grid, refuse_gaps
from clients.tables.text.steps import parse_frequency, show_time

if TYPE_CHECKING:
    from clients.tables.options import Duplicates, TableOptions


def put_on_grid(options: TableOptions, series: Sequence[Series], reading: Reading, off_grid: str = "") -> list[Series]:
    """Return series in order of time and on their grids; `off_grid` is more to do about times off the grid."""
    found: list[Series] = []
    steps: list[tuple[str, int]] = []
    for one in series:
        ordered = in_order(one, options.sort, options.duplicates, reading)
        gridded, step = on_grid(ordered, parse_frequency(options.frequency), options.gaps, off_grid)
        reading.add("rows_inserted", len(gridded.values) - len(ordered.values))
        if options.gaps == "error":
            refuse_gaps(gridded)
        found.append(gridded)
        steps.append((one.name, step))
    describe_steps(reading, steps)
    return found


def in_order(series: Series, sort: bool, duplicates: Duplicates, reading: Reading) -> Series:
    """Return a series whose times increase.

    Args:
        series: rows as they are in the file.
        sort: put them in order of time first.
        duplicates: which of the rows of one time to keep: "first" or "last" in the file, or their "mean"; "error" none.
        reading: gets how many rows that touched.

    Raises:
        DataError: times are out of order, or occur twice; the row is named.
    """
    time = series.time
    if time is None or len(time) < 2:
        return series
    steps = np.diff(time)
    if (steps > 0).all():
        return series
    if (steps < 0).any():
        if not sort:
            raise _out_of_order(series, int(np.flatnonzero(steps < 0)[0]) + 1)
        order = np.argsort(time, kind="stable")
        reading.add("rows_sorted", int((order != np.arange(len(order))).sum()))
        series = replace(series, values=series.values[order], time=time[order], rows=series.rows[order])
        steps = np.diff(time[order])
    if (steps == 0).any():
        if duplicates == "error":
            raise _twice(series, int(np.flatnonzero(steps == 0)[0]) + 1)
        series = _merged(series, duplicates, reading)
    return series


def _named(series: Series) -> str:
    """Return the client's name for a message; a file's name is in the row's place already."""
    return "" if series.place(0).startswith(f"{series.name},") else f", of {series.name!r}"


def _out_of_order(series: Series, row: int) -> DataError:
    assert series.time is not None
    before = show_time(int(series.time[row - 1]))
    problem = f"{series.at(row)}{_named(series)}: does not come after {before} in the row before"
    fix = "Set sort = true to put rows in order of time; if clocks were set back for the winter, set time_zone."
    return DataError("time", problem, fix=fix)


def _twice(series: Series, row: int) -> DataError:
    assert series.time is not None
    count = int((np.diff(series.time) == 0).sum())
    before = show_time(int(series.time[row - 1]))
    problem = f"{series.at(row)}{_named(series)}: does not come after {before} in the row before; {count} such rows"
    fix = "Set duplicates to 'first', 'last' or 'mean'; if clocks were set back for the winter, set time_zone; if "
    fix += "another column has the time of day, name both in time; if one names the sensor, set layout = 'long'."
    return DataError("time", problem, fix=fix)


def _merged(series: Series, duplicates: Duplicates, reading: Reading) -> Series:
    """Return one row for each time."""
    assert series.time is not None
    time, first, counts = np.unique(series.time, return_index=True, return_counts=True)
    reading.add("rows_merged", len(series.time) - len(time))
    if duplicates == "mean":
        known = ~np.isnan(series.values)
        number = np.add.reduceat(known.astype(np.float64), first, axis=0)
        total = np.add.reduceat(np.where(known, series.values, 0.0), first, axis=0)
        with np.errstate(invalid="ignore"):
            values = total / number
        return replace(series, values=values, time=time, rows=series.rows[first])
    kept = first if duplicates == "first" else first + counts - 1
    return replace(series, values=series.values[kept], time=time, rows=series.rows[kept])


def describe_repairs(reading: Reading, duplicates: Duplicates) -> None:
    """Say how many rows were moved or merged."""
    if moved := reading.count("rows_sorted"):
        reading.say(f"{counted(moved, 'row')} put in order of time (sort = true)")
    if merged := reading.count("rows_merged"):
        done = "averaged with it" if duplicates == "mean" else "left out"
        what = counted(merged, "row", f"of a time that another row has {done}")
        reading.say(f"{what} (duplicates = {duplicates!r})")
