"""Sensor readings from CSV, Parquet or HDF5 files, windowed for forecasting: one client a sensor or site.

Each client's readings are cut by time into training, validation and test parts; a window (inputs and
targets) lies in one part, so training never contains a later forecast. Central validation and test
examples are all clients' windows of those parts together; `ClientData.held_out` gives each client its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from clients.core.arrays import F64, I64
from clients.core.errors import DataError
from clients.core.examples import Examples
from clients.core.population import ClientData, Population
from clients.core.population_parts import CentralData, CentralExamples, ExampleSpec, FederationFacts
from clients.core.ragged import cohort_of, offsets_of
from clients.partition.options import PartitionOptions
from clients.tables.faults import Recorded, measured_channels, with_series_faults
from clients.tables.forecasts import forecast_spec
from clients.tables.layouts import read_series
from clients.tables.options import TableOptions
from clients.tables.reading import Notes, Reading, listed
from clients.tables.repair import describe_repairs
from clients.tables.rows.labelled import labelled_population
from clients.tables.series import Series, interpolate, moments, split_points, window_starts, window_views


def table_population(
    options: TableOptions,
    partition: PartitionOptions | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Population:
    """Read the files and make the population, of forecasts or of labelled rows (`clients.tables.rows.labelled`).

    Args:
        options: the files and how they are used.
        partition: of labelled rows; series bring their own clients.
        seed: root seed, for the split and the partition of labelled rows.
        dtype: of features and targets.

    Returns:
        A regression population: features [n, window, channels] with the target as channel 0, targets [n, horizon]. The
        features of a cohort are views of the readings; selecting rows makes the windows.

    Raises:
        DataError: naming the file, the column and the line at fault.
    """
    if options.task != "forecast":
        return labelled_population(options, partition, seed=seed, dtype=dtype)
    reading = Reading()
    clients = read_series(options, reading)
    describe_repairs(reading, options.duplicates)
    return windowed_population(clients, options, reading, dtype=dtype)


def windowed_population(
    clients: list[Series], options: TableOptions, reading: Reading, *, dtype: torch.dtype = torch.float32
) -> Population:
    """Make the population of series in memory.

    Args:
        clients: series on their time grids, all with the same channels; gaps are filled in place.
        options: how to fill, split, scale and window them; `path` names the population.
        reading: facts about how they were read; gets more of them.
        dtype: of features and targets.

    Raises:
        DataError: no window fits.
    """
    missing = [np.isnan(s.values[:, 0]) for s in clients]
    ends = [split_points(len(s.values), options.validation_fraction, options.test_fraction) for s in clients]
    _describe_sensors(reading, clients)
    if options.gaps == "interpolate":
        _fill(clients, ends, options, reading)
    notes = reading.record
    flat, scales = _scaled(clients, ends, options, notes, dtype)
    parts = [_part(options, clients, ends, part) for part in range(3)]
    notes["windows_dropped"] = sum(dropped for _, _, dropped in parts)
    notes["windows"] = sum(len(rows) + dropped for rows, _, dropped in parts)
    (train, train_sizes, _), (validation, validation_sizes, _), (test, test_sizes, _) = parts
    if not len(train):
        longest = max(end[0] for end in ends)
        raise DataError(
            "window",
            f"{options.window} steps and a horizon of {options.horizon} fit in no client's training part "
            f"(the longest has {longest} rows, {notes['windows_dropped']} windows touch missing values)",
        )
    features, targets = window_views(flat, options.window, options.horizon)

    _describe_unused(reading, clients, train_sizes)
    names = [series.name for series in clients]
    known = [e[0] for e in ends]
    channels = measured_channels(clients, known)
    channels = (replace(channels[0], unit=options.unit), *channels[1:])
    recorded = Recorded(
        clients, known, scales, flat, train, train_sizes, options.window, options.horizon, channels, ends, missing
    )
    clocked = all(series.time is not None for series in clients)
    everyone = np.arange(len(clients), dtype=np.int64)

    def central(rows: I64, sizes: I64) -> CentralExamples | None:
        if not len(rows):
            return None
        index = torch.from_numpy(rows)
        examples = Examples(features[index], targets[index].contiguous())
        hours = recorded.window_hours(everyone, rows, sizes) if clocked else None
        latest = flat[index + options.window - 1, 0]
        return CentralExamples(examples, np.repeat(everyone, sizes), hours, latest)

    return Population(
        spec=ExampleSpec(
            task="regression",
            feature_shape=(options.window, flat.shape[1]),
            outputs=options.horizon,
            channels=channels,
            forecast=forecast_spec(recorded, options),
        ),
        federation=FederationFacts(
            name=Path(options.path).name,
            sizes=train_sizes.astype(np.int32),
            client_name=names.__getitem__,
            record=notes,
            notices=reading.notices(),
        ),
        clients=ClientData(
            cohort=cohort_of(features, targets, offsets_of(train_sizes), train),
            held_out=cohort_of(features, targets, offsets_of(test_sizes), test) if len(test) else None,
            hours=partial(recorded.window_hours, rows=train, sizes=train_sizes) if clocked else None,
            held_out_hours=partial(recorded.window_hours, rows=test, sizes=test_sizes) if clocked else None,
            held_out_steps=partial(recorded.window_steps, rows=test, sizes=test_sizes),
            held_out_latest=partial(recorded.latest, rows=test, sizes=test_sizes),
            series=partial(recorded.raw, flat),
            series_faults=partial(with_series_faults, recorded=recorded),
        ),
        central=CentralData(validation=central(validation, validation_sizes), test=central(test, test_sizes)),
    )


def _fill(clients: list[Series], ends: list[tuple[int, int, int]], options: TableOptions, reading: Reading) -> None:
    """Fill short gaps in place. Series that would be mostly made up are refused."""
    known = [int((~np.isnan(s.values)).sum()) for s in clients]
    for series, end, real in zip(clients, ends, known, strict=True):
        filled = interpolate(series.values, end, options.longest_gap)
        reading.add("values_interpolated", filled)
        if filled > real:
            raise DataError(
                "max_gap",
                f"{series.name}: {filled:,} values would be filled and {real:,} are known",
                fix="Lower max_gap, or check frequency and the unit of the times (time_format).",
            )
    if options.max_gap is None and reading.count("values_interpolated"):
        reading.say(f"runs of up to {options.longest_gap} missing values are filled (max_gap is unset)")


def _describe_sensors(reading: Reading, clients: list[Series]) -> None:
    """Name the sensors without readings, and those whose readings never change."""
    empty: list[str] = []
    constant: list[str] = []
    for series in clients:
        values = series.values[:, 0]
        known = values[~np.isnan(values)]
        if not len(known):
            empty.append(series.name)
        elif len(known) > 1 and (known == known[0]).all():
            constant.append(f"{series.name} ({known[0]:g})")
    if empty:
        reading.say(f"without any reading: {listed(empty)}")
    if constant:
        reading.say(f"constant: {listed(constant)}")


def _describe_unused(reading: Reading, clients: list[Series], sizes: I64) -> None:
    """Name the clients that have readings but no window to train on."""
    short = [
        f"{series.name} ({len(series.values):,} rows)"
        for series, size in zip(clients, sizes.tolist(), strict=True)
        if not size and not np.isnan(series.values[:, 0]).all()
    ]
    if short:
        reading.say(f"no window fits the training part of {listed(short)}: too few rows, or gaps; they never train")


def _part(
    options: TableOptions, clients: list[Series], ends: list[tuple[int, int, int]], part: int
) -> tuple[I64, I64, int]:
    """Return one part's windows of all clients: rows of the flat readings, windows of each client, dropped windows."""
    base, dropped = 0, 0
    rows: list[I64] = []
    for series, end in zip(clients, ends, strict=True):
        start = 0 if part == 0 else end[part - 1]
        found, lost = window_starts(series.values, start, end[part], options.window, options.horizon, options.stride)
        rows.append(found + base)
        base += len(series.values)
        dropped += lost
    return np.concatenate(rows), np.asarray([len(r) for r in rows], np.int64), dropped


def _scaled(
    clients: list[Series],
    ends: list[tuple[int, int, int]],
    options: TableOptions,
    notes: Notes,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, list[tuple[F64, F64]]]:
    """Return all readings, client after client, scaled by training statistics, [sum T, C], and these statistics.

    NaN stays where it is.
    """
    flat = torch.empty((sum(len(s.values) for s in clients), clients[0].values.shape[1]), dtype=dtype)
    training = [s.values[: e[0]] for s, e in zip(clients, ends, strict=True)]
    shared = moments(np.concatenate(training)) if options.scale == "global" else None
    if shared:
        notes["target_mean"], notes["target_deviation"] = float(shared[0][0]), float(shared[1][0])
    base = 0
    scales: list[tuple[F64, F64]] = []
    for series, known in zip(clients, training, strict=True):
        mean, deviation = shared or moments(known)
        if options.scale == "none":
            mean, deviation = np.zeros_like(mean), np.ones_like(deviation)
        scales.append((mean, deviation))
        values = series.values if options.scale == "none" else (series.values - mean) / deviation
        flat[base : base + len(values)] = torch.from_numpy(values)
        base += len(values)
    return flat, scales
