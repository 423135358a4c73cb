"""METR-LA, air quality and household power in their published forms, whole and broken."""

from __future__ import annotations

import gzip
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from needs import H5PY, shared_data

from clients.core.arrays import F64
from clients.core.errors import DataError, UserError
from clients.core.population import Population
from clients.datasets.household_power import household_power_series
from clients.datasets.series_options import AirQualityOptions, HouseholdPowerOptions, MetrLaOptions
from clients.federation.data_kinds import build_population
from clients.partition.options import IidOptions, NaturalOptions


def population(options: Any) -> Population:
    return build_population(options, None, seed=0, dtype=torch.float64)


def one(p: Population, k: int) -> tuple[F64, F64]:
    data = p.cohort(np.array([k])).client(0)
    return data.features.numpy(), data.targets.numpy()


# METR-LA

ROWS = 120
START = np.datetime64("2012-03-01T00:00:00")
NAMES = ("773869", "767541", "767542")


def speeds() -> F64:
    return np.random.default_rng(0).uniform(20, 70, (ROWS, 3)).round(6)


def traffic_csv(path: Path, values: F64) -> Path:
    times = [str(START + np.timedelta64(5 * i, "m")).replace("T", " ") for i in range(len(values))]
    rows = [",".join((t, *map(str, v))) for t, v in zip(times, values.tolist(), strict=True)]
    path.write_text("\n".join([",".join(("", *NAMES)), *rows]) + "\n")
    return path


def traffic_h5(path: Path, values: F64, unit: str = "ns", group: str = "df", **change: Any) -> Path:
    """As pandas writes DataFrame.to_hdf(path, key=group) in its fixed format; `change` replaces data sets."""
    H5PY.require()
    h5py: Any = importlib.import_module("h5py")
    times = (START + np.arange(len(values)) * np.timedelta64(5, "m")).astype(f"M8[{unit}]").astype(np.int64)
    names = np.array([n.encode() for n in NAMES])
    parts = {"axis0": names, "axis1": times, "block0_items": names, "block0_values": values, **change}
    with h5py.File(path, "w") as archive:
        frame = archive.create_group(group)
        frame.attrs.update({"pandas_type": np.bytes_("frame"), "ndim": 2, "nblocks": 1})
        for name, part in parts.items():
            if part is not None:
                frame.create_dataset(name, data=part)
        if "axis1" in frame:
            kind = "datetime64" if unit == "ns" else f"datetime64[{unit}]"
            frame["axis1"].attrs["kind"] = np.bytes_(kind)
    return path


def test_hdf5_and_csv_give_the_same_population(tmp_path: Path) -> None:
    values = speeds()
    csv = population(MetrLaOptions(path=str(traffic_csv(tmp_path / "a.csv", values)), horizon=3))
    for i, given in enumerate(({}, {"unit": "us"}, {"group": "speed"})):
        h5 = population(MetrLaOptions(path=str(traffic_h5(tmp_path / f"{i}.h5", values, **given)), horizon=3))
        assert [h5.federation.client_name(k) for k in range(3)] == list(NAMES)
        assert (h5.feature_shape, h5.outputs, h5.sizes.tolist()) == ((12, 1), 3, [84 - 12 - 3 + 1] * 3)
        assert h5.federation.record["frequency"] == "5min"
        for k in range(3):
            np.testing.assert_array_equal(one(csv, k)[0], one(h5, k)[0])
            np.testing.assert_array_equal(one(csv, k)[1], one(h5, k)[1])


def test_frame_columns_may_differ_in_order_from_their_block(tmp_path: Path) -> None:
    values = speeds()
    back = np.array([n.encode() for n in reversed(NAMES)])
    plain = traffic_h5(tmp_path / "plain.h5", values)
    turned = traffic_h5(tmp_path / "turned.h5", values[:, ::-1], block0_items=back)
    a, b = (population(MetrLaOptions(path=str(p), scale="none")) for p in (plain, turned))
    np.testing.assert_array_equal(one(a, 0)[0], one(b, 0)[0])
    np.testing.assert_array_equal(one(b, 0)[0][0, :, 0], values[:12, 0])


def test_zeros_are_missing_in_metr_la(tmp_path: Path) -> None:
    values = speeds()
    values[10, 1] = 0.0  # a single one is filled on the line between its neighbours
    values[40:44, 1] = 0.0  # four in a row are more than max_gap = 3, so windows that touch them are dropped
    path = str(traffic_csv(tmp_path / "a.csv", values))
    read = population(MetrLaOptions(path=path, horizon=1, scale="none"))
    x, _ = one(read, 1)
    assert x[0, 10, 0] == pytest.approx((values[9, 1] + values[11, 1]) / 2)
    assert (x > 0).all()
    assert read.sizes.tolist() == [72, 72 - 16, 72]
    assert read.federation.record["values_interpolated"] == 1
    raw = population(MetrLaOptions(path=path, horizon=1, scale="none", zero_is_missing=False))
    assert one(raw, 1)[0][0, 10, 0] == 0.0
    assert raw.sizes.tolist() == [72] * 3
    none = population(MetrLaOptions(path=path, horizon=1, scale="none", max_gap=0))
    assert none.sizes.tolist() == [72, 72 - 16 - 11, 72]  # windows that start at 0 to 10 touch row 10


def test_chosen_sensors_are_kept(tmp_path: Path) -> None:
    path = str(traffic_csv(tmp_path / "a.csv", speeds()))
    p = population(MetrLaOptions(path=path, sensors=("767542",)))
    assert (p.num_clients, p.federation.client_name(0)) == (1, "767542")
    with pytest.raises(DataError, match=r"columns: .*'767543' is not a column"):
        population(MetrLaOptions(path=path, sensors=("767543",)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"block0_values": None}, r"holds no data frame in pandas' fixed format.*holds df, df/axis0"),
        (
            {"block0_values": np.zeros((7, 3))},
            r"block0_values has shape \(7, 3\), and there are 120 rows and 3 columns",
        ),
        ({"block0_values": np.full((ROWS, 3), b"x")}, r"columns 773869.* hold \|S1, not numbers"),
        ({"axis0": np.array([b"773869", b"999"])}, "no block holds the column '999'"),
    ],
)
def test_files_without_a_frame_are_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = traffic_h5(tmp_path / "a.h5", speeds(), **change)
    with pytest.raises(DataError, match=f"path: .*a.h5.*{says}"):
        population(MetrLaOptions(path=str(path)))


def test_broken_hdf5_is_named(tmp_path: Path) -> None:
    path = traffic_h5(tmp_path / "a.h5", speeds())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"path: .*a.h5 cannot be read .*Is the download complete\?"):
        population(MetrLaOptions(path=str(path)))
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"path: .*a.h5 cannot be read"):
        population(MetrLaOptions(path=str(path)))
    values = speeds()
    values[17, 2] = np.inf
    with pytest.raises(DataError, match=r"b.h5, row 18, column '767542': inf is not finite"):
        population(MetrLaOptions(path=str(traffic_h5(tmp_path / "b.h5", values))))


def test_missing_h5py_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = traffic_h5(tmp_path / "a.h5", speeds())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"a.h5 needs the package h5py.*pip install 'fedscape\[hdf5\]'"):
        population(MetrLaOptions(path=str(path)))


def test_broken_csv_is_named(tmp_path: Path) -> None:
    path = traffic_csv(tmp_path / "a.csv", speeds())
    lines = path.read_text().splitlines()

    def refuse(changed: list[str], says: str) -> None:
        path.write_text("\n".join(changed))
        with pytest.raises(DataError, match=f"a.csv{says}"):
            population(MetrLaOptions(path=str(path)))

    refuse([*lines[:-1], lines[-1][:30]], r" cannot be read .*line 121: Expected 4 columns, got 3")
    refuse([*lines[:50], lines[50] + ",1", *lines[51:]], r" cannot be read .*line 51: Expected 4 columns, got 5")
    refuse(
        [*lines[:50], lines[50].rsplit(",", 1)[0] + ",fast", *lines[51:]], ", line 51, column '767542': 'fast' is not"
    )
    refuse([*lines[:50], *lines[51:60], lines[50], *lines[60:]], ", line 60, .*does not come after")
    refuse(
        [*lines[:20], "", "", *lines[20:50], "1,2", *lines[51:]],
        r" cannot be read .*line 53: Expected 4 columns, got 2",
    )
    refuse([*lines[:20], "", *lines[20:50], lines[50] + "x", *lines[51:]], ", line 52, column '767542'")
    refuse([lines[0], ""], " holds no rows")
    refuse([], r" cannot be read \(Empty CSV file\)")
    off = lines[50].replace("04:05:00", "04:06:00")
    refuse([*lines[:50], off, *lines[51:]], ", line 51.*comes 6min after the row before, and the frequency is 5min")


# Air quality

HEADER = "No,year,month,day,hour,PM2.5,PM10,SO2,NO2,CO,O3,TEMP,PRES,DEWP,RAIN,wd,WSPM,station"
STATIONS = ("Changping", "Dongsi")


def stations(folder: Path, rows: int = 200) -> dict[str, F64]:
    """Two files as published; the readings of PM2.5 to O3, the weather and WSPM, (rows, 11)."""
    folder.mkdir()
    written = {}
    for k, name in enumerate(STATIONS):
        values = np.random.default_rng(k).uniform(1, 99, (rows, 11)).round(1)
        times = (np.datetime64("2013-03-01T00") + np.arange(rows)).astype(object)
        lines = [HEADER]
        for i, (t, v) in enumerate(zip(times, values.tolist(), strict=True)):
            numbers = ["NA" if x != x else str(x) for x in v]
            row = [i + 1, t.year, t.month, t.day, t.hour, *numbers[:10], "NNW", numbers[10], name]
            lines.append(",".join(map(str, row)))
        (folder / f"PRSA_Data_{name}_20130301-20170228.csv").write_text("\n".join(lines) + "\n")
        written[name] = values
    return written


def test_air_quality_takes_the_target_and_the_weather(tmp_path: Path) -> None:
    values = stations(tmp_path / "air")
    p = population(AirQualityOptions(path=str(tmp_path / "air"), scale="none", window=6, horizon=2))
    assert [p.federation.client_name(k) for k in range(2)] == list(STATIONS)
    for k, name in enumerate(STATIONS):
        x, y = one(p, k)
        np.testing.assert_array_equal(x[3], values[name][3:9][:, [0, 6, 7, 8, 9, 10]])
        np.testing.assert_array_equal(y[3], values[name][9:11, 0])
    ozone = AirQualityOptions(path=str(tmp_path / "air"), scale="none", target="O3", features=("CO",), window=6)
    np.testing.assert_array_equal(one(population(ozone), 1)[0][0], values["Dongsi"][:6][:, [5, 4]])


def test_gaps_of_air_quality_are_filled_or_dropped(tmp_path: Path) -> None:
    stations(tmp_path / "air")
    file = tmp_path / "air" / f"PRSA_Data_{STATIONS[0]}_20130301-20170228.csv"
    lines = [line.split(",") for line in file.read_text().splitlines()]
    for row in (*range(20, 24), *range(60, 68)):
        lines[row + 1][5] = "NA"
    lines[100 + 1][11] = ""
    file.write_text("\n".join(map(",".join, lines)) + "\n")
    p = population(AirQualityOptions(path=str(tmp_path / "air"), window=6, scale="none"))
    full = 140 - 6
    assert p.sizes.tolist() == [
        full - (8 + 6),
        full,
    ]  # four and one are filled; windows at the eight are dropped
    assert p.federation.record["values_interpolated"] == 5
    x, _ = one(p, 0)
    a, b = float(lines[20][5]), float(lines[25][5])
    np.testing.assert_allclose(x[20, :4, 0], a + (b - a) * np.arange(1, 5) / 5)


def test_packed_stations_are_read_and_mistakes_are_named(tmp_path: Path) -> None:
    stations(tmp_path / "air")
    before = population(AirQualityOptions(path=str(tmp_path / "air")))
    files = sorted((tmp_path / "air").iterdir())
    whole = files[0].read_text()
    for file in files:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    after = population(AirQualityOptions(path=str(tmp_path / "air")))
    np.testing.assert_array_equal(one(before, 0)[0], one(after, 0)[0])
    packed = files[0].with_name(files[0].name + ".gz")
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"path: .*Changping.*gz cannot be read \(Compressed file ended"):
        population(AirQualityOptions(path=str(tmp_path / "air")))
    packed.unlink()

    def refuse(text: str, says: str) -> None:
        files[0].write_text(text)
        with pytest.raises(DataError, match=says):
            population(AirQualityOptions(path=str(tmp_path / "air")))

    refuse(whole.replace("WSPM", "WIND"), "features: .*Changping.*'WSPM' is not a column")
    refuse(whole.replace(",PM2.5,", ",PM25,"), "target: .*Changping.*'PM2.5' is not a column. Nearest: 'PM25'")
    refuse(whole.replace("station", "place"), "id_column: .*'station' is not a column")
    refuse(whole.replace("Changping", "Dongsi"), "several files are of 'Dongsi'")
    lines = whole.splitlines()
    refuse("\n".join([*lines[:-1], lines[-1][:25]]), "Changping.*line 201: Expected 18 columns, got")
    bad = lines[30].split(",")
    bad[5] = "12.x"
    refuse(
        "\n".join([*lines[:30], ",".join(bad), *lines[31:]]), "Changping.*line 31, column 'PM2.5': '12.x' is not a n"
    )


def test_twelve_stations_are_read() -> None:
    path = shared_data("air_beijing")
    p = population(AirQualityOptions(path=str(path / "PRSA_Data_[DG]*.csv.xz"), stride=24))
    assert [p.federation.client_name(k) for k in range(4)] == ["Dingling", "Dongsi", "Guanyuan", "Gucheng"]
    assert p.feature_shape == (24, 6)
    assert p.federation.record["windows_dropped"] > 0
    x, _ = one(p, 1)
    assert np.isfinite(x).all()
    assert np.abs(x.mean(axis=(0, 1))).max() < 0.05
    assert np.corrcoef(x[..., 2].ravel(), x[..., 1].ravel())[0, 1] < -0.7  # pressure is high when it is cold


def test_folder_with_letters_of_a_pattern_is_taken_as_it_is(tmp_path: Path) -> None:
    stations(tmp_path / "air [1]")
    p = population(AirQualityOptions(path=str(tmp_path / "air [1]")))
    assert p.num_clients == 2
    assert p.federation.notices[0].startswith("read as: 2 files in order of their names, from PRSA_")


# Household power

MINUTES = 60 * 24 * 40  # from 17 December on: a part of a month, then January


def household(path: Path, minutes: int = MINUTES) -> F64:
    """The file as published; its numbers (minutes, 7)."""
    values = np.random.default_rng(0).uniform(0.2, 5, (minutes, 7)).round(3)
    stamps = np.datetime64("2006-12-17T00:00") + np.arange(minutes)
    lines = ["Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
             "Sub_metering_1;Sub_metering_2;Sub_metering_3"]  # fmt: skip
    for t, row in zip(stamps.astype(object), values.tolist(), strict=True):
        lines.append(";".join((f"{t.day}/{t.month}/{t.year}", f"{t:%H:%M:%S}", *map(str, row))))
    path.write_text("\n".join(lines) + "\n")
    return values


@pytest.fixture(scope="module")
def power(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, F64]:
    path = tmp_path_factory.mktemp("power") / "household_power_consumption.txt"
    return path, household(path)


def test_months_are_clients_of_hourly_means(power: tuple[Path, F64]) -> None:
    path, values = power
    options = HouseholdPowerOptions(path=str(path), scale="none", window=3, features=("Voltage", "Sub_metering_1"))
    p = population(options)
    assert [p.federation.client_name(k) for k in range(2)] == ["2006-12", "2007-01"]
    hours = values.reshape(-1, 60, 7).mean(axis=1)
    january = hours[15 * 24 :]
    x, y = one(p, 1)
    np.testing.assert_allclose(x[5], np.stack((january[5:8, 0], january[5:8, 2], january[5:8, 4] * 60 / 1000), axis=1))
    np.testing.assert_allclose(y[5], january[8:9, 0])
    assert p.sizes.tolist() == [15 * 24 * 7 // 10 - 3, 25 * 24 * 7 // 10 - 3]
    np.testing.assert_array_equal(one(population(HouseholdPowerOptions(path=str(path.parent))), 0)[1].shape, (228, 1))


def test_meters_add_up_to_the_whole(power: tuple[Path, F64]) -> None:
    path, values = power
    meters = household_power_series(HouseholdPowerOptions(path=str(path), clients="meters"))
    assert [s.name for s in meters] == ["kitchen", "laundry", "water heater and air conditioner", "rest"]
    whole = values[:, 0].reshape(-1, 60).mean(axis=1)
    np.testing.assert_allclose(sum(s.values[:, 0] for s in meters), whole, atol=1e-12)
    np.testing.assert_allclose(meters[1].values[7, 0], values[420:480, 5].mean() * 0.06)


def test_hours_with_few_minutes_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "h.txt"
    values = household(path, 60 * 24 * 5)
    lines = path.read_text().splitlines()
    date = ";".join(lines[1].split(";")[:1])
    assert date == "17/12/2006"
    for minute in (*range(120, 149), *range(600, 631)):  # 29 of an hour and 31 of another
        lines[minute + 1] = ";".join((*lines[minute + 1].split(";")[:2], *"??????", ""))
    del lines[1 + 1200 : 1 + 1260]  # and an hour that is missing entirely
    path.write_text("\n".join(lines) + "\n")
    (one_month,) = household_power_series(HouseholdPowerOptions(path=str(path)))
    hours = one_month.values[:, 0]
    assert np.flatnonzero(np.isnan(hours)).tolist() == [10, 20]
    assert hours[2] == pytest.approx(values[149:180, 0].mean())
    p = population(HouseholdPowerOptions(path=str(path), window=3, scale="none"))
    assert p.federation.record["values_interpolated"] == 2
    assert p.federation.notices == (
        "read as: 1 file, ';', utf-8, time from Date+Time (day first), minutes averaged to hours, every 1h, "
        "420 values missing, 2 values filled",
        "missing values: empty 60, '?' 360",
    )
    assert one(p, 0)[0][10, 0, 0] == pytest.approx((hours[9] + hours[11]) / 2)


def test_household_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "h.txt"
    household(path, 60 * 24)
    lines = path.read_text().splitlines()

    def refuse(changed: list[str], says: str) -> None:
        path.write_text("\n".join(changed))
        with pytest.raises(DataError, match=f"path: .*h.txt{says}"):
            population(HouseholdPowerOptions(path=str(path), window=2))

    refuse(
        [*lines[:9], lines[9].replace("17/12/2006", "12/17/2006"), *lines[10:]], ", line 10, .*'12/17/2006' and '00:08"
    )
    refuse([*lines[:9], lines[9].replace("00:08:00", "25:00:00"), *lines[10:]], ", line 10, columns 'Date' and 'Time'")
    refuse(
        [*lines[:9], *lines[20:30], *lines[9:]], ", line 20: 2006-12-17 00:08:00 does not come after 2006-12-17 00:28"
    )
    words = lines[9].split(";")
    refuse(
        [*lines[:9], ";".join((*words[:3], "much", *words[4:])), *lines[10:]],
        ", line 10, column 'Global_reactive_p.*much",
    )
    refuse([*lines[:-1], lines[-1][:24]], " cannot be read .*line 1441: Expected 9 columns, got 3")
    refuse([line.rsplit(";", 1)[0] for line in lines], ": 'Sub_metering_3' is not a column. Nearest: 'Sub_metering_")
    refuse([line.replace(";", ",") for line in lines], ": 'Date' is not a column")
    refuse([], r" cannot be read \(Empty CSV file\)")


# All


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (MetrLaOptions(), ("metr-la.h5", "https://github.com/liyaguang/DCRNN")),
        (AirQualityOptions(path="~/nowhere/*.csv"), ("https://archive.ics.uci.edu/dataset/501", "CC BY 4.0")),
        (HouseholdPowerOptions(), ("https://archive.ics.uci.edu/dataset/235", "CC BY 4.0")),
    ],
)
def test_missing_series_file_names_its_source(
    options: Any, says: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError) as error:
        population(options)
    assert error.value.field == "path"
    where = str(Path(options.path).expanduser().absolute())
    for text in (*says, "licence", "not downloaded for you", f"Put it at {where}"):
        assert text in str(error.value)


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder .* holds no file that ends in"):
        population(MetrLaOptions(path=str(tmp_path)))
    with pytest.raises(DataError, match=r"path: .*household_power_consumption.txt does not exist"):
        population(HouseholdPowerOptions(path=str(tmp_path)))
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(DataError, match=r"the folder .* holds no file that ends in"):
        population(AirQualityOptions(path=str(tmp_path / "x.csv")))


def test_series_have_natural_clients_and_refuse_other_partitions(tmp_path: Path) -> None:
    options = MetrLaOptions(path=str(traffic_csv(tmp_path / "a.csv", speeds())))
    assert build_population(options, NaturalOptions(), seed=0).num_clients == 3
    with pytest.raises(UserError, match="bring their own clients"):
        build_population(options, IidOptions(clients=2), seed=0)


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (MetrLaOptions, {"window": 0}, "window: must be at least 1"),
        (MetrLaOptions, {"max_gap": -1}, "max_gap: must be at least"),
        (AirQualityOptions, {"target": ""}, "target: must name the column"),
        (AirQualityOptions, {"target": "TEMP"}, "features: must not name the target, 'TEMP'"),
        (HouseholdPowerOptions, {"features": ("Volt",)}, r"features: must be of Global_reactive_power.*\['Volt'\]"),
        (HouseholdPowerOptions, {"features": ("Voltage",), "clients": "meters"}, "features: is for clients = 'months'"),
        (HouseholdPowerOptions, {"minutes": 61}, "minutes: must be from 1 to 60"),
    ],
)
def test_wrong_series_options_are_refused(make: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make(**options)
