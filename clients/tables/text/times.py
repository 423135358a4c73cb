"""Finds the columns of times in a frame and reads them: texts, numbers since 1970, or parts, in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clients.core.arrays import I64, Bool
from clients.core.errors import DataError
from clients.tables.text.epochs import EPOCHS, since_1970
from clients.tables.text.formats import Stamps, assemble, by_form, by_format, looks_like_time
from clients.tables.text.time_columns import digits_of_dates, numbers_since_1970
from clients.tables.text.zones import to_utc

if TYPE_CHECKING:
    from clients.tables.frame import Frame

TIME_NAMES = ("time", "timestamp", "ts", "date", "datetime", "zeit", "zeitstempel", "datum")
TIME_PARTS = ("year", "month", "day", "hour", "minute", "second")


@dataclass(frozen=True)
class Clock:
    """How times are written.

    Attributes:
        format: a format of strptime, a unit of `EPOCHS`, or "excel" for days since 1900; empty finds it.
        zone: IANA name of the zone of times without an offset; empty takes them as they are.
    """

    format: str = ""
    zone: str = ""


@dataclass(frozen=True)
class Times:
    """The time of every row.

    Attributes:
        stamps: microseconds since 1970, int64 (n,).
        read: the columns and how they were read, for people.
    """

    stamps: I64
    read: str


def is_time_name(name: str) -> bool:
    """Return whether a column is named as a time: "Date_Time", "Timestamp", "ts"."""
    return re.sub("[^a-z]", "", name.lower()) in TIME_NAMES


def find_time(frame: Frame, time_format: str = "", owners: I64 | None = None) -> tuple[str, ...]:
    """Return the columns of times, or none.

    These are year, month, day ...; a column that was read as a time; one that is named as a time, or Date and Time
    together; one whose first entry looks like a time, or has the given format; one of numbers that can only be times.

    Args:
        frame: the table.
        time_format: the format of the times, if it is known.
        owners: each row's series.
    """
    lower = {n.lower(): n for n in frame.names}
    if all(part in lower for part in TIME_PARTS[:3]):
        absent = [part not in lower for part in TIME_PARTS]
        return tuple(lower[p] for p in TIME_PARTS[: absent.index(True) if any(absent) else len(TIME_PARTS)])
    read = [n for n in frame.names if frame.is_time(n)]
    named = [n for n in frame.names if is_time_name(n)]
    pair = _date_and_time(frame, named) if not read else ()
    looking = (*_looking(frame), *_of_format(frame, time_format))
    return pair or (*read, *named, *looking, *numbers_since_1970(frame, owners), *digits_of_dates(frame, owners))[:1]


def _of_format(frame: Frame, time_format: str) -> list[str]:
    """Return the columns of text whose first entry has a format of strptime."""
    import polars as pl

    if "%" not in time_format:
        return []
    columns = [n for n in frame.names if not frame.is_typed(n)]
    firsts = {n: text for n in columns if (text := frame.first_text(n)) is not None}
    try:
        bad = by_format(pl.Series(list(firsts.values()), dtype=pl.String), time_format).bad
    except pl.exceptions.PolarsError:
        return []
    return [n for n, wrong in zip(firsts, bad.tolist(), strict=True) if not wrong]


def other_times(frame: Frame, names: tuple[str, ...]) -> list[str]:
    """Return further columns of times, which are no sensors."""
    lower = {n.lower(): n for n in frame.names}
    parts = [lower[p] for p in TIME_PARTS if p in lower] if TIME_PARTS[0] in lower and TIME_PARTS[1] in lower else []
    named = [n for n in frame.names if is_time_name(n) or frame.is_time(n)]
    found = dict.fromkeys([*named, *parts, *_looking(frame), *numbers_since_1970(frame, regular=bool(names)),
                           *digits_of_dates(frame)])  # fmt: skip
    return [n for n in found if n not in names]


def _looking(frame: Frame) -> list[str]:
    return [n for n in frame.names if not frame.is_typed(n) and looks_like_time(frame.first_text(n))]


def _date_and_time(frame: Frame, named: list[str]) -> tuple[str, ...]:
    """Return the columns of dates and of times of day, where each is named so."""
    dates = [n for n in named if n.lower() in ("date", "datum")]
    times = [n for n in named if n.lower() in ("time", "zeit")]
    if not dates or not times or frame.is_typed(dates[0]):
        return ()
    date, time = frame.first_text(dates[0]), frame.first_text(times[0])
    bare = date is not None and not re.search(r"\d[:T]\d", date)
    clock = time is not None and re.match(r"^\s*\d{1,2}[:.]\d{2}", time) and not looks_like_time(time)
    return (dates[0], times[0]) if bare and clock else ()


def read_times(frame: Frame, names: tuple[str, ...], clock: Clock | None = None, owners: I64 | None = None) -> Times:
    """Return the time of every row.

    Args:
        frame: the table.
        names: one column of times or of numbers since 1970; or the columns of year, month, day, and then of hour,
            minute and second; or columns of text whose texts are joined.
        clock: how they are written.
        owners: each row's series, for the hours that daylight saving repeats.

    Raises:
        DataError: a time is missing or invalid, or could be two.
    """
    clock = clock or Clock()
    label = "+".join(name or "''" for name in names)
    if len(names) == 1 and frame.is_time(names[0]):
        stamps, codes = _typed(frame, names[0])
    elif len(names) >= 3 and not clock.format and all(frame.is_numeric(n) for n in names):
        stamps, codes = _parts(frame, names)
        label = f"{names[0]}...{names[-1]}"
    elif len(names) == 1 and clock.format in ("", "excel", *EPOCHS) and _holds_numbers(frame, names[0]):
        numbers = frame.numbers(names[0], "time")
        _refuse_empty(frame, names[0], np.isnan(numbers))
        times, words = since_1970(numbers, clock.format, lambda row: f"{frame.place(row)}, column {names[0]!r}")
        return Times(times, f"time from {label} ({words})")
    else:
        stamps, codes = _texts(frame, names, clock)
    return _in_utc(frame, stamps, codes, clock, owners, label)


def _holds_numbers(frame: Frame, name: str) -> bool:
    """Return whether a column holds numbers. Its first text is looked at first, which spares a column of dates."""
    text = frame.first_text(name) or ""
    return (frame.is_typed(name) or re.match(r"^\s*[+-]?[\d.,]+(e[+-]?\d+)?\s*$", text, re.I) is not None) and (
        frame.is_numeric(name)
    )


def _in_utc(frame: Frame, stamps: Stamps, codes: I64, clock: Clock, owners: I64 | None, label: str) -> Times:
    """Return the times of all rows in UTC."""
    zoned = stamps.zoned[codes]
    words = [clock.format or stamps.form]
    if zoned.any() and not zoned.all():
        row = int(np.flatnonzero(zoned != zoned[0])[0])
        this, first = ("has an offset from UTC", "has none") if zoned[row] else ("has no offset from UTC", "has one")
        raise DataError("time", f"{frame.place(row)}: the time {this}, and the first {first}")
    if zoned.all():
        words.append("UTC by the offsets in the text" if not frame.is_typed(label) else "UTC")
        times = stamps.times[codes]
    elif clock.zone:
        times, told = to_utc(stamps.times, codes, clock.zone, owners, frame.place)
        words.append(clock.zone)
        if told:
            words.append(f"{told} repeated times by their order" if told > 1 else "1 repeated time by its order")
    else:
        times = stamps.times[codes]
    shown = ", ".join(w for w in words if w)
    return Times(times, f"time from {label}{f' ({shown})' if shown else ''}")


def _typed(frame: Frame, name: str) -> tuple[Stamps, I64]:
    import pyarrow as pa

    column = frame.table.column(name)
    zone = getattr(column.type, "tz", None)
    stamps = column.cast(pa.timestamp("us", tz=zone), safe=False)
    _refuse_empty(frame, name, np.asarray(stamps.is_null().to_numpy()))
    values, codes = np.unique(np.asarray(stamps.cast(pa.int64()).to_numpy(), np.int64), return_inverse=True)
    return Stamps(values, np.zeros(len(values), np.bool_), np.full(len(values), zone is not None)), codes


def _texts(frame: Frame, names: tuple[str, ...], clock: Clock) -> tuple[Stamps, I64]:
    """Read columns of text, joined by a space."""
    import polars as pl

    texts, codes = frame.codes(names[0])
    for name in names:
        _refuse_empty(frame, name, (codes if name == names[0] else frame.codes(name)[1]) < 0)
    for name in names[1:]:
        more, other = frame.codes(name)
        pairs, codes = np.unique(codes * len(more) + other, return_inverse=True)
        texts = [f"{texts[p // len(more)]} {more[p % len(more)]}" for p in pairs.tolist()]
    series: Any = pl.Series(texts, dtype=pl.String)
    columns = f"column {names[0]!r}" if len(names) == 1 else f"columns {', '.join(map(repr, names))}"
    if clock.format in EPOCHS or clock.format == "excel":
        frame.numbers(names[0], "time")
    try:
        stamps = by_format(series, clock.format) if clock.format else by_form(series)
    except pl.exceptions.PolarsError as error:
        problem = f"{clock.format!r} is not a format of strptime ({str(error).splitlines()[0][:120]})"
        raise DataError("time_format", problem) from error
    bad = stamps.bad[codes]
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        like = f"of the form {clock.format!r}" if clock.format else "like 2013-03-01 05:00:00"
        raise DataError(
            "time",
            f"{frame.place(row)}, {columns}: {texts[codes[row]]!r} is not a time {like}",
            fix="Correct it, or give time_format as strptime reads it, such as '%d.%m.%Y %H:%M'.",
        )
    if stamps.either >= 0:
        row = int(np.flatnonzero(codes == stamps.either)[0])
        problem = f"{frame.place(row)}, {columns}: {texts[stamps.either]!r} may be day first or month first"
        fix = "Set time_format, such as '%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'."
        raise DataError("time_format", problem, fix=fix)
    return stamps, codes


def _parts(frame: Frame, names: tuple[str, ...]) -> tuple[Stamps, I64]:
    parts = [frame.numbers(name, "time") for name in names]
    for name, part in zip(names, parts, strict=True):
        _refuse_empty(frame, name, np.isnan(part))
    clock = [*parts[3:], *(np.zeros_like(parts[0]) for _ in range(6 - len(parts)))]
    times, bad = assemble(*parts[:3], *clock)
    bad |= clock[0] == 24
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        got = ", ".join(f"{name} {count[row]:g}" for name, count in zip(names, parts, strict=True))
        raise DataError("time", f"{frame.place(row)}: {got} is not a time")
    values, codes = np.unique(times, return_inverse=True)
    none = np.zeros(len(values), np.bool_)
    return Stamps(values, none, none), codes


def _refuse_empty(frame: Frame, name: str, empty: Bool) -> None:
    if empty.any():
        raise DataError("time", f"{frame.place(int(np.flatnonzero(empty)[0]))}, column {name!r}: the time is missing")
