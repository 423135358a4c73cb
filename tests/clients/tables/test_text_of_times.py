"""Forms of times and zones against Python's datetime and zoneinfo."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.tables.text.formats import by_form
from clients.tables.text.zones import to_utc

FORMS = ("%Y-%m-%d %H:%M:%S.%f", "%Y/%m/%dT%H:%M:%S", "%d.%m.%Y %H:%M", "%d %b %Y, %H:%M:%S", "%Y%m%dT%H%M%S",
         "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S.%fZ", "%d. %B %Y")  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)), min_size=1, max_size=5),
    form=st.sampled_from(FORMS),
    minutes=st.integers(-14 * 60, 14 * 60),
)
def test_forms_equal_strptime(times: list[dt.datetime], form: str, minutes: int) -> None:
    zone = dt.timezone(dt.timedelta(minutes=minutes))
    texts = [t.replace(tzinfo=zone).strftime(form) for t in times]
    stamps = by_form(pl.Series(texts))
    assert not stamps.bad.any()
    for text, time, zoned in zip(texts, stamps.times.tolist(), stamps.zoned.tolist(), strict=True):
        known = dt.datetime.strptime(text, form)
        offset = known.utcoffset() or dt.timedelta()
        expected = (known.replace(tzinfo=None) - offset - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
        assert time == expected
        assert zoned == form.endswith(("z", "Z"))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"])
@pytest.mark.parametrize("minutes", [60, 10])
def test_local_times_of_a_year_come_back_in_utc(zone: str, minutes: int) -> None:
    """Lord Howe sets its clocks by half an hour."""
    utc = np.arange(0, 366 * 1440, minutes) * 60_000_000 + 1_704_067_200_000_000
    info = zoneinfo.ZoneInfo(zone)
    seconds = (dt.datetime.fromtimestamp(t / 1e6, info).replace(tzinfo=dt.UTC).timestamp() for t in utc.tolist())
    local = np.array([round(s) * 1_000_000 for s in seconds], np.int64)
    known, codes = np.unique(local, return_inverse=True)
    if zone == "Australia/Lord_Howe" and minutes == 60:
        utc, codes = utc[:1000], codes[:1000]  # full hours fall into the repeated half hour once only
    times, repeated = to_utc(known, codes, zone, None, str)
    np.testing.assert_array_equal(times, utc)
    expected = {"Europe/Berlin": 60, "America/New_York": 60, "Australia/Lord_Howe": 30 if minutes == 10 else 0}
    assert repeated == expected.get(zone, 0) // minutes
