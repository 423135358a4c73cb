"""Electric power of one household near Paris, minute by minute for four years (Hebrail and Berard; UCI 235).

There is one household, so its clients are parts of it: calendar months (47 and a bit, which differ by season), or its
meters (kitchen, laundry, water heater and air conditioner, and the rest). Minutes become hourly means in kW.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from clients.core.arrays import F64, I64
from clients.core.errors import DataError
from clients.core.population import Population
from clients.datasets.published import Published, require_published
from clients.datasets.series_options import COLUMNS, FILE, METERS, POWER, HouseholdPowerOptions, household_power_table
from clients.tables.files import read_frame
from clients.tables.frame import Frame
from clients.tables.reading import Reading, describe_files, describe_missing
from clients.tables.series import Series
from clients.tables.table import windowed_population
from clients.tables.text.dialect import Dialect
from clients.tables.text.steps import show_time

HOUSEHOLD_POWER = Published(
    name="Individual Household Electric Power Consumption (UCI 235)",
    page="https://archive.ics.uci.edu/dataset/235/individual+household+electric+power+consumption",
    licence="CC BY 4.0",
    take="the zip, and out of it household_power_consumption.txt",
)
_HOUR = 3_600_000_000  # microseconds


def household_power_population(options: HouseholdPowerOptions, *, dtype: torch.dtype = torch.float32) -> Population:
    """Read the minutes and make the population: features [n, window, 1 + features], targets [n, horizon].

    Raises:
        DataError: the file is missing (the message names its source) or unusable (it names the place).
    """
    reading = Reading(record={"clients_are": options.clients, "frequency": "1h"})
    series = household_power_series(options, reading)
    return windowed_population(series, household_power_table(options), reading, dtype=dtype)


def household_power_series(options: HouseholdPowerOptions, reading: Reading | None = None) -> list[Series]:
    """Read the minutes and return the clients' hours, in kW (V and A for voltage and intensity).

    Args:
        options: the file and what clients are.
        reading: gets facts about how the file was read.

    Raises:
        DataError: see `household_power_population`.
    """
    path = require_published(options.path, HOUSEHOLD_POWER)
    if path.is_dir():
        path = require_published(str(path / FILE), HOUSEHOLD_POWER)
    frame = read_frame(path, Dialect(delimiter=";", missing=("?",)))
    frame.require_columns(("Date", "Time", *COLUMNS), "path")
    hour, values = _hourly(_times(frame), np.stack([frame.numbers(c, "path") for c in COLUMNS], 1), options.minutes)
    if reading is not None:
        describe_files(reading, [frame], ())
        reading.parts.append("time from Date+Time (day first), minutes averaged to hours")
        describe_missing(reading, [frame], COLUMNS)
    meters = [COLUMNS.index(m) for m in METERS]
    values[:, meters] *= 60 / 1000  # watt-hours a minute to kW
    if options.clients == "meters":
        rest = values[:, :1] - values[:, meters].sum(axis=1, keepdims=True)
        named = zip((*METERS.values(), "rest"), np.concatenate((values[:, meters], rest), axis=1).T, strict=True)
        return [_series(path, name, hour, column[:, None], (name,)) for name, column in named]
    channels = (POWER, *options.features)
    chosen = values[:, [COLUMNS.index(c) for c in channels]]
    month = (hour * _HOUR).view("M8[us]").astype("M8[M]")
    return [_series(path, str(m), hour[month == m], chosen[month == m], channels) for m in np.unique(month)]


def _series(path: Path, name: str, hour: I64, values: F64, channels: tuple[str, ...]) -> Series:
    return Series(name, values.copy(), channels, hour * _HOUR, lambda row: str(path), np.arange(len(hour)))


def _times(frame: Frame) -> I64:
    """Return the time of every row in microseconds since 1970.

    Raises:
        DataError: a time is missing, invalid, or not after the one before.
    """
    import pyarrow as pa
    from pyarrow import compute

    date, time = (frame.table.column(c).cast(pa.string()) for c in ("Date", "Time"))
    texts = compute.binary_join_element_wise(date, time, " ")
    stamps = compute.strptime(texts, format="%d/%m/%Y %H:%M:%S", unit="s", error_is_null=True)
    bad = np.asarray(stamps.is_null().to_numpy(), np.bool_)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        got = f"{date[row].as_py()!r} and {time[row].as_py()!r}"
        problem = (
            f"{frame.place(row)}, columns 'Date' and 'Time': {got} are not a time like '16/12/2006' and '17:24:00'"
        )
        raise DataError("path", problem)
    times = np.asarray(stamps.cast(pa.int64()).to_numpy(), np.int64) * 1_000_000
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        row = int(back[0]) + 1
        problem = (
            f"{frame.place(row)}: {show_time(int(times[row]))} does not come after {show_time(int(times[row - 1]))}"
        )
        raise DataError("path", problem)
    return times


def _hourly(times: I64, values: F64, minutes: int) -> tuple[I64, F64]:
    """Return every hour from the first to the last and the means of its known minutes, NaN where there are too few."""
    hour = times // _HOUR
    first, last = int(hour[0]), int(hour[-1])
    if last - first > 24 * 366 * 100:
        raise DataError("path", f"the times go from {show_time(int(times[0]))} to {show_time(int(times[-1]))}")
    place, count = hour - first, last - first + 1
    means = np.full((count, values.shape[1]), np.nan)
    for c in range(values.shape[1]):
        known = ~np.isnan(values[:, c])
        number = np.bincount(place[known], minlength=count)
        total = np.bincount(place[known], weights=values[known, c], minlength=count)
        enough = number >= minutes
        means[enough, c] = total[enough] / number[enough]
    return np.arange(first, last + 1), means
