"""Sensor tables: layouts, windows, splits without leakage, scaling, gaps, and mistakes named with their place."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import shared_data
from pyarrow import parquet

from clients.core.errors import DataError, UserError
from clients.core.population import Population
from clients.federation.data_kinds import build_population
from clients.tables.options import TableOptions
from clients.tables.series import interpolate, window_starts

START = np.datetime64("2024-02-28T22:00:00")


def population(path: Path, **options: Any) -> Population:
    return build_population(TableOptions(path=str(path), **options), None, seed=0, dtype=torch.float64)


def stamps(rows: int, minutes: int = 60) -> list[str]:
    return [str(START + np.timedelta64(minutes * i, "m")).replace("T", " ") for i in range(rows)]


def write(path: Path, header: list[str], *columns: Any) -> Path:
    lines = [
        ",".join(header),
        *(",".join("" if v is None else str(v) for v in row) for row in zip(*columns, strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def wide(path: Path, rows: int = 100, sensors: int = 3) -> tuple[Path, np.ndarray]:
    values = np.random.default_rng(0).normal(50, 10, (rows, sensors)).round(3)
    write(path, ["time", *(f"s{k}" for k in range(sensors))], stamps(rows), *values.T)
    return path, values


def windows_of(series: np.ndarray, start: int, end: int, window: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """The definition, one window after the other."""
    starts = range(start, end - window - horizon + 1)
    x = np.array([series[s : s + window] for s in starts])[..., None]
    return x, np.array([series[s + window : s + window + horizon] for s in starts])


# Windows, splits, scaling


def test_windows_of_every_part_equal_the_definition(tmp_path: Path) -> None:
    path, values = wide(tmp_path / "w.csv")
    p = population(path, window=4, horizon=2, scale="none")
    assert (p.num_clients, p.feature_shape, p.outputs, p.task) == (3, (4, 1), 2, "regression")
    assert p.clients.held_out is not None
    assert p.validation is not None
    assert p.test is not None
    central = 0
    for k in range(3):
        x, y = windows_of(values[:, k], 0, 70, 4, 2)
        one = p.cohort(np.array([2, k])).client(1)
        np.testing.assert_array_equal(one.features.numpy(), x)
        np.testing.assert_array_equal(one.targets.numpy(), y)
        x, y = windows_of(values[:, k], 80, 100, 4, 2)
        held = p.clients.held_out(np.array([k])).client(0)
        np.testing.assert_array_equal(held.features.numpy(), x)
        np.testing.assert_array_equal(held.targets.numpy(), y)
        np.testing.assert_array_equal(p.test.features[central : central + len(x)].numpy(), x)
        central += len(x)
        x, y = windows_of(values[:, k], 70, 80, 4, 2)
        np.testing.assert_array_equal(p.validation.features[5 * k : 5 * k + 5].numpy(), x)
        np.testing.assert_array_equal(p.validation.targets[5 * k : 5 * k + 5].numpy(), y)
    assert len(p.test) == central
    assert p.federation.client_name(1) == "s1"


@pytest.mark.parametrize("scale", ["client", "global", "none"])
def test_training_contains_no_later_reading(tmp_path: Path, scale: str) -> None:
    """Readings after the split change no bit of the training examples."""
    path, values = wide(tmp_path / "w.csv")
    before = population(path, window=5, horizon=3, scale=scale).cohort(np.arange(3))
    changed = values.copy()
    changed[70:] = 1e6
    write(path, ["time", "s0", "s1", "s2"], stamps(100), *changed.T)
    after = population(path, window=5, horizon=3, scale=scale).cohort(np.arange(3))
    for j in range(3):
        assert torch.equal(before.client(j).features, after.client(j).features)
        assert torch.equal(before.client(j).targets, after.client(j).targets)
    changed[69] = 1e6  # the last training row is used
    write(path, ["time", "s0", "s1", "s2"], stamps(100), *changed.T)
    assert not torch.equal(
        before.client(0).targets,
        population(path, window=5, horizon=3, scale=scale).cohort(np.arange(3)).client(0).targets,
    )


def test_readings_are_scaled_by_training_statistics(tmp_path: Path) -> None:
    path, values = wide(tmp_path / "w.csv")
    train = values[:70]
    own = population(path, window=4).cohort(np.array([1])).client(0)
    x, y = windows_of((values[:, 1] - train[:, 1].mean()) / train[:, 1].std(), 0, 70, 4, 1)
    np.testing.assert_allclose(own.features.numpy(), x, rtol=1e-12)
    np.testing.assert_allclose(own.targets.numpy(), y, rtol=1e-12)
    everyone = population(path, window=4, scale="global")
    x, _ = windows_of((values[:, 1] - train.mean()) / train.std(), 0, 70, 4, 1)
    np.testing.assert_allclose(everyone.cohort(np.array([1])).client(0).features.numpy(), x, rtol=1e-12)
    assert everyone.federation.record["target_mean"] == pytest.approx(train.mean())


def test_constant_sensor_stays_finite(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", ["time", "a", "b"], stamps(40), [0.1] * 40, range(0, 80, 2))
    data = population(path, window=3).cohort(np.array([0])).client(0)
    assert data.features.abs().max() < 1e-9


def test_windows_follow_stride_and_horizon(tmp_path: Path) -> None:
    path, values = wide(tmp_path / "w.csv")
    one = population(path, window=4, horizon=3, stride=5, scale="none").cohort(np.array([0])).client(0)
    x, y = windows_of(values[:, 0], 0, 70, 4, 3)
    np.testing.assert_array_equal(one.features.numpy(), x[::5])
    np.testing.assert_array_equal(one.targets.numpy(), y[::5])


def test_cohorts_share_one_copy_of_the_readings(tmp_path: Path) -> None:
    path, _ = wide(tmp_path / "w.csv", rows=400)
    data = population(path, window=100).cohort(np.arange(3))
    assert data.features.untyped_storage().nbytes() == 3 * 400 * 8  # the windows alone would be 100 times that


@settings(max_examples=80)
@given(
    missing=st.lists(st.booleans(), min_size=1, max_size=40),
    window=st.integers(1, 6),
    horizon=st.integers(1, 4),
    stride=st.integers(1, 3),
    data=st.data(),
)
def test_window_starts_equal_the_definition(
    missing: list[bool], window: int, horizon: int, stride: int, data: st.DataObject
) -> None:
    values = np.stack((np.where(missing, np.nan, 1.0), np.arange(len(missing), dtype=float)), axis=1)
    if data.draw(st.booleans()):
        values[data.draw(st.integers(0, len(missing) - 1)), 1] = np.nan
    start = data.draw(st.integers(0, len(missing)))
    end = data.draw(st.integers(start, len(missing)))
    inputs = np.isnan(values).any(axis=1)
    possible = [s for s in range(start, end, stride) if s + window + horizon <= end]
    whole = [
        s for s in possible if not inputs[s : s + window].any() and not any(missing[s + window : s + window + horizon])
    ]
    found, dropped = window_starts(values, start, end, window, horizon, stride)
    assert found.tolist() == whole
    assert dropped == len(possible) - len(whole)


# Gaps


def test_interpolation_equals_values_by_hand() -> None:
    n = np.nan
    values = np.array([n, 1, n, 3, n, n, 9, n, 4, n, 6, n, n, n, 14.0])[:, None]
    assert interpolate(values, (8, 15), 2) == 4
    # The first and last values of a split have no neighbour of their own split; a run of three is too long.
    np.testing.assert_array_equal(values[:, 0], [n, 1, 2, 3, 5, 7, 9, n, 4, 5, 6, n, n, n, 14])
    assert interpolate(values, (8, 15), None) == 3
    np.testing.assert_array_equal(values[9:, 0], [5, 6, 8, 10, 12, 14])


def test_gaps_are_refused_filled_or_dropped(tmp_path: Path) -> None:
    readings: list[Any] = [float(i) for i in range(60)]
    readings[10] = None
    readings[20] = readings[21] = "NA"
    path = write(tmp_path / "g.csv", ["time", "a"], stamps(60), readings)
    with pytest.raises(DataError, match=r"gaps: .*g.csv, line 12, 2024-02-29 08:00:00, column 'a'.*3 in"):
        population(path, window=4)
    options: dict[str, Any] = {"window": 4, "scale": "none", "validation_fraction": 0.0}
    filled = population(path, gaps="interpolate", **options)
    np.testing.assert_array_equal(
        filled.cohort(np.array([0])).client(0).features[:, 0, 0].numpy(), np.arange(filled.sizes[0], dtype=float)
    )
    assert filled.federation.record["values_interpolated"] == 3
    short = population(path, gaps="interpolate", max_gap=1, **options)
    assert short.sizes[0] == filled.sizes[0] - 6  # the run of two touches 5 + 1 windows of 4 + 1 rows
    dropped = population(path, gaps="drop", **options)
    assert dropped.sizes[0] == filled.sizes[0] - 5 - 6
    assert dropped.federation.record["windows_dropped"] == 11
    assert dropped.cohort(np.array([0])).client(0).features.isfinite().all()


def test_interpolation_stays_within_its_part(tmp_path: Path) -> None:
    readings: list[Any] = [float(i) for i in range(100)]
    readings[68] = readings[69] = readings[70] = None  # training ends after row 69
    path = write(tmp_path / "g.csv", ["time", "a"], stamps(100), readings)
    p = population(path, window=4, gaps="interpolate", scale="none")
    assert p.cohort(np.array([0])).client(0).targets.max() == 67
    assert p.validation is not None
    assert p.validation.features.min() == 71


def test_missing_rows_are_inserted_or_refused(tmp_path: Path) -> None:
    times = stamps(50)
    del times[20:23]
    path = write(tmp_path / "m.csv", ["time", "a"], times, range(0, 94, 2))
    with pytest.raises(DataError, match=r"m.csv, line 22, 2024-02-29 21:00:00: comes 4h after .* is 1h .*3 rows"):
        population(path, window=3)
    p = population(path, window=3, gaps="drop", validation_fraction=0.0, test_fraction=0.0)
    assert p.federation.record["rows_inserted"] == 3
    assert p.sizes[0] == (20 - 3) + (27 - 3)


@pytest.mark.parametrize("gaps", ["error", "drop"])
def test_frequency_is_checked(tmp_path: Path, gaps: str) -> None:
    path, _ = wide(tmp_path / "w.csv")
    assert population(path, frequency="1h", gaps=gaps).federation.record["frequency"] == "1h"
    with pytest.raises(
        DataError, match=r"frequency: .*w.csv, line 3, 2024-02-28 23:00:00: comes 1h .* frequency is 2h"
    ):
        population(path, frequency="2h", gaps=gaps)
    times = stamps(100)
    times[40] = times[40].replace(":00:00", ":00:07")
    write(path, ["time", "s0"], times, range(0, 200, 2))
    with pytest.raises(DataError, match=r"line 42, 2024-03-01 14:00:07: comes 3607s"):
        population(path, gaps=gaps)
    times[40] = times[39]
    write(path, ["time", "s0"], times, range(0, 200, 2))
    with pytest.raises(DataError, match=r"time: .*line 42, .*does not come after 2024-03-01 13:00:00"):
        population(path, gaps=gaps)


# Layouts and files


def readings(seed: int, rows: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=rows).round(4)


def test_files_are_clients_named_by_what_differs(tmp_path: Path) -> None:
    for k, name in enumerate(("Aotizhongxin", "Changping", "Cuihu")):
        write(tmp_path / f"air_{name}_2013.csv", ["time", "pm", "wind"], stamps(60), readings(k), readings(k + 9))
    p = population(tmp_path, layout="files", target="pm", features=("wind",), window=4, scale="none")
    assert [p.federation.client_name(k) for k in range(3)] == ["Aotizhongxin", "Changping", "Cuihu"]
    assert p.feature_shape == (4, 2)
    one = p.cohort(np.array([1])).client(0)
    np.testing.assert_array_equal(one.features[0].numpy(), np.stack((readings(1)[:4], readings(10)[:4]), axis=1))
    np.testing.assert_array_equal(one.targets[0].numpy(), readings(1)[4:5])
    only = population(tmp_path / "*C*.csv", layout="files", target="pm", window=4)
    assert only.num_clients == 2


def test_long_tables_may_be_interleaved_and_cut_into_files(tmp_path: Path) -> None:
    times = np.repeat(stamps(60), 2)
    ids = np.tile(["north", "east"], 60)
    values = np.stack((readings(0), readings(1)), axis=1).ravel()
    write(tmp_path / "1.csv", ["t", "id", "v"], times[:50], ids[:50], values[:50])
    write(tmp_path / "2.csv", ["t", "id", "v"], times[50:], ids[50:], values[50:])
    p = population(tmp_path, layout="long", id_column="id", target="v", window=4, scale="none")
    assert [p.federation.client_name(k) for k in range(2)] == ["east", "north"]
    x, _ = windows_of(readings(0), 0, 42, 4, 1)
    np.testing.assert_array_equal(p.cohort(np.array([1])).client(0).features.numpy(), x)
    values[61] = np.nan
    write(tmp_path / "2.csv", ["t", "id", "v"], times[50:], ids[50:], [None if np.isnan(v) else v for v in values[50:]])
    with pytest.raises(DataError, match=r"2.csv, line 13, 2024-03-01 04:00:00, column 'v'"):
        population(tmp_path, layout="long", id_column="id", target="v")


def test_wide_files_are_joined_in_time(tmp_path: Path) -> None:
    path, _ = wide(tmp_path / "w.csv")
    whole = population(path, window=4).cohort(np.arange(3))
    lines = path.read_text().splitlines()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "a.csv").write_text("\n".join(lines[:40]))
    (tmp_path / "cut" / "b.csv").write_text("\n".join([lines[0], *lines[40:]]))
    cut = population(tmp_path / "cut", window=4).cohort(np.arange(3))
    assert torch.equal(whole.features, cut.features)
    (tmp_path / "cut" / "b.csv").write_text("\n".join([lines[0].replace("s1", "s9"), *lines[40:]]))
    with pytest.raises(DataError, match=r"b.csv and .*a.csv differ in column 's1'"):
        population(tmp_path / "cut")


def test_wide_takes_columns_and_shared_features(tmp_path: Path) -> None:
    path, values = wide(tmp_path / "w.csv")
    p = population(path, columns=("s2",), features=("s0",), window=4, scale="none")
    assert p.num_clients == 1
    np.testing.assert_array_equal(p.cohort(np.array([0])).client(0).features[0].numpy(), values[:4, [2, 0]])


def _gzip(path: Path) -> Path:
    new = path.with_name("z.csv.gz")
    new.write_bytes(gzip.compress(path.read_bytes()))
    return new


def _xz(path: Path) -> Path:
    new = path.with_name("z.csv.xz")
    new.write_bytes(lzma.compress(path.read_bytes()))
    return new


def _parquet(path: Path) -> Path:
    new = path.with_name("z.parquet")
    rows = [line.split(",") for line in path.read_text().splitlines()]
    columns: dict[str, Any] = {n: np.array([float(r[k]) for r in rows[1:]]) for k, n in enumerate(rows[0]) if k}
    columns["time"] = np.array([r[0] for r in rows[1:]], dtype="M8[ms]")
    parquet.write_table(pa.table(columns), new)
    return new


@pytest.mark.parametrize("convert", [_gzip, _xz, _parquet])
def test_formats_give_the_same_population(tmp_path: Path, convert: Callable[[Path], Path]) -> None:
    path, _ = wide(tmp_path / "w.csv")
    a, b = (population(p, frequency="1h").cohort(np.arange(3)) for p in (path, convert(path)))
    assert torch.equal(a.features, b.features)
    assert torch.equal(a.targets, b.targets)


def test_file_of_many_sensors_is_read(tmp_path: Path) -> None:
    """Sensors by number in the header, an unnamed time column first, five-minute rows."""
    values = np.random.default_rng(0).normal(60, 8, (300, 207)).round(2)
    path = write(tmp_path / "t.csv", ["", *(str(700_000 + k) for k in range(207))], stamps(300, 5), *values.T)
    p = population(path, frequency="5min", horizon=3)
    assert (p.num_clients, p.federation.client_name(0), p.federation.client_name(206)) == (207, "700000", "700206")
    assert set(p.sizes) == {210 - 12 - 3 + 1}


DAY_PARTS = {"year": [2024] * 40, "month": [2] * 40, "day": [28] * 20 + [29] * 20, "hour": [*range(4, 24), *range(20)]}


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"": range(40), "time": stamps(40)}, {"frequency": "1h"}),
        ({"No": range(1, 41), **DAY_PARTS}, {"gaps": "drop", "frequency": "1h"}),
        ({"t": np.arange(40) * 300 + 1_700_000_000}, {"time": "t", "frequency": "5min"}),
        ({"Timestamp": np.arange(40) * 300 + 1_700_000_000}, {"frequency": "5min"}),
    ],
)
def test_times_and_row_counts_are_not_sensors(tmp_path: Path, columns: dict[str, Any], options: dict[str, Any]) -> None:
    columns = {**columns, "a": readings(0, 40), "b": readings(1, 40)}
    path = write(tmp_path / "x.csv", list(columns), *columns.values())
    p = population(path, window=3, **options)
    assert [p.federation.client_name(k) for k in range(p.num_clients)] == ["a", "b"]


def test_text_columns_are_skipped_and_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ["time", "a", "note"], stamps(40), readings(0, 40), ["ok"] * 40)
    p = population(path)
    assert p.num_clients == 1
    assert p.federation.record["columns_skipped"] == "note"


def test_table_without_times_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ["a", "b"], readings(0), readings(1))
    assert population(path).num_clients == 2
    with pytest.raises(DataError, match=r"time: .*no column of times to check frequency by"):
        population(path, frequency="1h")


# Mistakes


def test_wrong_paths_are_named(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(DataError, match=r"path: .*none.csv does not exist; .* holds readme.txt"):
        population(tmp_path / "sub" / "none.csv")
    with pytest.raises(DataError, match=r"path: the folder .* holds no file that ends in .csv"):
        population(tmp_path)
    with pytest.raises(DataError, match="path: no file matches"):
        population(tmp_path / "*.csv")
    with pytest.raises(DataError, match=r"readme.txt is not one of .csv"):
        population(tmp_path / "r*")
    (tmp_path / "readme.md").write_text("")
    with pytest.raises(DataError, match=r"readme.md is not one of .csv"):
        population(tmp_path / "readme.md")
    (tmp_path / "x.csv.xz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"x.csv.xz cannot be read"):
        population(tmp_path / "x.csv.xz")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=r"x.csv cannot be read .*Expected 2 columns, got 1"):
        population(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"x.csv holds no rows"):
        population(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"columns": ("s7",)}, r"columns: .*w.csv: 's7' is not a column. Nearest: 's[0-2]'"),
        ({"features": ("tmie",)}, "features: .*Nearest: 'time'"),
        ({"time": "when"}, "time: .*'when' is not a column"),
        ({"layout": "files", "target": "s9"}, "target: .*'s9' is not a column"),
        ({"layout": "long", "target": "s0", "id_column": "site"}, "id_column: .*'site' is not a column"),
        ({"window": 70}, "window: 70 steps and a horizon of 1 fit in no client's training part .*70 rows"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    path, _ = wide(tmp_path / "w.csv")
    with pytest.raises(DataError, match=says):
        population(path, **options)


def test_values_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    values: list[Any] = [1.5, 2.5] * 20
    values[7] = "broken"
    path = write(tmp_path / "x.csv", ["time", "a"], stamps(40), values)
    with pytest.raises(DataError, match=r"columns: .*x.csv, line 9, column 'a': 'broken' is not a number"):
        population(path)
    values[7] = "inf"
    write(path, ["time", "a"], stamps(40), values)
    with pytest.raises(DataError, match=r"x.csv, line 9, column 'a': inf is not finite"):
        population(path)


def test_values_that_are_not_times_are_named(tmp_path: Path) -> None:
    times: list[Any] = stamps(40)
    times[5] = "yesterday"
    path = write(tmp_path / "x.csv", ["time", "a"], times, readings(0, 40))
    with pytest.raises(DataError, match=r"time: .*x.csv, line 7, column 'time': 'yesterday' is not a time"):
        population(path)
    write(path, ["", "a"], times, readings(0, 40))
    with pytest.raises(DataError, match=r"time: .*x.csv, line 7, column '': 'yesterday' is not a time"):
        population(path)
    times[5] = None
    write(path, ["time", "a"], times, readings(0, 40))
    with pytest.raises(DataError, match=r"x.csv, line 7, column 'time': the time is missing"):
        population(path)
    days = [*range(1, 29), 30, 31, *range(1, 11)]
    write(path, ["year", "month", "day", "a"], [2023] * 40, [2] * 30 + [3] * 10, days, readings(0, 40))
    with pytest.raises(DataError, match=r"x.csv, line 30: year 2023, month 2, day 30 is not a time"):
        population(path)


def test_time_formats_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ["when", "a"], [f"{d:02}.03.2024 06:30" for d in range(1, 31)], readings(0, 30))
    assert population(path, time_format="%d.%m.%Y %H:%M", frequency="1d", window=3).num_clients == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": ""}, "path: must name"),
        ({"window": 0}, "window: must be at least 1"),
        ({"horizon": 0}, "horizon: must be at least 1"),
        ({"test_fraction": 1.0}, "test_fraction: must be at least 0 and below 1"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "must add up to less than 1"),
        ({"layout": "files"}, "target: must name the column"),
        ({"layout": "long", "target": "x"}, "id_column: must name a column"),
        ({"target": "x"}, "target: is for layouts 'long' and 'files'. Set layout = 'long' "),
        ({"id_column": "x"}, "id_column: is for layouts 'long' and 'files'. Set layout = 'long' "),
        ({"layout": "files", "target": "x", "features": ("y", "x")}, "features: must not name the target 'x': its"),
        ({"layout": "files", "target": "x", "columns": ("y",)}, "columns: is for layout = 'wide'"),
        ({"max_gap": 3}, "max_gap: must be at least 1, with gaps = 'interpolate'"),
        ({"frequency": "5 parsecs"}, "frequency: must be a number and one of"),
    ],
)
def test_wrong_table_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TableOptions(**{"path": "x.csv", **options})


def test_twelve_air_stations_are_read() -> None:
    path = shared_data("air_beijing")
    options = {"layout": "files", "target": "PM2.5", "features": ("TEMP", "WSPM"), "window": 24, "frequency": "1h"}
    some = path / "PRSA_Data_[DG]*.csv.xz"
    p = population(some, gaps="interpolate", max_gap=6, **options)
    assert [p.federation.client_name(k) for k in range(4)] == ["Dingling", "Dongsi", "Guanyuan", "Gucheng"]
    assert p.feature_shape == (24, 3)
    assert (p.sizes > 20_000).all()
    one = p.cohort(np.array([2])).client(0)
    assert one.features.isfinite().all()
    assert one.targets.mean().abs() < 0.01
    with pytest.raises(DataError, match=r"gaps: .*Dingling.*line \d+, 2013-.*, column 'PM2.5'"):
        population(some, **options)
    named = population(path / "*Dongsi*", gaps="drop", id_column="station", **options)
    assert named.federation.client_name(0) == "Dongsi"
