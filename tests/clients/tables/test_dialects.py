"""Files as other programs write them: separators, decimal marks, encodings, comments, markers of missing values."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from table_files import hours, numbers, series_of, written

from clients.core.errors import DataError, UserError
from clients.tables.options import TableOptions
from clients.tables.text.dialect import find_delimiter, find_encoding

EXCEL_GERMAN = "Datum;Köln;Bonn\r\n01.02.2024 00:00;1,5;-3\r\n01.02.2024 01:00;2,25;0,125\r\n01.02.2024 02:00;3;4,0\r\n"
KOELN, BONN = [1.5, 2.25, 3.0], [-3.0, 0.125, 4.0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
def test_german_export_is_read_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    clients, reading = series_of(written(tmp_path, EXCEL_GERMAN.encode(encoding)))
    assert [(s.name, numbers(s)) for s in clients] == [("Köln", KOELN), ("Bonn", BONN)]
    assert hours(clients[0]) == ["2024-02-01 00:00", "2024-02-01 01:00", "2024-02-01 02:00"]
    found = {"latin-1": "cp1252", "utf-16-le": "utf-16-le"}.get(encoding, encoding)
    assert (reading.record["delimiter"], reading.record["encoding"], reading.record["decimal"]) == (";", found, ",")
    assert reading.notices()[0] == (
        f"read as: 1 file, ';', {found}, decimal ',', time from Datum (day first), 2 columns of numbers, every 1h"
    )


def test_guessed_encoding_shows_a_name(tmp_path: Path) -> None:
    _, reading = series_of(written(tmp_path, EXCEL_GERMAN.encode("latin-1")))
    says = "a file is not UTF-8 and is read as cp1252 (a column is 'Köln'); set encoding if names look wrong"
    assert says in reading.notices()


def test_given_encoding_is_used(tmp_path: Path) -> None:
    path = written(tmp_path, "t;Łódź\n1;2\n2;3\n3;5\n".encode("cp1250"))
    clients, _ = series_of(path, encoding="cp1250", columns=("Łódź",))
    assert clients[0].name == "Łódź"
    with pytest.raises(DataError, match=r"encoding: .*x.csv is not text in utf-8 .*Leave encoding out to find it"):
        series_of(path, encoding="utf-8")


def test_ids_in_latin_1_are_text(tmp_path: Path) -> None:
    text = "id;v\nKöln;1\nKöln;2\nBonn;3\nBonn;4\n"
    clients, _ = series_of(written(tmp_path, text.encode("latin-1")), layout="long", id_column="id", target="v")
    assert [s.name for s in clients] == ["Bonn", "Köln"]


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("a,b\n1,2\n3,4\n", {}, {"a": [1, 3], "b": [2, 4]}),
        ("a;b\n1;2\n3;4\n", {}, {"a": [1, 3], "b": [2, 4]}),
        ("a\tb\n1\t2\n3\t4\n", {}, {"a": [1, 3], "b": [2, 4]}),
        ("a|b\n1|2\n3|4\n", {}, {"a": [1, 3], "b": [2, 4]}),
        ("a b\n1 2\n3 4\n", {"delimiter": " "}, {"a": [1, 3], "b": [2, 4]}),
        ("a;b\n1,5;2,5\n3,5;4,5\n", {}, {"a": [1.5, 3.5], "b": [2.5, 4.5]}),
        ("a;b\n1.5;2\n3.5;4\n", {}, {"a": [1.5, 3.5], "b": [2, 4]}),
        ('a,b\n"1,5","2,25"\n"3,5","1,234"\n', {}, {"a": [1.5, 3.5], "b": [2.25, 1.234]}),
        ("a;b\n1,234;2,5\n3,456;4,5\n", {}, {"a": [1.234, 3.456], "b": [2.5, 4.5]}),
        ("a;b\n1,234;2\n3,456;4\n", {"decimal": ","}, {"a": [1.234, 3.456], "b": [2, 4]}),
        ("a;b\n1,234;2\n3,456;4\n", {"thousands": ","}, {"a": [1234, 3456], "b": [2, 4]}),
        ("a;b\n1.234,5;2\n3.456.789,25;4\n", {"thousands": "."}, {"a": [1234.5, 3456789.25], "b": [2, 4]}),
        ("a;b\n1 234;2\n1\u00a0234.5;4\n", {"thousands": " "}, {"a": [1234, 1234.5], "b": [2, 4]}),
        ("a;b\n1 234,5;2\n1 987,0;4\n", {"thousands": " "}, {"a": [1234.5, 1987], "b": [2, 4]}),
        ("0,1\n1.5,2\n2.5,3\n", {}, {"0": [1.5, 2.5], "1": [2, 3]}),
        ("a;b\n1'234.5;2\n3'456;4\n", {"thousands": "'"}, {"a": [1234.5, 3456], "b": [2, 4]}),
        ("sep=;\na;b\n1;2\n3;4\n", {}, {"a": [1, 3], "b": [2, 4]}),
        ("a, b\n1, 2\n3, 4\n", {}, {"a": [1, 3], "b": [2, 4]}),
        ("a;b;;\n1;2;;\n3;4;;\n;;;\n;;;\n", {}, {"a": [1, 3], "b": [2, 4]}),
        ("a,b\n1,2,\n3,4,\n", {}, {"a": [1, 3], "b": [2, 4]}),
        ("a,b\r1,2\r3,4\r", {}, {"a": [1, 3], "b": [2, 4]}),
        ("a,b\n1e3,-2E-1\n+3,.5\n", {}, {"a": [1000, 3], "b": [-0.2, 0.5]}),
        ("a,on\n1,true\n3,false\n", {}, {"a": [1, 3], "on": [1, 0]}),
        ("Station 5\nDepth: 3 m\na,b\n1,2\n3,4\n", {"skip_rows": 2}, {"a": [1, 3], "b": [2, 4]}),
        ("# made by x\na,b\n1,2\n# pause, 5\" pipe\n3,4\n", {"comment": "#"}, {"a": [1, 3], "b": [2, 4]}),
        ("a,b\n130,1\n?,2\n", {"missing": ("?",)}, {"a": [130, None], "b": [1, 2]}),
        ("a,b\n1,NA\n3,4\nNaN,null\n,5\n", {}, {"a": [1, 3, None, None], "b": [None, 4, None, 5]}),
        ('a,b\n"1",""\n"3","4"\n" ","NA"\n', {}, {"a": [1, 3, None], "b": [None, 4, None]}),
        ("a;b\n-200,0;1,5\n3,5;-200\n", {"missing": ("-200",)}, {"a": [None, 3.5], "b": [1.5, None]}),
    ],
)  # fmt: skip
def test_dialects_give_these_numbers(
    tmp_path: Path, text: str, options: dict[str, Any], expected: dict[str, list[float | None]]
) -> None:
    clients, _ = series_of(written(tmp_path, text), **options)
    assert {s.name: numbers(s) for s in clients} == expected


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("a,b\n130,1\n?,2\n", {}, r"columns: .*line 3, column 'a': '\?' is not .*set missing = \['\?'\]"),
        ("a,b\n1,2\nn/a,3\n4,5\n", {}, r"columns: .*line 3, column 'a': 'n/a' is not a number.*missing = \['n/a'\]"),
        ("a,b\n1,2\n2,3\nNAN,5\n", {}, r"line 4, column 'a': 'NAN' is not a number. .*set missing = \['NAN'\]"),
        ("a;b\n1,234;2\n3,456;4\n", {}, r"line 2, .*'1,234' is not .*may be 1.234 or 1234: set decimal = ',' or thou"),
        ('a,b\n"1,234,567",2\n"3,456,789",4\n', {}, r"line 2, column 'a': '1,234,567' .*set thousands = ','"),
        ("a;b\n1 234;2\n3 456;4\n", {}, r"line 2, column 'a': '1 234' .*set thousands = ' '"),
        ("a;b\n1'234;2\n3'456;4\n", {}, r"line 2, column 'a': \"1'234\" .*set thousands = \"'\""),
        ("a;b\n1,5;2\n2.5;4\n3,5;5\n", {}, r"line 3, column 'a': '2.5' .*The decimal mark is ','"),
        ("a;b\n1,5;2\n2,5;4\n", {"decimal": "."}, r"line 2, column 'a': '1,5' .*set decimal = ','"),
        ("a;b\n1,5;2\n12,34;4\n", {"thousands": ","}, r"line 2, column 'a': '1,5' is not a number"),
        ("# x\n\na,b\n1,2\n\n# y\nbad,3\n5,6\n", {"comment": "#"}, r"x.csv, line 7, column 'a': 'bad'"),
        ("x\ny\na,b\n1,2\nbad,3\n5,6\n", {"skip_rows": 2}, r"x.csv, line 5, column 'a': 'bad'"),
        ('a,note,b\n1,"one\ntwo",2\nbad,x,3\n5,y,6\n', {}, r"x.csv, line 4, column 'a': 'bad'"),
        ('a,note,b\n1,5" pipe,2\n\nbad,6,3\n5,y,6\n', {}, r"x.csv, line 4, column 'a': 'bad'"),
        ("a,b\n1,2\n3\n4,5\n", {}, r"x.csv cannot be read \(line 3: Expected 2 columns, got 1: 3\)"),
        ("Station 5\nDepth 3\na,b\n1,2\n3,4\n", {}, r"Expected 1 columns, got 2.*try skip_rows = 2"),
        ("2024-01-01 00:00,1\n2024-01-01 01:00,3\n", {}, "line 1: '2024-01-01 00:00' stands where a column's name"),
        ('id,t\n1,"-0070,1"\n2,"+0012,1"\n', {"columns": ("t",)}, "line 2, column 't': '-0070,1' is not a number"),
        ("a,a\n1,2\n", {}, "more than one column called 'a'. Give each"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_refused(tmp_path: Path, text: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        series_of(written(tmp_path, text), **options)


def test_header_of_numbers_is_stated(tmp_path: Path) -> None:
    _, reading = series_of(written(tmp_path, "3,4.5\n5,6\n8,7\n"))
    assert "the columns' names are numbers ('3'); is the first line data?" in reading.notices()


def test_missing_values_are_counted_by_marker(tmp_path: Path) -> None:
    _, reading = series_of(written(tmp_path, "a,b\n1,NA\n?,NA\n3,\n4,5\n"), missing=("?",))
    assert "missing values: empty 1, '?' 1, 'NA' 2" in reading.notices()
    assert reading.record["values_missing"] == 4


def test_column_that_starts_with_a_whole_number_is_no_time(tmp_path: Path) -> None:
    clients, reading = series_of(written(tmp_path, "a,b\n130,1\n?,2\n"), missing=("?",))
    assert clients[0].time is None
    assert "no times" in reading.notices()[0]


UCI_AIR = """Date;Time;CO(GT);NMHC(GT);T;;
10/03/2004;18.00.00;2,6;150;13,6;;
10/03/2004;19.00.00;2;112;13,3;;
10/03/2004;20.00.00;-200;88;11,9;;
;;;;;;
;;;;;;
"""


def test_uci_air_quality_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, UCI_AIR)
    with pytest.raises(DataError, match=r"time_format: .*line 2, columns 'Date', 'Time': .*day first or month first"):
        series_of(path)
    clients, reading = series_of(path, time_format="%d/%m/%Y %H.%M.%S", missing=("-200",))
    assert {s.name: numbers(s) for s in clients} == {
        "CO(GT)": [2.6, 2.0, None],
        "NMHC(GT)": [150, 112, 88],
        "T": [13.6, 13.3, 11.9],
    }
    assert hours(clients[0]) == ["2004-03-10 18:00", "2004-03-10 19:00", "2004-03-10 20:00"]
    assert reading.notices() == (
        "read as: 1 file, ';', utf-8, decimal ',', time from Date+Time (%d/%m/%Y %H.%M.%S), 3 columns of numbers, "
        "every 1h, 1 value missing",
        "2 empty columns without a name left out",
        "2 empty rows at the end left out",
        "missing values: '-200' 1",
    )


def test_files_of_one_form_may_differ_in_encoding(tmp_path: Path) -> None:
    written(tmp_path, "id;v\nKöln;1\nKöln;2\n".encode("latin-1"), "1.csv")
    written(tmp_path, gzip.compress(b"id;v\nBonn;3\n\nBonn;4\n"), "2.CSV.gz")
    clients, reading = series_of(tmp_path, layout="files", id_column="id", target="v")
    assert [(s.name, numbers(s)) for s in clients] == [("Köln", [1, 2]), ("Bonn", [3, 4])]
    assert "encodings: cp1252, utf-8" in reading.notices()
    assert clients[1].at(1).endswith("2.CSV.gz, line 4")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delimiter": ";;"}, "delimiter: must be one character"),
        ({"decimal": ",", "thousands": ","}, "thousands: must differ from decimal"),
        ({"thousands": "x"}, "thousands: must be ',', '.'"),
        ({"encoding": "utf-88"}, "encoding: is not known: 'utf-88'"),
        ({"encoding": "base64"}, "encoding: is not known: 'base64'"),
        ({"skip_rows": -1}, "skip_rows: must be at least 0"),
        ({"time_zone": "Europe/Berln"}, "time_zone: 'Europe/Berln' is not a time zone. Nearest: 'Europe/Berlin'"),
        ({"columns": ("a",), "clients": ("a",)}, "clients: cannot be set beside columns"),
    ],
)
def test_wrong_dialects_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TableOptions(path="x.csv", **options)


def test_delimiters_and_encodings_are_found() -> None:
    assert find_delimiter(["id,tags", "1,a;b", "2,c;d"]) == ","
    assert find_delimiter(["Zeit;Temp,C", "1;20,5", "2;21,5"]) == ";"
    assert find_delimiter(["x", "1", "2"]) == ","
    assert find_encoding("naïve €".encode("cp1252")) == "cp1252"
    assert find_encoding(b"\x81\xe9") == "latin-1"


def test_numbers_in_parquet_follow_the_same_keys(tmp_path: Path) -> None:
    columns = {"a": ["1,5", "?", "2,25"], "b": [1.0, -999.0, float("nan")], "c": [1, -999, None]}
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    clients, reading = series_of(tmp_path / "x.parquet", missing=("?", "-999"))
    assert {s.name: numbers(s) for s in clients} == {"a": [1.5, None, 2.25], "b": [1, None, None], "c": [1, None, None]}
    assert "missing values: empty 1, '-999' 2, '?' 1, 'NaN' 1" in reading.notices()
    with pytest.raises(DataError, match=r"x.parquet, row 2, column 'a': '\?' is not a number"):
        series_of(tmp_path / "x.parquet", columns=("a",))


def test_ids_of_pandas_are_text(tmp_path: Path) -> None:
    ids = pa.array(["007", "NA", "007", "NA"]).dictionary_encode()
    parquet.write_table(pa.table({"id": ids, "n": [7, 8, 7, 8], "v": [1, 2, 3, 4]}), tmp_path / "x.parquet")
    for column, names in (("id", ["007", "NA"]), ("n", ["7", "8"])):
        clients, _ = series_of(tmp_path / "x.parquet", layout="long", id_column=column, target="v")
        assert [(s.name, numbers(s)) for s in clients] == [(names[0], [1, 3]), (names[1], [2, 4])]


def test_points_that_may_separate_thousands_need_a_key(tmp_path: Path) -> None:
    path = written(tmp_path, "a;b\n1;987\n2;1.234\n3;12.500\n")
    says = (
        r"line 3, column 'b': '1.234' may be 1.234 or 1234; others have no point. Set decimal = '.' or thousands = '.'"
    )
    with pytest.raises(DataError, match=says):
        series_of(path)
    assert numbers(series_of(path, thousands=".", columns=("b",))[0][0]) == [987, 1234, 12500]
    assert numbers(series_of(path, decimal=".", columns=("b",))[0][0]) == [987, 1.234, 12.5]


@pytest.mark.parametrize("values", [["1.234", "12.500", "2.000"], ["1.5", "2", "1.234"], ["0.125", "2", "1.125"]])
def test_fractions_with_three_digits_are_read(values: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join(["a;b", *(f"x;{v}" for v in values)]) + "\n")
    assert numbers(series_of(path)[0][0]) == [float(v) for v in values]
