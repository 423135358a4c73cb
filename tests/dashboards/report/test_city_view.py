"""Faults, drifts and districts of a report: their numbers equal the record's; without them there are no sections."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.report.report import report_page
from dashboards.report.run_data import read_run
from dashboards.report.run_view import run_view, share_out
from dashboards.report.views.city_view import MOST_DISTRICTS, MOST_MARKS, city_view, event_rows
from tests.support.made_records import CITY_EVENTS, city_of, line_of, make_record

CLIENTS = np.arange(30)
LINES = [line_of(r, CLIENTS) | city_of(r) for r in range(41)]


def view_of(path: Path, **how: Any) -> dict[str, Any]:
    return run_view(read_run(make_record(path / "run", **how).path))


def values(grid: dict[str, Any], metric: str) -> np.ndarray:
    """Decode the bytes as the page does: nan for cells without a client, infinity for numbers that are not finite."""
    picture = grid["metrics"][metric]
    code = np.frombuffer(base64.b64decode(picture["cells"]), np.uint8).astype(float)
    part, low, high = (code - 1) / 253, picture["low"], picture["high"]
    found = low * (high / low) ** part if picture["log"] else low + part * (high - low)
    drawn = np.where(code == 0, np.nan, np.where(code == 255, np.inf, found))
    return np.asarray(drawn.reshape(grid["rows"], grid["columns"]))


def test_record_without_a_city_has_no_city_section(tmp_path: Path) -> None:
    view = view_of(tmp_path)
    assert "city" not in view
    assert not [key for table in view["series"] for key in table["columns"] if key.startswith(("faults", "concept"))]
    assert city_view([line_of(r, CLIENTS) for r in range(5)], CITY_EVENTS, 1000) is None


def test_series_have_the_records_values(tmp_path: Path) -> None:
    view = view_of(tmp_path, city=True)
    assert view["city"]["faults"] == ["stuck", "noise.db"]
    assert view["city"]["drifts"] == ["seasons"]
    for key, of in (
        ("faults.noise.db.changed", lambda line: line["faults"]["noise.db"]["changed"]),
        ("faults.stuck.changed", lambda line: line["faults"]["stuck"]["changed"]),
        ("concept_drift.seasons.level", lambda line: line["concept_drift"]["seasons"]["level"]),
    ):
        table = next(t for t in view["series"] if key in t["columns"])
        assert table["axes"]["round"] == list(range(1, 41))
        assert table["columns"][key] == pytest.approx([of(line) for line in LINES[1:]], rel=1e-5)


def test_districts_have_the_records_values() -> None:
    city = city_view(LINES, CITY_EVENTS, 10_000)
    assert city is not None
    grid = city["districts"]
    assert grid["names"][:3] == ["district 0", "district 1", "district 2"]
    assert (grid["rows"], grid["columns"], grid["rounds"]) == (4, 40, 40)
    for metric in ("client_drift", "changed", "clients", "train_loss"):
        expected = np.full((4, 40), np.nan)
        for line in LINES[1:]:
            for name, parts in line["districts"].items():
                value = parts.get(metric, np.nan)
                expected[grid["names"].index(name), line["round"] - 1] = value if np.isfinite(value) else np.inf
        drawn, picture = values(grid, metric), grid["metrics"][metric]
        assert np.array_equal(np.isnan(drawn), np.isnan(expected)), metric
        assert np.array_equal(np.isinf(drawn), np.isinf(expected)), metric
        known = np.isfinite(expected)
        step = (picture["high"] / picture["low"]) ** (1 / 253) - 1 if picture["log"] else 0.0
        near = (picture["high"] - picture["low"]) / 253
        assert np.allclose(drawn[known], expected[known], rtol=step, atol=0.0 if picture["log"] else near), metric
    assert np.isnan(values(grid, "clients")).any()
    assert np.isinf(values(grid, "train_loss")).any()
    assert (grid["metrics"]["changed"]["low"], grid["metrics"]["changed"]["high"]) == (0.0, 1.0)


def test_cell_of_many_rounds_shows_their_mean() -> None:
    city = city_view(LINES, (), 40)
    assert city is not None
    grid = city["districts"]
    assert (grid["rows"], grid["columns"]) == (4, 10)
    known = [
        line["districts"]["district 3"]["client_drift"] for line in LINES[5:9] if "district 3" in line["districts"]
    ]
    picture = grid["metrics"]["client_drift"]
    assert values(grid, "client_drift")[3, 1] == pytest.approx(np.mean(known), rel=0.03 if picture["log"] else 0.1)


def test_events_become_marks_and_rows() -> None:
    ended = {"round": 12, "kind": "fault_ended", "name": "early", "message": ""}
    again = {**CITY_EVENTS[3], "round": 30}
    failed = [{"round": r, "kind": "clients_failed", "message": f"{r} failed"} for r in (3, 8)]
    events = (*CITY_EVENTS, ended, again, *failed)
    city, rows = city_view(LINES, events, 0), event_rows(events)
    assert city is not None
    assert city["marks"] == [[5, "+ stuck"], [11, "+ seasons"], [12, "+ noise.db, − early"], [20, "− stuck"]]
    assert ["power cut", "Old Town", "14 to 30", "2", "power cut <i>in Old Town</i>"] in rows
    assert ["fault started", "stuck", "5", "1", "fault stuck began: 8 clients"] in rows
    assert [row for row in rows if "clients failed" in row] == [["clients failed", "", "3 to 8", "2", "3 failed"]]
    assert len({(kind, name) for kind, name, *_ in rows}) == len(rows)  # no event is in the table twice
    assert city["districts"] is None  # the budget has no room for images


def test_rows_beyond_the_limits_are_left_out_and_counted(tmp_path: Path) -> None:
    many = {f"d{i}": {"clients": 1, "client_drift": float(i)} for i in range(100)}
    faults = {f"f{i}": {"changed": 0.1, "clients": 1, "effect": 1.0} for i in range(20)}
    lines = [{"round": r, "districts": many, "faults": faults} for r in range(1, 4)]
    events = [{"round": r, "kind": "fault_started", "name": f"f{r}", "message": ""} for r in range(50)]
    city = city_view(lines, events, 120_000)
    assert city is not None
    assert len(city["districts"]["names"]) == MOST_DISTRICTS
    assert len(city["marks"]) == MOST_MARKS
    assert "This run has 20 faults; 16 are shown." in city["left_out"]
    assert "This run has 100 districts; 64 are shown." in city["left_out"]
    assert not (city_view(LINES, CITY_EVENTS, 1000) or {})["left_out"]


def test_page_of_a_large_city_is_escaped_and_small(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", city=True)
    page = report_page([read_run(folder.path)])
    assert "power cut \\u003ci>in Old Town" in page
    assert page.count("</script>") == page.count("<script")
    without = report_page([read_run(make_record(tmp_path / "plain").path)])
    assert len(page) - len(without) < 20_000
    assert "city" not in json.dumps(run_view(read_run(tmp_path / "plain"), share_out(2)))  # one of two runs has none
