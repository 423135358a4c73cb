"""Reads times in text: by a given format, or by their form. What could be two dates is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from clients.core.arrays import F64, I64, Bool

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = (
    r"(?:(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})"
    r"|(?P<a>\d{1,2})(?P<mark>[-/.])(?P<b>\d{1,2})[-/.](?P<ye>\d{4})"
    r"|(?P<cy>\d{4})(?P<cm>\d{2})(?P<cd>\d{2})"
    r"|(?P<nd>\d{1,2})[-/ .]+(?P<nm>[A-Za-z]{3})[a-z]*[-/ .,]+(?P<ny>\d{4}))"
)
_TIME = (
    r"(?:[T ,]+(?P<h>\d{1,2})[:.](?P<mi>\d{2})(?:[:.](?P<s>\d{2})(?:[.,](?P<f>\d{1,9})\d*)?)?"
    r"|T(?P<ch>\d{2})(?P<cmi>\d{2})(?P<cs>\d{2})?)"
)
_END = r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?(?: ?(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2}))?"
PATTERN = rf"^\s*{_DATE}(?:{_TIME}{_END})?\s*$"
_LOOKS = re.compile(PATTERN.replace("(?P<cy>", "(?=\\d{8}T)(?P<cy>"))


@dataclass(frozen=True)
class Stamps:
    """Distinct times.

    Attributes:
        times: microseconds since 1970, (U,); where `zoned`, in UTC.
        bad: which are no times, (U,).
        zoned: which have an offset from UTC, (U,).
        form: how they are written, for people; empty for ISO 8601.
        either: index of one that could be two dates, or -1.
    """

    times: I64
    bad: Bool
    zoned: Bool
    form: str = ""
    either: int = -1


def looks_like_time(text: str | None) -> bool:
    """Return whether a text has the form of a date, with or without a time; a number never has.

    Example:
        >>> looks_like_time("2024-03-01 05:00"), looks_like_time("2024"), looks_like_time("20240301")
        (True, False, False)
    """
    return text is not None and _LOOKS.match(text) is not None


def by_form(texts: Any) -> Stamps:
    """Read times that are written year first, with a month's name, or day or month first.

    Args:
        texts: a `polars.Series` of distinct texts.
    """
    import polars as pl

    parts: dict[str, Any] = dict(zip(_names(), _groups(texts), strict=True))

    def number(*names: str) -> F64:
        values = np.full(len(texts), np.nan)
        for name in names:
            found = parts[name].cast(pl.Float64, strict=False).to_numpy()
            values = np.where(np.isnan(values), found, values)
        return values

    a, b = number("a"), number("b")
    day_first, form, either = _order(a, b, parts["mark"])
    named = (
        parts["nm"]
        .str.to_lowercase()
        .replace_strict({m: float(i) for i, m in enumerate(_MONTHS, 1)}, default=None, return_dtype=pl.Float64)
    )
    first, second = (a, b) if day_first else (b, a)
    month = _either(number("m", "cm"), second, np.asarray(named.to_numpy(), np.float64))
    day = _either(number("d", "cd", "nd"), first)
    hour = np.nan_to_num(number("h", "ch"))
    half = parts["half"].str.to_lowercase()
    afternoon, morning = ((half == x).fill_null(False).to_numpy() for x in ("p", "a"))
    wrong_half = (afternoon | morning) & ((hour < 1) | (hour > 12))
    hour = np.where(afternoon & (hour < 12), hour + 12, np.where(morning & (hour == 12), 0, hour))
    fraction = parts["f"].str.pad_end(9, "0").cast(pl.Float64, strict=False).fill_null(0.0).to_numpy() / 1e3
    clock = (hour, np.nan_to_num(number("mi", "cmi")), np.nan_to_num(number("s", "cs")))
    times, bad = assemble(number("y", "ye", "cy", "ny"), month, day, *clock)
    offset, zoned = _offsets(parts["zone"])
    times = times + np.rint(fraction).astype(np.int64) - offset
    return Stamps(times, bad | wrong_half, zoned, form, either)


def by_format(texts: Any, given: str) -> Stamps:
    """Read times by a format of strptime.

    Args:
        texts: a `polars.Series` of distinct texts.
        given: the format.

    Raises:
        polars.exceptions.PolarsError: the format is none.
    """
    given = re.sub(r"\.%f", "%.f", given)
    if re.search(r"%(H|I|k|l)", given) and not re.search(r"%(M|R|T|c|X|r)", given):  # an hour needs minutes
        texts, given = texts + " :00", given + " :%M"
    zoned = bool(re.search(r"%:*z|%#z", given))
    read: Any = texts.str.strip_chars().str.to_datetime(given, strict=False, time_unit="us")
    bad = np.asarray(read.is_null().to_numpy(), np.bool_)
    times = read.dt.timestamp("us").fill_null(0).to_numpy().astype(np.int64)
    return Stamps(times, bad, np.full(len(texts), zoned))


def assemble(year: F64, month: F64, day: F64, hour: F64, minute: F64, second: F64) -> tuple[I64, Bool]:
    """Return times in microseconds since 1970, and which are none. 24:00 is the midnight that ends the day."""
    parts = np.stack((year, month, day, hour, minute, second))
    bad = ~np.isfinite(parts).all(axis=0) | (parts != np.floor(parts)).any(axis=0)
    whole = np.where(bad, np.array([[1970], [1], [1], [0], [0], [0]]), parts).astype(np.int64)
    bad |= (whole[0] < 1) | (whole[0] > 9999) | (whole[1] < 1) | (whole[1] > 12)
    months = np.where(bad, 0, (whole[0] - 1970) * 12 + whole[1] - 1).astype("M8[M]")
    days = months.astype("M8[D]") + (whole[2] - 1)
    bad |= (whole[2] < 1) | (days.astype("M8[M]") != months)
    bad |= (whole[3:] < 0).any(axis=0) | (whole[4] > 59) | (whole[5] > 59)
    bad |= (whole[3] > 24) | ((whole[3] == 24) & (whole[4:] > 0).any(axis=0))
    seconds = whole[3] * 3600 + whole[4] * 60 + whole[5]
    return days.astype("M8[us]").astype(np.int64) + seconds * 1_000_000, np.asarray(bad, np.bool_)


def _names() -> list[str]:
    return list(re.compile(PATTERN).groupindex)


def _groups(texts: Any) -> list[Any]:
    found = texts.str.extract_groups(PATTERN).struct.unnest()
    return [column.set(column == "", None) for column in found.get_columns()]


def _either(*columns: F64) -> F64:
    found = columns[0]
    for column in columns[1:]:
        found = np.where(np.isnan(found), column, found)
    return found


def _order(a: F64, b: F64, mark: Any) -> tuple[bool, str, int]:
    """Return whether dates such as 03/04/2020 are day first, words for it, and the index of one that is undecided."""
    pairs = ~np.isnan(a)
    if not pairs.any():
        return True, "", -1
    if (a[pairs] > 12).any():
        return True, "day first", -1
    if (b[pairs] > 12).any():
        return False, "month first", -1
    if (mark.drop_nulls() == ".").all():
        return True, "day first", -1
    return True, "", int(np.flatnonzero(pairs)[0])


def _offsets(zone: Any) -> tuple[I64, Bool]:
    """Return offsets from UTC in microseconds, 0 without one, and which have one."""
    zoned = np.asarray(zone.is_not_null().to_numpy(), np.bool_)
    digits = zone.str.replace_all(r"[^0-9]", "").str.pad_end(4, "0").fill_null("0000").cast(int)
    minutes = digits.to_numpy() // 100 * 60 + digits.to_numpy() % 100
    back = zone.str.starts_with("-").fill_null(False).to_numpy()
    return np.where(back, -minutes, minutes).astype(np.int64) * 60_000_000, zoned
