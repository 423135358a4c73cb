"""Raw series of a few clients on the data page: readings in their unit, gaps, and the parts of the time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from clients.core.population_parts import RawSeries
from clients.heterogeneity.table import measure_clients
from dashboards.data_page.figure import data_figure
from dashboards.data_page.series_view import MOST_SERIES, one_series, series_view
from dashboards.data_page.view import data_view
from simulator.runs.describing import population


def raw(values: list[float], **changes: object) -> RawSeries:
    count = len(values)
    facts = {"filled": np.zeros(count, bool), "ends": (count - 2, count - 1, count)} | changes
    return RawSeries("load", "kW", np.array(values), **facts)  # type: ignore[arg-type]


def test_short_series_keeps_every_reading_and_every_gap() -> None:
    found = one_series(raw([1.0, np.nan, 3.0, 4.0], filled=np.array([False, False, True, False])), "home 4")
    assert found["low"] == found["high"] == [1.0, None, 3.0, 4.0]
    assert found["missing"] == [0.0, 1.0, 0.0, 0.0]
    assert found["filled"] == [0.0, 0.0, 1.0, 0.0]
    assert found["x"] == [0.0, 1.0, 2.0, 3.0]
    assert found["ends"] == [2.0, 3.0]
    assert found["words"] == "home 4: 4 readings, 1 missing (25%), 1 filled"
    assert found["quantity"] == "load, kW"


def test_long_series_keeps_the_extremes_and_shares_of_each_stretch() -> None:
    values = [0.0, 5.0, np.nan, 1.0, np.nan, np.nan, 2.0]
    hours = np.arange(7) * 0.5
    found = one_series(raw(values, hours=hours), "home 4", buckets=4)
    assert found["stretch"] == 2
    assert found["low"] == [0.0, 1.0, None, 2.0]
    assert found["high"] == [5.0, 1.0, None, 2.0]
    assert found["missing"] == [0.0, 0.5, 1.0, 0.0]
    assert found["x"] == [0.0, 1.0, 2.0, 3.0]
    assert found["clocked"]


def test_faults_are_in_the_training_part_of_the_series() -> None:
    sets = ["world.days=14", "data.clients=9"]
    clean = population("city-traffic", sets=sets)
    faulty = population("city-traffic", sets=[*sets, "faults.s={kind='stuck_at', severity=1.0}"])
    assert clean.clients.series is not None
    assert faulty.clients.series is not None
    one, other = clean.clients.series(3), faulty.clients.series(3)
    end = one.ends[0]
    mask = faulty.masks(np.array([3]))["s"][0][:, 0]
    np.testing.assert_array_equal(one.values[:end] != other.values[:end], mask)
    np.testing.assert_array_equal(one.values[end:], other.values[end:])
    assert mask.any()
    found = series_view(faulty, np.arange(9))
    assert found is not None
    assert [one["name"] for one in found["clients"]] == [clean.federation.client_name(k) for k in (0, 3, 5, 8)]
    assert len(found["clients"]) == MOST_SERIES


def test_faults_in_recorded_series_are_in_their_unit(tmp_path: Path) -> None:
    rows = "".join(f"{t % 7},{t % 5}\n" for t in range(100))
    (tmp_path / "two.csv").write_text("a,b\n" + rows)
    sets = [
        "data={kind='table', path='%s', unit='kW'}" % (tmp_path / "two.csv"),
        "faults.s={kind='stuck_at', severity=1.0}",
        "partition=",
    ]
    found = population("digits-iid", sets=sets)
    assert found.clients.series is not None
    series = found.clients.series(1)
    mask = np.append(found.masks(np.array([1]))["s"][0][:, 0], np.zeros(30, bool))
    recorded = np.arange(100) % 5
    assert series.values[~mask] == pytest.approx(recorded[~mask], abs=1e-5)
    assert (np.abs(series.values[mask] - recorded[mask]) > 0.5).any()
    assert series.unit == "kW"


def test_data_without_series_have_none() -> None:
    assert series_view(population("digits-iid"), np.arange(3)) is None


@pytest.mark.parametrize("gap", ["", "1"])
def test_panels_of_a_table_fill_the_picture(gap: str, tmp_path: Path) -> None:
    rows = "".join(f"2024-03-{1 + t // 24:02d} {t % 24:02d}:00,{t % 7},{t % 5 if t != 9 else gap}\n" for t in range(60))
    (tmp_path / "two.csv").write_text("time,a,b\n" + rows)
    sets = [f"data={{kind='table', path='{tmp_path / 'two.csv'}', gaps='drop', window=3}}", "partition="]
    found = population("digits-iid", sets=sets)
    measures, held = measure_clients(found, seed=0)
    view = data_view(found, measures, held, "two", seed=0)
    inked = (imread(io.BytesIO(data_figure(view)))[..., :3] < 0.7).any(axis=(0, 2))
    assert all(tenth.any() for tenth in np.array_split(inked, 10))
