"""Series of sensor readings: a regular time grid, gaps, scaling, and windows for forecasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from clients.core.arrays import F64, I64, Bool
from clients.core.errors import DataError
from clients.tables.options import Gaps
from clients.tables.text.steps import show_step, show_time

_MOST_ROWS_INSERTED = 50_000_000


@dataclass(frozen=True)
class Series:
    """Readings of one client, or of several that share their times.

    Attributes:
        name: the client; for a table with a column for each client, the file.
        values: float64 (T, C), NaN where a value is missing.
        channels: C column names.
        time: microseconds since 1970, int64 (T,), or None if rows have only an order.
        place: row -> its file and line; -1 for rows that were inserted.
        rows: int64 (T,), each row's number for `place`, or -1.
    """

    name: str
    values: F64
    channels: tuple[str, ...]
    time: I64 | None
    place: Callable[[int], str]
    rows: I64

    def at(self, i: int) -> str:
        """Describe the place and time of row i."""
        when = "" if self.time is None else f", {show_time(int(self.time[i]))}"
        return (self.place(int(self.rows[i])) if self.rows[i] >= 0 else f"{self.name}, no row") + when


def on_grid(series: Series, frequency: int, gaps: Gaps, off_grid: str = "") -> tuple[Series, int]:
    """Check that times advance by one step, and insert empty rows for missing ones.

    Args:
        series: in order of time, which increases; see `in_order`.
        frequency: the step in microseconds; 0 takes the commonest.
        gaps: "error" refuses missing rows.
        off_grid: for messages, what else can be done about times off the grid.

    Returns:
        The series on its grid, and the step (0 without times).

    Raises:
        DataError: times do not lie on the grid, rows are missing and `gaps` is "error", or most rows would be new.
    """
    time = series.time
    if time is None or len(time) < 2:
        return series, frequency
    steps = np.diff(time)
    values, counts = np.unique(steps, return_counts=True)
    step = frequency or int(values[counts.argmax()])
    wrong = np.flatnonzero(steps != step)
    if not len(wrong):
        return series, step
    missing = (time[-1] - time[0]) // step + 1 - len(time)
    off = wrong[steps[wrong] % step != 0]
    i = int(off[0] if len(off) else wrong[0])
    expected = f"frequency is {show_step(step)}" + ("" if frequency else " (the commonest step; none was given)")
    problem = f"{series.at(i + 1)}: comes {show_step(int(steps[i]))} after the row before, and the {expected}"
    if len(off):
        raise DataError(
            "frequency", f"{problem}; {len(off)} such rows", fix=f"Correct frequency or resample the file{off_grid}."
        )
    if gaps == "error":
        fix = "Set gaps to 'interpolate' or 'drop', or correct the frequency."
        raise DataError("frequency", f"{problem}; {missing} rows are missing in all", fix=fix)
    if missing > _MOST_ROWS_INSERTED or (missing > len(time) and 2 * len(wrong) > len(steps)):
        cause = "The times may be in another unit or format (time_format)."
        cause = f"Is frequency right? {cause}" if frequency else f"Set frequency. {cause}"
        raise DataError(
            "frequency", f"{problem}; {missing:,} rows would have to be put in between {len(time):,}", fix=cause
        )
    where = (time - time[0]) // step
    full = np.full((len(time) + int(missing), series.values.shape[1]), np.nan)
    full[where] = series.values
    rows = np.full(len(full), -1, np.int64)
    rows[where] = series.rows
    return replace(series, values=full, rows=rows, time=time[0] + step * np.arange(len(full))), step


def refuse_gaps(series: Series) -> None:
    """Raise `DataError` for the first missing value, if there is one."""
    empty = np.isnan(series.values)
    if empty.any():
        i, c = (int(x) for x in np.argwhere(empty)[0])
        nothing: Bool = np.asarray(empty.all(axis=0), np.bool_)
        if nothing[c] and series.place(0).startswith(f"{series.name},"):  # the columns are sensors
            names = [name for name, lacks in zip(series.channels, nothing.tolist(), strict=True) if lacks]
            fix = f"Leave it out: exclude = {names[:20]}. Or set gaps to 'drop'."
            raise DataError("gaps", f"{series.place(0)}: column {series.channels[c]!r} holds no reading", fix=fix)
        missing = f"the value is missing ({int(empty.sum())} in {series.name!r})"
        raise DataError(
            "gaps",
            f"{series.at(i)}, column {series.channels[c]!r}: {missing}",
            fix="Set gaps to 'interpolate' (with max_gap) or 'drop'.",
        )


def split_points(rows: int, validation: float, test: float) -> tuple[int, int, int]:
    """Return where training, validation and test end. The parts are in order of time.

    Example:
        >>> split_points(100, 0.1, 0.2)
        (70, 80, 100)
    """
    test_start = rows - round(test * rows)
    return test_start - round(validation * rows), test_start, rows


def interpolate(values: F64, ends: tuple[int, ...], max_gap: int | None) -> int:
    """Fill runs of at most `max_gap` missing values on straight lines, in place, each split by itself.

    Runs at the edge of a split stay empty, since the other end would be another split's value.

    Args:
        values: float64 (T, C).
        ends: where the splits end.
        max_gap: longest run filled; None fills any.

    Returns:
        How many values were filled.
    """
    filled = 0
    start = 0
    for end in ends:
        for c in range(values.shape[1]):
            part = values[start:end, c]
            known = np.flatnonzero(~np.isnan(part))
            run = np.diff(known) - 1  # missing values between one known value and the next
            ok = (run > 0) & (run <= (len(part) if max_gap is None else max_gap))
            if not ok.any():
                continue
            inside = np.repeat(ok, np.diff(known))  # rows known[0] ... known[-1] - 1, by their run
            rows = np.flatnonzero(inside) + known[0]
            rows = rows[np.isnan(part[rows])]
            part[rows] = np.interp(rows, known, part[known])
            filled += len(rows)
        start = end
    return filled


def window_starts(values: F64, start: int, end: int, window: int, horizon: int, stride: int) -> tuple[I64, int]:
    """Return the rows at which whole windows start: all their values lie in [start, end) and none is missing.

    A window takes `window` rows of all channels and then `horizon` rows of channel 0.

    Args:
        values: float64 (T, C), NaN where a value is missing.
        start: first row of the split.
        end: the row after its last.
        window: rows of input.
        horizon: rows of output.
        stride: rows from one window to the next.

    Returns:
        int64 starts, increasing, and how many windows were dropped for missing values.
    """
    starts = np.arange(start, end - window - horizon + 1, stride, dtype=np.int64)
    empty = np.isnan(values)
    if not empty[start:end].any():
        return starts, 0
    inputs = np.concatenate(([0], np.cumsum(empty.any(axis=1))))
    outputs = np.concatenate(([0], np.cumsum(empty[:, 0])))
    middle = starts + window
    whole = (inputs[middle] == inputs[starts]) & (outputs[middle + horizon] == outputs[middle])
    return starts[whole], int((~whole).sum())


def moments(values: F64) -> tuple[F64, F64]:
    """Return mean and deviation of each channel's known values; 0 and 1 without any, deviation 1 for constants."""
    empty = np.isnan(values)
    if empty.any():
        count = (~empty).sum(axis=0)
        mean = np.nansum(values, axis=0) / np.maximum(count, 1)
        deviation = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / np.maximum(count, 1))
    else:  # the same without copies
        count = np.full(values.shape[1], max(len(values), 1))
        mean = values.sum(axis=0) / count
        deviation = np.sqrt(((values - mean) ** 2).sum(axis=0) / count)
    return mean, np.where(deviation > 1e-12 * np.maximum(np.abs(mean), 1.0), deviation, 1.0)


def window_views(flat: Tensor, window: int, horizon: int) -> tuple[Tensor, Tensor]:
    """Return all windows of a tensor of readings as views, without a copy.

    Args:
        flat: [T, C] readings.
        window: rows of input.
        horizon: rows of output.

    Returns:
        features [T - window - horizon + 1, window, C] and targets [..., horizon] (of channel 0) of the window that
        starts at each row. They include windows that cross from one client's readings into the next's: select by row.
    """
    count = len(flat) - window - horizon + 1
    return flat.unfold(0, window, 1)[:count].transpose(1, 2), flat[window:, 0].unfold(0, horizon, 1)
