"""Rows out of order, rows of one time, missing rows and the bounds of filling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from table_files import hours, numbers, series_of, written

from clients.core.errors import DataError
from clients.federation.data_kinds import build_population
from clients.tables.options import TableOptions


def file_of(folder: Path, minutes: list[int], values: list[float] | None = None, name: str = "x.csv") -> Path:
    times = [f"2024-03-{1 + m // 1440:02} {m // 60 % 24:02}:{m % 60:02}" for m in minutes]
    rows = zip(times, values or range(len(times)), strict=True)
    return written(folder, "\n".join(["time,v", *(f"{t},{v}" for t, v in rows)]), name)


def test_rows_out_of_order_are_refused_or_sorted(tmp_path: Path) -> None:
    path = file_of(tmp_path, [0, 60, 180, 120, 240])
    with pytest.raises(
        DataError, match=r"time: .*line 5, 2024-03-01 02:00:00: does not come after 2024-03-01 03.*sort"
    ):
        series_of(path)  # fmt: skip
    clients, reading = series_of(path, sort=True)
    assert numbers(clients[0]) == [0, 1, 3, 2, 4]
    assert hours(clients[0])[3] == "2024-03-01 03:00"
    assert reading.record["rows_sorted"] == 2
    assert clients[0].at(2).startswith(f"{path}, line 5")


@pytest.mark.parametrize(("duplicates", "expected"), [("first", 1.0), ("last", 4.0), ("mean", 2.5)])
def test_rows_of_one_time_are_merged(tmp_path: Path, duplicates: str, expected: float) -> None:
    path = file_of(tmp_path, [0, 60, 60, 120], [0, 1, 4, 9])
    with pytest.raises(DataError, match=r"line 4, .*1 such rows. Set duplicates to 'first', 'last' or 'mean'; if"):
        series_of(path)
    clients, reading = series_of(path, duplicates=duplicates)
    assert numbers(clients[0]) == [0, expected, 9]
    assert reading.record["rows_merged"] == 1


def test_mean_of_rows_leaves_missing_values_out(tmp_path: Path) -> None:
    text = "time,a,b\n2024-03-01 00:00,1,1\n2024-03-01 01:00,,\n2024-03-01 01:00,3,\n2024-03-01 02:00,5,5\n"
    clients, _ = series_of(written(tmp_path, text), duplicates="mean")
    assert [numbers(s) for s in clients] == [[1, 3, 5], [1, None, 5]]


def test_repairs_are_stated(tmp_path: Path) -> None:
    minutes = [60 * i for i in range(40)]
    minutes[10], minutes[11] = minutes[11], minutes[10]
    path = file_of(tmp_path, [*minutes, minutes[-1]])
    options = TableOptions(path=str(path), window=3, sort=True, duplicates="last")
    notices = build_population(options, None, seed=0).federation.notices
    assert "2 rows put in order of time (sort = true)" in notices
    assert "1 row of a time that another row has left out (duplicates = 'last')" in notices


@pytest.mark.parametrize("layout", ["long", "files"])
def test_sensor_out_of_order_is_named(tmp_path: Path, layout: str) -> None:
    if layout == "files":
        file_of(tmp_path, [0, 60, 120], name="a.csv")
        file_of(tmp_path, [0, 120, 60], name="b.csv")
        options: dict[str, Any] = {"layout": "files", "target": "v"}
    else:
        rows = [("00:00", "a"), ("00:00", "b"), ("01:00", "a"), ("01:00", "b"), ("00:30", "b"), ("02:00", "a")]
        written(tmp_path, "\n".join(["time,id,v", *(f"2024-03-01 {t},{s},1" for t, s in rows)]))
        options = {"layout": "long", "target": "v", "id_column": "id"}
    with pytest.raises(DataError, match=r"csv, line \d, .*, of 'b': does not come after"):
        series_of(tmp_path, **options)


def test_files_out_of_order_are_joined_in_time(tmp_path: Path) -> None:
    file_of(tmp_path, [0, 60], [1, 2], "1.csv")
    file_of(tmp_path, [240, 300], [5, 6], "10.csv")
    file_of(tmp_path, [120, 180], [3, 4], "2.csv")
    with pytest.raises(DataError, match=r"2.csv, line 2, .*does not come after .*sort = true"):
        series_of(tmp_path)
    clients, _ = series_of(tmp_path, sort=True)
    assert numbers(clients[0]) == [1, 2, 3, 4, 5, 6]


def population(path: Path, **options: Any) -> Any:
    return build_population(TableOptions(path=str(path), window=2, scale="none", **options), None, seed=0)


def test_filling_is_bounded_without_max_gap(tmp_path: Path) -> None:
    minutes = [60 * i for i in range(100) if not (10 <= i < 16 or 30 <= i < 37)]  # six and seven hours
    p = population(file_of(tmp_path, minutes), gaps="interpolate")
    assert p.federation.record["rows_inserted"] == 13
    assert p.federation.record["values_interpolated"] == 6
    assert "runs of up to 6 missing values are filled (max_gap is unset)" in p.federation.notices
    assert population(file_of(tmp_path, minutes), gaps="interpolate", max_gap=7).federation.record[
        "values_interpolated"
    ] == 13  # fmt: skip


@pytest.mark.parametrize("gaps", ["interpolate", "drop"])
def test_grid_of_mostly_new_rows_is_refused(tmp_path: Path, gaps: str) -> None:
    path = file_of(tmp_path, [60 * i for i in range(50)])
    says = r"frequency: .*line 3, .*comes 1h after .*2,891 rows would .* in between 50. Is frequency right\?"
    with pytest.raises(DataError, match=says):
        population(path, frequency="1min", gaps=gaps)


def test_long_outage_is_left_out_and_stated(tmp_path: Path) -> None:
    minutes = [60 * i for i in (*range(40), *range(200, 240))]
    p = population(file_of(tmp_path, minutes), gaps="interpolate")
    assert p.federation.record["rows_inserted"] == 160
    assert p.federation.record["values_interpolated"] == 0
    assert "160 missing rows inserted" in p.federation.notices[0]


def test_series_of_mostly_filled_values_is_refused(tmp_path: Path) -> None:
    minutes = [60 * i for i in (*range(40), *range(200, 240))]
    with pytest.raises(DataError, match=r"max_gap: .*160 values would be filled and 80 are known. Lower max_gap"):
        population(file_of(tmp_path, minutes), gaps="interpolate", max_gap=200, validation_fraction=0, test_fraction=0)


def test_notices_state_windows_and_values(tmp_path: Path) -> None:
    minutes = [60 * i for i in range(50) if i not in (20, 30, 31)]
    p = population(file_of(tmp_path, minutes), gaps="interpolate", max_gap=1, validation_fraction=0, test_fraction=0)
    assert p.federation.notices == (
        "read as: 1 file, ',', utf-8, time from time, 1 column of numbers, every 1h, 3 missing rows inserted, "
        "1 value filled; 4 of 48 windows dropped (gaps)",
    )
    assert p.federation.record["windows"] == 48


def test_steps_that_differ_between_clients_are_named(tmp_path: Path) -> None:
    hourly = "".join(f"2024-03-01 {h:02}:00,a,{h}\n" for h in range(5))
    every_ten = "".join(f"2024-03-01 00:{m}0,b,{m}\n" for m in range(6))
    path = written(tmp_path, "time,id,v\n" + hourly + every_ten)
    long = {"layout": "long", "id_column": "id", "target": "v"}
    _, reading = series_of(path, **long)
    assert reading.record["frequency"] == "1h or 10min"
    assert any("steps differ between clients" in n and "(1h: a; 10min: b)" in n for n in reading.notices())
    with pytest.raises(DataError, match="comes 10min after the row before, and the frequency is 1h"):
        series_of(path, frequency="1h", **long)


def test_sensor_without_readings_is_named_with_what_to_exclude(tmp_path: Path) -> None:
    path = written(tmp_path, "time,a,b,c\n" + "".join(f"2024-03-01 {h:02}:00,{h},,\n" for h in range(5)))
    with pytest.raises(DataError, match=r"column 'b' holds no reading\. Leave it out: exclude = \['b', 'c'\]"):
        series_of(path, gaps="error")


def test_client_without_a_window_is_named(tmp_path: Path) -> None:
    rows = "".join(f"2024-03-01 {h:02}:00,a,{h}\n" for h in range(24)) + "2024-03-01 00:00,b,1\n2024-03-01 01:00,b,2\n"
    options = TableOptions(path=str(written(tmp_path, "time,id,v\n" + rows)), layout="long", id_column="id", target="v")
    found = build_population(replace(options, window=3), None, seed=0)
    assert found.sizes.tolist() == [14, 0]
    says = "no window fits the training part of b (2 rows): too few rows, or gaps; they never train"
    assert says in found.federation.notices
