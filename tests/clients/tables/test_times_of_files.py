"""Times as other programs write them: forms, units since 1970, zones and daylight saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from table_files import hours, numbers, series_of, written

from clients.core.errors import DataError

HOURS = ["2024-03-01 05:00", "2024-03-01 06:00", "2024-03-01 07:00"]


def file_of(folder: Path, header: str, times: list[str], separator: str = ";") -> Path:
    lines = [f"{header}{separator}v", *(f"{t}{separator}{i}" for i, t in enumerate(times))]
    return written(folder, "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("header", "times", "read"),
    [
        ("time", ["2024-03-01 05:00:00", "2024-03-01 06:00:00", "2024-03-01 07:00:00"], "time from time"),
        ("Timestamp", ["2024-03-01T05:00", "2024-03-01T06:00", "2024-03-01T07:00"], "time from Timestamp"),
        ("DATE_TIME", ["2024/03/01 5:00", "2024/03/01 6:00", "2024/03/01 7:00"], "time from DATE_TIME"),
        ("Date", ["01.03.2024 05:00", "01.03.2024 06:00", "01.03.2024 07:00"], "time from Date (day first)"),
        ("when", ["20240301T050000", "20240301T060000", "20240301T070000"], "time from when"),
        ("when", ["1 Mar 2024 05:00", "1 Mar 2024 06:00", "1 March 2024 07:00"], "time from when"),
        ("when", ["2024-03-01 05:00 AM", "2024-03-01 06:00 am", "2024-03-01 07:00 a.m."], "time from when"),
        ("ts", ["1709269200", "1709272800", "1709276400"], "time from ts (s since 1970)"),
        ("ts", ["1709269200.0", "1709272800.0", "1709276400.0"], "time from ts (s since 1970)"),
        ("TS", ["1709269200000", "1709272800000", "1709276400000"], "time from TS (ms since 1970)"),
        ("ts", ["1709269200000000", "1709272800000000", "1709276400000000"], "time from ts (us since 1970)"),
        ("ts", ["1709269200000000000", "1709272800000000000", "1709276400000000000"], "time from ts (ns since 1970)"),
        (
            "ts",
            ["2024-03-01T05:00:00Z", "2024-03-01T06:00:00Z", "2024-03-01T07:00:00Z"],
            "time from ts (UTC by the offsets in the text)",
        ),
        (
            "last_changed",
            ["2024-03-01T06:00:00.000+01:00", "2024-03-01T06:00:00+00", "2024-03-01 02:00:00-0500"],
            "time from last_changed (UTC by the offsets in the text)",
        ),
    ],
)  # fmt: skip
def test_times_are_found_and_stated(tmp_path: Path, header: str, times: list[str], read: str) -> None:
    clients, reading = series_of(file_of(tmp_path, header, times))
    assert [s.name for s in clients] == ["v"]
    assert hours(clients[0]) == HOURS
    assert reading.record["time"] == read
    assert read in reading.notices()[0]


@pytest.mark.parametrize(
    ("times", "time_format"),
    [
        (["202403010500", "202403010600", "202403010700"], "%Y%m%d%H%M"),
        (["2024030105", "2024030106", "2024030107"], "%Y%m%d%H"),
        (["01/03/2024 05:00", "01/03/2024 06:00", "01/03/2024 07:00"], "%d/%m/%Y %H:%M"),
        (["03/01/24 05:00 AM", "03/01/24 06:00 AM", "03/01/24 07:00 AM"], "%m/%d/%y %I:%M %p"),
        (["01.03.24, 05:00:00.000", "01.03.24, 06:00:00.000", "01.03.24, 07:00:00.000"], "%d.%m.%y, %H:%M:%S.%f"),
        (["061 2024 05", "061 2024 06", "061 2024 07"], "%j %Y %H"),
        (["2024-03-01 5", "2024-03-01 6", "2024-03-01 7"], "%Y-%m-%d %H"),
        (["2024-03-01 07:00:00+0200", "2024-03-01 08:00:00+0200", "2024-03-01 09:00:00+0200"], "%Y-%m-%d %H:%M:%S%z"),
        (["1709269200", "1709272800", "1709276400"], "s"),
        (["45352.208333333336", "45352.25", "45352.291666666664"], "excel"),
        (["45352,20833", "45352,25000", "45352,29167"], "excel"),
    ],
)
def test_time_format_wins_over_every_guess(tmp_path: Path, times: list[str], time_format: str) -> None:
    clients, _ = series_of(file_of(tmp_path, "time", times), time_format=time_format)
    assert hours(clients[0]) == HOURS


@pytest.mark.parametrize(
    ("header", "times", "says"),
    [
        ("time", ["202403010500", "202403010600", "202403010700"], r"Set time_format = '%Y%m%d%H%M', or 's'"),
        ("time", ["20240301", "20240302", "20240303"], r"20240301 may be a date written %Y%m%d .*or 's'"),
        ("time", ["45352.2", "45352.3", "45352.4"], "days as spreadsheets count. Set time_format = 'excel'"),
        ("time", ["17092692000", "17092728000", "17092764000"], "no time in a unit that can be told. Set it to 's'"),
        ("time", ["1709269200", "1709272800", "1709276400000"], r"time: .*line 4, .* is not in s since 1970 as the"),
        ("time", ["03/04/2024 05:00", "03/04/2024 06:00", "04/04/2024 06:00"], "line 2, .*day first or month first"),
        ("time", ["2024-03-01 05:00", "2024-02-30 06:00", "2024-03-01 07:00"], "line 3, .*'2024-02-30 06:00' is not a"),
        ("time", ["2024-03-01 05:00", "", "2024-03-01 07:00"], "line 3, column 'time': the time is missing"),
        ("time", ["2024-03-01 05:00", "2024-03-01 06:00Z", "2024-03-01 07:00"], "line 3: the time has an offset from"),
        ("time", ["2024-03-01 05:00", "2024-03-01 26:00", "2024-03-01 07:00"], "line 3, .*'2024-03-01 26:00' is not a"),
    ],
)  # fmt: skip
def test_times_that_cannot_be_known_are_refused(tmp_path: Path, header: str, times: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        series_of(file_of(tmp_path, header, times))


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (["2024-03-01", "01.03.2024", "2024-03-02"], "line 2, .*'2024-03-01' is not a time of the form '%d.%m.%Y'"),
        (["01.03.2024", "2.3.2024", "01.13.2024"], "line 4, .*'01.13.2024' is not a time of the form '%d.%m.%Y'"),
    ],
)
def test_times_of_another_format_are_named(tmp_path: Path, times: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        series_of(file_of(tmp_path, "time", times), time_format="%d.%m.%Y")
    with pytest.raises(DataError, match=r"time: .*is not a time of the form '%Q'"):
        series_of(file_of(tmp_path, "time", times), time_format="%Q")
    with pytest.raises(DataError, match="'%H:%M'"):
        series_of(file_of(tmp_path, "time", times), time_format="%H:%M")


def test_day_after_the_twelfth_decides(tmp_path: Path) -> None:
    clients, reading = series_of(file_of(tmp_path, "date", ["11/03/2024", "12/03/2024", "13/03/2024"]))
    assert hours(clients[0])[0] == "2024-03-11 00:00"
    assert reading.record["time"] == "time from date (day first)"
    clients, reading = series_of(file_of(tmp_path, "date", ["03/11/2024", "03/12/2024", "03/13/2024"]))
    assert hours(clients[0])[0] == "2024-03-11 00:00"
    assert reading.record["time"] == "time from date (month first)"


def test_hour_24_is_the_next_midnight(tmp_path: Path) -> None:
    times = ["2024-02-29 22:00", "2024-02-29 23:00", "2024-02-29 24:00"]
    clients, _ = series_of(file_of(tmp_path, "time", times))
    assert hours(clients[0])[2] == "2024-03-01 00:00"


@pytest.mark.parametrize("time", [(), ("Date", "Time")])
def test_date_and_time_are_joined(tmp_path: Path, time: tuple[str, ...]) -> None:
    text = "Date,Time,v\n2024-03-01,05:00,0\n2024-03-01,06:00,1\n2024-03-01,07:00,2\n"
    clients, reading = series_of(written(tmp_path, text), time=time)
    assert hours(clients[0]) == HOURS
    assert reading.record["time"] == "time from Date+Time"


def test_parts_are_joined(tmp_path: Path) -> None:
    text = "Year,Month,Day,Hour,v\n2024,3,1,5,0\n2024,3,1,6,1\n2024,3,1,7,2\n"
    clients, reading = series_of(written(tmp_path, text))
    assert [s.name for s in clients] == ["v"]
    assert hours(clients[0]) == HOURS
    assert reading.record["time"] == "time from Year...Hour"
    clients, _ = series_of(written(tmp_path, text), time_zone="Asia/Kolkata")
    assert hours(clients[0])[0] == "2024-02-29 23:30"


# Zones


def berlin(folder: Path, times: list[str], **options: Any) -> list[str]:
    clients, reading = series_of(file_of(folder, "time", times), time_zone="Europe/Berlin", **options)
    assert "Europe/Berlin" in str(reading.record["time"])
    return hours(clients[0])


def test_autumn_hour_is_told_apart_by_order(tmp_path: Path) -> None:
    times = ["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00"]
    utc = ["2024-10-26 23:00", "2024-10-27 00:00", "2024-10-27 01:00", "2024-10-27 02:00"]
    assert berlin(tmp_path, times) == utc
    _, reading = series_of(file_of(tmp_path, "time", times), time_zone="Europe/Berlin")
    assert "Europe/Berlin, 1 repeated time by its order" in str(reading.record["time"])


def test_autumn_quarters_are_told_apart_by_order(tmp_path: Path) -> None:
    quarters = [f"2024-10-27 02:{m:02}" for m in (0, 15, 30, 45)]
    utc = berlin(tmp_path, ["2024-10-27 01:45", *quarters, *quarters, "2024-10-27 03:00"])
    assert utc == [str(np.datetime64("2024-10-26T23:45") + np.timedelta64(15 * i, "m")).replace("T", " ")
                   for i in range(10)]  # fmt: skip


def test_every_sensor_has_its_own_autumn_hour(tmp_path: Path) -> None:
    times = [f"2024-10-27 0{h}:00" for h in (1, 2, 2, 3)]
    lines = [f"{t};{s};{i}" for i, t in enumerate(times) for s in "ab"]
    path = written(tmp_path, "\n".join(["time;id;v", *lines]))
    clients, _ = series_of(path, layout="long", id_column="id", target="v", time_zone="Europe/Berlin")
    assert [numbers(s) for s in clients] == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert hours(clients[1])[1:3] == ["2024-10-27 00:00", "2024-10-27 01:00"]


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_autumn_hour_of_a_file_with_the_newest_row_first(layout: str, tmp_path: Path) -> None:
    times = [f"2024-10-27 0{h}:{m:02}" for h in (1, 2, 2, 3) for m in (0, 30)]
    lines = [f"{t};a;{i}" for i, t in enumerate(times)][::-1]
    if layout == "long":
        lines = [*lines, *(f"{t};b;{i}" for i, t in enumerate(times))]
    path = written(tmp_path, "\n".join(["time;id;v", *lines]))
    long = {"layout": "long", "id_column": "id", "target": "v"}
    clients, _ = series_of(path, sort=True, time_zone="Europe/Berlin", **(long if layout == "long" else {}))
    assert [numbers(s) for s in clients] == [[0, 1, 2, 3, 4, 5, 6, 7]] * len(clients)
    assert hours(clients[0])[2:6] == ["2024-10-27 00:00", "2024-10-27 00:30", "2024-10-27 01:00", "2024-10-27 01:30"]


def test_spring_hour_is_no_gap(tmp_path: Path) -> None:
    times = [f"2024-03-31 0{h}:00" for h in (0, 1, 3, 4)]
    utc = berlin(tmp_path, times, gaps="error")
    assert utc == ["2024-03-30 23:00", "2024-03-31 00:00", "2024-03-31 01:00", "2024-03-31 02:00"]


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (["2024-03-31 01:00", "2024-03-31 02:00", "2024-03-31 03:00"], "line 3: 2024-03-31 02:00:00 does not exist in"),
        ([f"2024-10-27 0{h}:00" for h in (1, 2, 3)], "line 3: 2024-10-27 02:00:00 exists twice.* once"),
        (["2024-10-27 02:00"] * 3, "line 2: 2024-10-27 02:00:00 exists twice in Europe/Berlin and occurs 3 times"),
    ],
)  # fmt: skip
def test_local_times_that_are_not_one_are_named(tmp_path: Path, times: list[str], says: str) -> None:
    with pytest.raises(DataError, match=f"time_zone: .*{says}"):
        berlin(tmp_path, times)


def test_offsets_in_the_text_win_over_the_zone(tmp_path: Path) -> None:
    times = ["2024-10-27 02:00+02:00", "2024-10-27 02:00+01:00", "2024-10-27 03:00+01:00"]
    clients, _ = series_of(file_of(tmp_path, "time", times), time_zone="America/New_York")
    assert hours(clients[0]) == ["2024-10-27 00:00", "2024-10-27 01:00", "2024-10-27 02:00"]


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_parquet_times_have_their_zone(tmp_path: Path, zone: str | None) -> None:
    utc = np.array(HOURS, "M8[ns]")
    times = pa.array(utc).cast(pa.timestamp("ns", tz=zone))
    parquet.write_table(pa.table({"t": times, "v": [1.0, 2.0, 3.0]}), tmp_path / "x.parquet")
    clients, _ = series_of(tmp_path / "x.parquet")
    assert hours(clients[0]) == HOURS
    local, _ = series_of(tmp_path / "x.parquet", time_zone="America/New_York")
    assert hours(local[0])[0] == ("2024-03-01 05:00" if zone else "2024-03-01 10:00")


def test_numbers_of_a_long_table_are_times_by_each_sensors_order(tmp_path: Path) -> None:
    stamps = [1709269200000 + 3600000 * i for i in range(3)]
    text = "\n".join(["id,at,v", *(f"{s},{t},{i}" for s in "ab" for i, t in enumerate(stamps))])
    clients, reading = series_of(written(tmp_path, text), layout="long", id_column="id", target="v")
    assert [hours(s) for s in clients] == [HOURS, HOURS]
    assert reading.record["time"] == "time from at (ms since 1970)"


@pytest.mark.parametrize(
    "days", [["2024030105", "2024030106"], ["20240301", "20240302"], ["202403010500", "202403010530"]]
)
def test_digits_of_dates_are_no_sensor_under_any_name(days: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"'MESS_DATUM': {days[0]} may be a date written .* Set time_format"):
        series_of(file_of(tmp_path, "MESS_DATUM", days))


def test_meter_that_counts_beside_times_is_a_sensor(tmp_path: Path) -> None:
    counts = [1600000000, 1600000003, 1600000010, 1600000011]
    rows = [f"2024-03-01 0{5 + i}:00,{c}" for i, c in enumerate(counts)]
    clients, _ = series_of(written(tmp_path, "\n".join(["time,energy", *rows])))
    assert [(s.name, numbers(s)) for s in clients] == [("energy", counts)]


@pytest.mark.parametrize("step", [0.5, 10])
def test_first_column_of_even_steps_is_no_sensor(step: float, tmp_path: Path) -> None:
    rows = [f"{7 + i * step},{i * i}" for i in range(12)]
    clients, reading = series_of(written(tmp_path, "\n".join(["elapsed,v", *rows])))
    assert [s.name for s in clients] == ["v"]
    assert f"1 skipped (elapsed: counts in steps of {step:g})" in reading.notices()[0]


def test_excluded_times_leave_rows_evenly_spaced(tmp_path: Path) -> None:
    rows = [f"2024-{m:02}-01,{m}" for m in range(1, 8)]
    path = written(tmp_path, "\n".join(["month,v", *rows]))
    with pytest.raises(DataError, match=r"frequency is 31d .* exclude = \['month'\] takes rows as evenly spaced"):
        series_of(path)
    clients, reading = series_of(path, exclude=("month",))
    assert clients[0].time is None
    assert numbers(clients[0]) == [1, 2, 3, 4, 5, 6, 7]
    assert "column 'month' of times is excluded: rows are taken as evenly spaced" in reading.notices()
