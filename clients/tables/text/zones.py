"""Turns local times into UTC, with the hours that daylight saving repeats or leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from clients.core.arrays import I64, Bool
from clients.core.errors import DataError, require, unknown_name
from clients.tables.text.steps import show_time


def check_zone(zone: str) -> None:
    """Refuse a name that is no IANA time zone."""
    if not zone:
        return
    import polars as pl

    try:
        pl.Series([0]).cast(pl.Datetime("us")).dt.replace_time_zone(zone)
    except pl.exceptions.PolarsError:
        import zoneinfo

        require(False, "time_zone", unknown_name(zone, sorted(zoneinfo.available_timezones()), "a time zone"))


def to_utc(local: I64, codes: I64, zone: str, owners: I64 | None, place: Callable[[int], str]) -> tuple[I64, int]:
    """Return the times of all rows in UTC, and how many repeated hours were told apart by their order.

    A local time that daylight saving repeats must occur twice in a series: the first is the earlier hour, or the later
    one where the series goes back in time.

    Args:
        local: distinct local times in microseconds, (U,).
        codes: each row's index into `local`, (n,).
        zone: an IANA name.
        owners: each row's series, (n,); None for one.
        place: row -> its file and line.

    Raises:
        DataError: a local time does not exist, or exists twice and does not occur twice.
    """
    import polars as pl

    naive: Any = pl.Series(local).cast(pl.Datetime("us"))

    def utc(which: Any) -> Any:
        return naive.dt.replace_time_zone(zone, ambiguous=which, non_existent="null").dt.timestamp("us")

    early, late = utc("earliest"), utc("latest")
    absent = early.is_null().to_numpy()
    if absent.any():
        row = int(np.flatnonzero(absent[codes])[0])
        problem = f"{place(row)}: {show_time(int(local[codes[row]]))} does not exist in {zone}: the clock skips it"
        fix = "Is the clock without daylight saving? Then name that, as 'Etc/GMT-1'."
        raise DataError("time_zone", problem, fix=fix)
    first, second = early.to_numpy().astype(np.int64), late.to_numpy().astype(np.int64)
    times: I64 = first[codes]
    twice = np.flatnonzero((first != second)[codes])
    if not len(twice):
        return times, 0
    owner = np.zeros(len(codes), np.int64) if owners is None else owners
    order = twice[np.lexsort((twice, codes[twice], owner[twice]))]
    key = np.stack((owner[order], codes[order]))
    begins = np.concatenate(([True], (key[:, 1:] != key[:, :-1]).any(axis=0)))
    counts = np.diff(np.append(np.flatnonzero(begins), len(order)))
    if (counts != 2).any():
        at = int(np.flatnonzero(begins)[np.flatnonzero(counts != 2)[0]])
        row, count = int(order[at]), int(counts[np.flatnonzero(counts != 2)[0]])
        number = "once" if count == 1 else f"{count} times"
        problem = f"{place(row)}: {show_time(int(local[codes[row]]))} exists twice in {zone} and occurs {number}"
        raise DataError("time_zone", problem, fix="Write the offset from UTC into the times, or correct the row.")
    first_of_two, second_of_two = order[0::2], order[1::2]
    later = np.where(_goes_back(local[codes], owner)[owner[first_of_two]], first_of_two, second_of_two)
    times[later] = second[codes[later]]
    return times, len(later)


def _goes_back(local: I64, owner: I64) -> Bool:
    """Return which series have the newest row first, (series,): more steps lead back in time than forward."""
    order = np.argsort(owner, kind="stable")
    inside = owner[order][1:] == owner[order][:-1]
    signs = np.where(inside, np.sign(np.diff(local[order])), 0)
    return np.bincount(owner[order][1:], signs, minlength=int(owner.max()) + 1) < 0
