"""Reads numbers as times: seconds and smaller units since 1970, or days as spreadsheets count them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clients.core.arrays import F64, I64
from clients.core.errors import DataError
from clients.tables.text.formats import by_format
from clients.tables.text.steps import show_time

EPOCHS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Units of numbers since 1970, in microseconds; `time_format` may name one."""
DIGITS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Formats of dates that are written as so many digits."""
_EXCEL_DAYS = 25_569  # from 1899-12-30 to 1970


def since_1970(numbers: F64, given: str, place: Callable[[int], str]) -> tuple[I64, str]:
    """Return times in microseconds since 1970, and how they were read.

    Args:
        numbers: finite, (n,).
        given: a unit of `EPOCHS`, "excel", or empty to tell the unit by the size of the numbers.
        place: row -> its place, for messages.

    Raises:
        DataError: the unit cannot be told; or a number is not in the unit of the first.
    """
    if given == "excel":
        return _excel(numbers)
    unit = given or _unit(numbers, place)
    words = f"{unit} since 1970"
    if not given and numbers.max() < 1e8:
        words += f", though {numbers.max():g} is small; set time_format if it is another unit"
    return np.rint(numbers * EPOCHS[unit]).astype(np.int64), words


def _excel(numbers: F64) -> tuple[I64, str]:
    """Return times of days as spreadsheets count, to the millisecond, or to the second where decimals were cut."""
    days = numbers - _EXCEL_DAYS
    if (numbers == np.floor(numbers)).all() or (np.abs(numbers * 1e6 - np.rint(numbers * 1e6)) > 1e-3).any():
        return np.rint(days * 86_400e3).astype(np.int64) * 1000, "excel days"
    words = "excel days of at most six decimals, rounded to the second"
    return np.rint(days * 86_400).astype(np.int64) * 1_000_000, words


def _unit(numbers: F64, place: Callable[[int], str]) -> str:
    """Return the unit that puts all times between 1973 and 2286; small numbers are seconds."""
    first = f"{place(0)}: {_shown(numbers[0])}"
    units = "'s', 'ms', 'us' or 'ns' (since 1970), 'excel' or a format of strptime"
    whole = bool((numbers == np.floor(numbers)).all()) and numbers.min() >= 1e7 and numbers.max() < 1e15
    lengths = {len(str(int(numbers.min()))), len(str(int(numbers.max())))} if whole else set()
    if len(lengths) == 1 and (given := DIGITS.get(next(iter(lengths)))) and are_dates(numbers, given):
        problem = f"{first} may be a date written {given} or a number of seconds"
        raise DataError("time_format", problem, fix=f"Set time_format = {given!r}, or 's'.")
    bounds = {"s": (1e8, 1e10), "ms": (1e11, 1e13), "us": (1e14, 1e16), "ns": (1e17, 1e19)}
    unit = next((u for u, (low, high) in bounds.items() if low <= numbers[0] < high), "")
    if not unit and numbers.min() >= 0 and numbers.max() < 1e8:
        if numbers.min() > 20_000 and numbers.max() < 80_000:
            problem = f"{first} may be a number of seconds or days as spreadsheets count"
            raise DataError("time_format", problem, fix="Set time_format = 'excel', or 's'.")
        return "s"
    if not unit:
        raise DataError("time_format", f"{first} is no time in a unit that can be told", fix=f"Set it to {units}.")
    low, high = bounds[unit]
    wrong = (numbers < low) | (numbers >= high)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        problem = f"{place(row)}: {_shown(numbers[row])} is not in {unit} since 1970 as the first row is"
        raise DataError("time", f"{problem} ({show_time(int(numbers[0] * EPOCHS[unit]))})")
    return unit


def _shown(number: float) -> str:
    return f"{number:.0f}" if float(number).is_integer() else repr(float(number))


def are_dates(numbers: F64, given: str) -> bool:
    """Return whether all numbers are dates of this form between 1900 and 2100."""
    import polars as pl

    texts: Any = pl.Series(np.unique(numbers).astype(np.int64)).cast(pl.String)
    stamps = by_format(texts, given)
    years = stamps.times / (365.2425 * 86_400e6) + 1970
    return bool(not stamps.bad.any() and years.min() >= 1900 and years.max() <= 2101)
