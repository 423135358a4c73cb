"""Forecasts against truth on the report: what the page draws, and runs that have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dashboards.report.report import write_report
from dashboards.report.run_data import read_run
from dashboards.report.run_text import reached
from dashboards.report.run_view import run_view, share_out
from dashboards.report.views.forecast_view import TOO_MANY
from server.record.records import RunFolder
from simulator.runs.run import resume, simulate
from simulator.scenario.sections import load_scenario
from tests.support.run_folders import assert_same_run

SMALL = (
    "world.days=14",
    "data.clients=6",
    "model.hidden=4",
    "algorithm.cohort=3",
    "engine.kind=plain",
    "engine.threads=1",
    "engine.workers=1",
    "run.rounds=3",
    "run.checkpoint_rounds=1",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("forecasts") / "run"
    simulate(load_scenario("city-traffic", sets=SMALL), out=out)
    return out


def test_run_of_forecasts_draws_three_clients_in_the_unit(run: Path) -> None:
    view = run_view(read_run(run))["forecasts"]
    assert (view["quantity"], view["unit"], view["step_hours"]) == ("speed, mph", "mph", 0.25)
    assert [one["rank"] for one in view["clients"]] == ["lowest", "median", "highest"]
    assert view["steps"] == ["15 min ahead", "30 min ahead", "45 min ahead", "1 h ahead"]
    for one in view["clients"]:
        assert one["words"].startswith(f"{one['name']}: forecasts made 15 min to 1 h ahead, in ")
        assert len(one["truth"]) == len(one["forecast"]) == len(one["persistence"]) == len(one["hours"])
        assert 0 < max(one["truth"]) < 91  # miles an hour, not deviations


def test_outcome_has_the_error_in_the_unit_beside_persistence(run: Path) -> None:
    outcome = RunFolder(run).read_outcome()
    assert outcome is not None
    found = outcome["forecast"]
    assert found["error"] == pytest.approx(outcome["test_error"], rel=1e-6)
    assert found["error_in_unit"] == pytest.approx(12.5 * found["error"])
    assert found["ratio"] == pytest.approx(found["error"] / found["persistence"]["error"])
    rows = dict(reached(outcome))
    assert " deviations = " in rows["test error"]
    assert " mph" in rows["test error"]
    assert f"the test error is {found['ratio']:.2f} times this" in rows["persistence"]


def test_ratio_to_persistence_is_stated_in_both_forms_where_they_differ() -> None:
    persistence = {"error": 1.2, "error_in_unit": 2.5}
    forecast = {"error": 1.8, "error_in_unit": 20.0, "unit": "ug/m3", "scaled_by": "client", "ratio": 8.0}
    rows = dict(reached({"test_error": 1.8, "forecast": forecast | {"persistence": persistence}}))
    says = "the test error is 8.00 times this in ug/m3 and 1.50 times in deviations)"
    assert rows["persistence"].endswith(says)
    same = forecast | {"error_in_unit": 3.75, "ratio": 1.5, "persistence": persistence}
    assert dict(reached({"test_error": 1.8, "forecast": same}))["persistence"].endswith("is 1.50 times this)")


def test_resumed_run_has_the_same_forecasts(run: Path, tmp_path: Path) -> None:
    count = iter(range(9))
    stopped = tmp_path / "stopped"
    simulate(load_scenario("city-traffic", sets=SMALL), out=stopped, stop_asked=lambda: next(count) == 0)
    assert RunFolder(stopped).read_forecasts() != RunFolder(run).read_forecasts()
    resume(stopped)
    assert_same_run(stopped, run)
    assert RunFolder(stopped).read_forecasts() == RunFolder(run).read_forecasts()


def test_run_of_an_older_version_has_a_report_without_forecasts(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(run)
    kept = folder.forecasts.read_bytes()
    try:
        folder.forecasts.unlink()
        view = run_view(read_run(run))
        assert view["forecasts"] is None
        assert not any("orecast" in note for note in view["notes"])
        folder.forecasts.write_bytes(kept[:100])
        view = run_view(read_run(run))
        assert view["forecasts"] is None
        assert "forecasts.json: is damaged: it is not a JSON object." in view["notes"]
        assert write_report([run], tmp_path / "page.html").is_file()
    finally:
        folder.forecasts.write_bytes(kept)


def test_page_of_many_runs_leaves_forecasts_out_and_says_so(run: Path) -> None:
    view = run_view(read_run(run), share_out(20))
    assert view["forecasts"]["clients"] == []
    assert TOO_MANY in view["notes"]


def test_reason_for_no_drawing_is_among_the_notes(run: Path) -> None:
    folder = RunFolder(run)
    kept = folder.forecasts.read_text()
    found = json.loads(kept)
    del found["clients"], found["lead"]
    try:
        folder.write_forecasts(found | {"left_out": "Windows have no order."})
        view = run_view(read_run(run))
        assert view["forecasts"]["clients"] == []
        assert len(view["forecasts"]["by_step"]) == 4
        assert "Windows have no order." in view["notes"]
    finally:
        folder.forecasts.write_text(kept)


def test_rows_of_a_forecast_without_unit_or_scaling() -> None:
    errors = {"error": 0.5, "error_in_unit": 6.0, "persistence": {"not_measured": "windows drifted"}}
    rows = dict(reached({"test_error": 0.5, "forecast": errors | {"unit": "", "scaled_by": "client"}}))
    assert rows["test error"] == "0.5 deviations = 6 in the unit of the readings"
    assert rows["persistence"] == "not measured: windows drifted"
    rows = dict(reached({"test_error": 6.0, "forecast": errors | {"unit": "kW", "scaled_by": "none"}}))
    assert rows["test error"] == "6 kW"
