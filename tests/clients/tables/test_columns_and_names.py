"""Which columns are sensors, what clients are called, and which files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from table_files import numbers, series_of, written

from clients.core.errors import DataError
from clients.federation.data_kinds import build_population
from clients.tables.options import TableOptions

TIMES = [f"2024-03-01 0{h}:00" for h in range(6)]


def table(folder: Path, **columns: list[Any]) -> Path:
    rows = zip(*columns.values(), strict=True)
    return written(folder, "\n".join([",".join(columns), *(",".join(map(str, r)) for r in rows)]) + "\n")


def test_text_column_is_named_with_its_first_value(tmp_path: Path) -> None:
    path = table(tmp_path, time=TIMES, a=[1, 2, 3, 4, 5, 7], remark=["ok", "ok", "", "x", "y", "z"])
    clients, reading = series_of(path)
    assert [s.name for s in clients] == ["a"]
    assert "1 column of numbers, 1 skipped (remark: 'ok', line 2), every 1h" in reading.notices()[0]
    assert reading.record["columns_skipped"] == "remark"


@pytest.mark.parametrize(
    ("index", "name", "left"),
    [
        ([0, 1, 2, 3, 4, 5], "", True),
        ([1, 2, 3, 4, 5, 6], "No", True),
        ([10, 12, 15, 16, 20, 21], "", True),
        ([10, 12, 15, 16, 20, 21], "depth", False),
        ([1, 2, 3, 4, 6, 5], "No", False),
    ],
)
def test_first_column_that_counts_rows_is_an_index(tmp_path: Path, index: list[int], name: str, left: bool) -> None:
    lines = [f"{i},{t},{v}" for i, t, v in zip(index, TIMES, (1, 2, 3, 4, 5, 7), strict=True)]
    clients, reading = series_of(written(tmp_path, "\n".join([f"{name},time,a", *lines])))
    assert [s.name for s in clients] == (["a"] if left else [name, "a"])
    assert (f"{name or repr(name)}: counts rows" in reading.notices()[0]) == left


def test_index_that_starts_again_in_every_file_is_an_index(tmp_path: Path) -> None:
    for name, part in (("1.csv", TIMES[:3]), ("2.csv", TIMES[3:])):
        written(tmp_path, "\n".join([",time,a", *(f"{i},{t},{i * i}" for i, t in enumerate(part))]), name)
    clients, _ = series_of(tmp_path)
    assert [(s.name, numbers(s)) for s in clients] == [("a", [0, 1, 4, 0, 1, 4])]


@pytest.mark.parametrize(("gap", "names"), [("", ["elapsed", "a"]), ("25", ["a"])])
def test_first_column_in_even_steps_is_no_sensor_unless_it_has_gaps(tmp_path: Path, gap: str, names: list[str]) -> None:
    elapsed = ["0", "5", "10", "15", "20", gap, *(str(5 * i) for i in range(6, 20))]
    path = table(tmp_path, elapsed=elapsed, a=[i * i % 7 for i in range(20)])
    assert [s.name for s in series_of(path)[0]] == names


def test_times_are_no_clients(tmp_path: Path) -> None:
    path = table(tmp_path, time=TIMES, ts=range(1709251200, 1709251206), seen=TIMES, a=[1, 2, 3, 4, 5, 7])
    clients, reading = series_of(path)
    assert [s.name for s in clients] == ["a"]
    assert "2 skipped (ts: time; seen: time)" in reading.notices()[0]


@pytest.mark.parametrize("name", ["unixtime", "", "t"])
def test_numbers_since_1970_are_a_time(tmp_path: Path, name: str) -> None:
    rows = [f"{1_700_000_000 + 3600 * i},{i * i}" for i in range(5)]
    clients, reading = series_of(written(tmp_path, "\n".join([f"{name},a", *rows])))
    assert [(s.name, numbers(s)) for s in clients] == [("a", [0, 1, 4, 9, 16])]
    quoted = name or "''"
    assert reading.record["time"] == f"time from {quoted} (s since 1970)"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"columns": ("b", "a")}, ["b", "a"]),
        ({"clients": ("c",)}, ["c"]),
        ({"exclude": ("b",)}, ["a", "c"]),
        ({"columns": ("a", "b"), "exclude": ("a",)}, ["b"]),
        ({"features": ("c",), "exclude": ("note",)}, ["a", "b"]),
    ],
)
def test_columns_are_chosen(tmp_path: Path, options: dict[str, Any], names: list[str]) -> None:
    values = [1, 2, 3, 4, 5, 7]
    path = table(tmp_path, time=TIMES, a=values, b=values, c=values, note=["x"] * 6)
    assert [s.name for s in series_of(path, **options)[0]] == names


@pytest.mark.parametrize("layout", ["long", "files"])
def test_clients_are_chosen_by_name(tmp_path: Path, layout: str) -> None:
    names = ("Huairou", "Shunyi", "Dongsi")
    if layout == "files":
        for name in names:
            written(tmp_path, "v\n1\n2\n", f"{name}.csv")
        options: dict[str, Any] = {"layout": "files", "target": "v"}
    else:
        lines = [f"{n},{i}" for n in names for i in range(3)]
        written(tmp_path, "\n".join(["id,v", *lines]))
        options = {"layout": "long", "target": "v", "id_column": "id"}
    assert [s.name for s in series_of(tmp_path, clients=("Shunyi",), **options)[0]] == ["Shunyi"]
    assert [s.name for s in series_of(tmp_path, exclude=("Shunyi",), **options)[0]] == ["Dongsi", "Huairou"]
    with pytest.raises(DataError, match=r"clients: 'Huairu' is not a client. Nearest: 'Huairou'"):
        series_of(tmp_path, clients=("Huairu",), **options)
    with pytest.raises(DataError, match=r"exclude: 'Huairu' is not a client. Nearest: 'Huairou'"):
        series_of(tmp_path, exclude=("Huairu",), **options)
    with pytest.raises(DataError, match="exclude: leaves no client"):
        series_of(tmp_path, exclude=names, **options)


def test_text_in_features_is_reported_as_features(tmp_path: Path) -> None:
    path = table(tmp_path, time=TIMES, a=[1, 2, 3, 4, 5, 7], wind=["N", "S", "N", "N", "N", "E"])
    with pytest.raises(DataError, match=r"features: .*line 2, column 'wind': 'N' is not a number"):
        series_of(path, layout="files", target="a", features=("wind",))
    with pytest.raises(DataError, match=r"target: .*line 2, column 'wind': 'N' is not a number"):
        series_of(path, layout="files", target="wind", features=("a",))
    with pytest.raises(DataError, match=r"features: .*line 2, column 'wind': 'N' is not a number"):
        series_of(path, columns=("a",), features=("wind",))


def test_constant_and_empty_sensors_are_named(tmp_path: Path) -> None:
    rows = [f"{i},5,,{i if i > 30 else ''}" for i in range(40)]
    path = written(tmp_path, "\n".join(["a,fixed,none,late", *rows]))
    population = build_population(TableOptions(path=str(path), gaps="drop", window=3, exclude=("a",)), None, seed=0)
    assert "without any reading: none" in population.federation.notices
    assert "constant: fixed (5)" in population.federation.notices
    assert population.sizes.tolist() == [25, 0, 0]


# Names


def test_ids_are_text(tmp_path: Path) -> None:
    rows = ['007,1', '007,2', '7,3', '7,4', '"NA",5', '"NA",6', ' 7,7', ' 7,8']  # fmt: skip
    clients, reading = series_of(
        written(tmp_path, "\n".join(["id,v", *rows])), layout="long", id_column="id", target="v"
    )
    assert [(s.name, numbers(s)) for s in clients] == [(" 7", [7, 8]), ("007", [1, 2]), ("7", [3, 4]), ("NA", [5, 6])]
    assert "1 name of a client begins or ends with a space: ' 7'" in reading.notices()


def test_unquoted_na_is_no_name(tmp_path: Path) -> None:
    for text in ("id,v\nx,1\nNA,2\n", 'id,v\n"NA",1\nNA,2\n'):
        with pytest.raises(DataError, match=r"id_column: .*x.csv, line 3: column 'id' is empty"):
            series_of(written(tmp_path, text), layout="long", id_column="id", target="v")


def test_quoted_na_among_numbers_is_missing(tmp_path: Path) -> None:
    clients, _ = series_of(written(tmp_path, 'a,b\n"1","2"\n"NA","3"\n'))
    assert [numbers(s) for s in clients] == [[1, None], [2, 3]]


def test_names_are_the_same_in_a_stack_of_files(tmp_path: Path) -> None:
    written(tmp_path, 'id,v\n"NA",1\n', "1.csv")
    written(tmp_path, "id,v\n007,2\n", "2.csv")
    written(tmp_path, 'id,v\n"a ""b"" \n c",3\n', "3.csv")
    clients, _ = series_of(tmp_path, layout="files", id_column="id", target="v")
    assert [(s.name, numbers(s)) for s in clients] == [("NA", [1]), ("007", [2]), ('a "b" \n c', [3])]


# Paths


def test_path_that_exists_goes_before_a_pattern(tmp_path: Path) -> None:
    written(tmp_path, "v\n1\n2\n", "hall 2.csv")
    path = written(tmp_path, "v\n3\n4\n", "hall [2].csv")
    assert numbers(series_of(path)[0][0]) == [3, 4]
    assert numbers(series_of(tmp_path / "hall ?.csv")[0][0]) == [1, 2]
    folder = tmp_path / "site [1]"
    folder.mkdir()
    written(folder, "v\n5\n6\n", "a.csv")
    assert numbers(series_of(folder)[0][0]) == [5, 6]


def test_order_of_files_and_what_is_left_out_are_stated(tmp_path: Path) -> None:
    for name in ("s1.csv", "s10.csv", "s2.CSV", "._s1.csv", "~$s1.csv", "readme.txt"):
        written(tmp_path, "v\n1\n2\n", name)
    clients, reading = series_of(tmp_path, layout="files", target="v")
    assert [s.name for s in clients] == ["s1", "s10", "s2"]
    assert reading.notices()[0].startswith("read as: 3 files in order of their names, from s1.csv to s2.CSV, ','")
    assert "files left out of the folder: 2 hidden and 1 of other endings" in reading.notices()


def test_names_of_columns_lose_spaces(tmp_path: Path) -> None:
    clients, reading = series_of(written(tmp_path, "a, b\n1,2\n3,4\n"))
    assert [s.name for s in clients] == ["a", "b"]
    assert "spaces around 1 column name left out (' b')" in reading.notices()


def test_padded_ids_are_named_without_spaces(tmp_path: Path) -> None:
    text = "id;v\n   3;1\n   3;2\n  44;3\n  44;4\n"
    long = {"layout": "long", "id_column": "id", "target": "v"}
    clients, reading = series_of(written(tmp_path, text), clients=("3",), **long)
    assert [(s.name, numbers(s)) for s in clients] == [("3", [1, 2])]
    assert "spaces around 2 names of clients left out ('   3')" in reading.notices()


def test_feature_of_text_is_named_as_text(tmp_path: Path) -> None:
    path = written(tmp_path, "v,wind\n1,NW\n2,N\n3,N\n")
    with pytest.raises(DataError, match=r"features: .*'NW' is not a number. The column holds text alone: leave it out"):
        series_of(path, columns=("v",), features=("wind",))
