"""The report: its numbers equal the record's, it names what it leaves out, and every record has a report."""

import base64
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.core.errors import RunFolderError, UserError
from clients.core.population import Population
from dashboards.report import client_grid as grids
from dashboards.report import condition_text, round_series, run_text
from dashboards.report.client_grid import client_grid
from dashboards.report.pages import DRAWING, asset
from dashboards.report.report import report_page, write_report
from dashboards.report.run_data import read_run
from dashboards.report.run_view import Budget, run_view, share_out
from server.record.checked.line_files import read_rounds
from server.record.client_table import ClientTable
from server.record.jsonlines import RoundWriter
from simulator.runs.run import simulate
from tests.support.made_records import TITLE, line_of, make_record

CLIENTS = np.arange(30)
LINES = [line_of(r, CLIENTS) for r in range(41)]


def data_of(page: str) -> dict[str, Any]:
    """Return the data for the page's scripts."""
    found: dict[str, Any] = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]  # type: ignore[index]
    )
    return found


def column(view: dict[str, Any], name: str) -> tuple[list[int], list[Any]]:
    """Return the rounds and the values of a series."""
    table = next(t for t in view["series"] if name in t["columns"])
    return table["axes"]["round"], table["columns"][name]


def codes(grid: dict[str, Any], metric: str) -> np.ndarray:
    raw = np.frombuffer(base64.b64decode(grid["metrics"][metric]["cells"]), np.uint8)
    return raw.reshape(grid["rows"], grid["columns"])


def values(grid: dict[str, Any], metric: str) -> np.ndarray:
    """Decode the bytes as the page does: nan for cells without a client."""
    picture, code = grid["metrics"][metric], codes(grid, metric).astype(float)
    part = (code - 1) / 253
    low, high = picture["low"], picture["high"]
    found = low * (high / low) ** part if picture["log"] else low + part * (high - low)
    return np.where(code == 0, np.nan, np.where(code == 255, np.inf, found))


# The series


def test_series_have_the_values_of_the_record(tmp_path: Path) -> None:
    view = run_view(read_run(make_record(tmp_path / "run").path))
    for name in ("train_loss", "client_drift.p95", "cosine.p05", "by_layer.2.weight.update_dispersion",
                 "rate.low", "federated_accuracy", "client_spread.score.p25", "criteria.plateau.distance"):  # fmt: skip
        path = next(p for p in round_series.paths_of(LINES) if ".".join(p) == name)
        measured = {line["round"]: round_series.at(line, path) for line in LINES}
        expected = {r: v for r, v in measured.items() if v is not None}
        rounds, drawn = column(view, name)
        assert rounds == list(expected), name
        assert drawn == pytest.approx(list(expected.values()), rel=1e-5), name


@pytest.mark.parametrize("name", ["validation_loss", "client_drift.p75", "cosine.p50"])
def test_one_changed_value_changes_one_drawn_value(name: str) -> None:
    changed = [json.loads(json.dumps(line)) for line in LINES]
    holder = changed[17]
    *outer, last = name.split(".")
    for key in outer:
        holder = holder[key]
    holder[last] *= 1.001

    def drawn(lines: list[dict[str, Any]]) -> dict[tuple[str, int], Any]:
        found = round_series.tables(lines, round_series.paths_of(lines), 500)
        return {
            (key, r): v
            for t in found
            for key, column in t["columns"].items()
            for r, v in zip(t["axes"]["round"], column, strict=True)
        }

    before, after = drawn(LINES), drawn(changed)
    assert {key for key in before if before[key] != after[key]} == {(name, 17)}


def test_axes_give_the_place_of_each_round() -> None:
    (sparse,) = [t for t in round_series.tables(LINES, [("rate", "factor")], 100) if "rate.factor" in t["columns"]]
    assert sparse["axes"]["round"] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert sparse["axes"]["bytes"][1] == 384800
    assert sparse["axes"]["simulated"][1] == 5.0
    assert sparse["axes"]["wall"][1] == pytest.approx(0.1)  # ten rounds of 0.01 s


def test_thinning_keeps_every_spike_the_ends_and_the_limit() -> None:
    lines = [{"round": r, "validation_loss": 1.0 / (1 + r), "train_loss": 1.0 + 0.001 * r} for r in range(20_000)]
    lines[7_777]["validation_loss"], lines[12_345]["train_loss"] = 50.0, -3.0
    (table,) = round_series.tables(lines, [("validation_loss",), ("train_loss",)], 600)
    rounds = table["axes"]["round"]
    assert table["of"] == 20_000
    assert 200 <= len(rounds) <= 600
    assert rounds[0] == 0
    assert rounds[-1] == 19_999
    assert 50.0 in table["columns"]["validation_loss"]
    assert -3.0 in table["columns"]["train_loss"]
    assert rounds == sorted(set(rounds))


def test_numbers_that_are_not_finite_are_gaps_and_notes(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", rounds=9, ended=False)
    writer = RoundWriter(folder.rounds)
    for r, loss in ((10, math.nan), (11, math.inf), (12, 7.0)):
        writer.append(line_of(r, CLIENTS) | {"train_loss": loss})
    writer.close()
    view = run_view(read_run(folder.path))
    rounds, drawn = column(view, "train_loss")
    assert rounds[-3:] == [10, 11, 12]
    assert drawn[-3:] == [None, None, 7.0]
    assert (
        "The training loss was not a finite number in 2 rounds between 10 and 11; its curve has a gap there."
        in view["notes"]
    )


def test_criteria_become_spans_of_states(tmp_path: Path) -> None:
    view = run_view(read_run(make_record(tmp_path / "run").path))
    target = next(c for c in view["criteria"] if c["name"] == "target")
    assert target["spans"] == [[0, 17, "waiting"], [18, 19, "counting"], [20, 40, "holds"]]
    never = {"round": 41, "criteria": {"target": {"distance": math.inf, "held": 0, "holds": False}}}
    assert round_series.criterion_spans([never], "target") == [[41, 41, "unmeasured"]]


# The client grid


def test_cell_holds_the_value_of_one_client_in_one_round(tmp_path: Path) -> None:
    grid = client_grid(make_record(tmp_path / "run").clients, 30)
    assert grid is not None
    assert (grid["rows"], grid["columns"], grid["rounds"]) == (30, 40, 40)
    drift = (1.0 + CLIENTS[:, None] % 7) / (10.0 + np.arange(1, 41))
    step = (drift.max() / drift.min()) ** (1 / 253)
    assert grid["metrics"]["client_drift"]["log"]
    np.testing.assert_allclose(values(grid, "client_drift"), drift, rtol=step - 1)
    cosine = np.cos(CLIENTS[:, None] + np.arange(1, 41) / 9.0)
    np.testing.assert_allclose(values(grid, "cosine"), cosine, atol=1.01 / 253)


def test_cells_shared_by_several_clients_hold_means(tmp_path: Path) -> None:
    grid = client_grid(make_record(tmp_path / "run", clients=60).clients, 60, cells=150)
    assert grid is not None
    assert (grid["rows"], grid["columns"]) == (12, 12)
    clients, rounds = np.arange(60), np.arange(1, 41)
    drift = (1.0 + clients[:, None] % 7) / (10.0 + rounds)
    r, c = clients * 12 // 60, (rounds - 1) * 12 // 40
    means = np.array([[drift[np.ix_(r == i, c == j)].mean() for j in range(12)] for i in range(12)])
    picture = grid["metrics"]["client_drift"]
    step = (picture["high"] - picture["low"]) / 253 if not picture["log"] else means.max() * 0.02
    np.testing.assert_allclose(values(grid, "client_drift"), means, atol=step)


def test_grid_marks_absent_clients_and_numbers_that_are_not_finite(tmp_path: Path) -> None:
    table = ClientTable(tmp_path)
    table.add(1, {"client": np.array([0, 2]), "client_drift": np.array([0.5, np.inf]), "cosine": np.array([-1.0, 1.0])})
    table.add(2, {"client": np.array([1]), "client_drift": np.array([0.25])})
    table.flush()
    grid = client_grid(tmp_path, 4)
    assert grid is not None
    drift, cosine = codes(grid, "client_drift"), codes(grid, "cosine")
    assert drift.tolist() == [[254, 0], [0, 1], [grids.NOT_FINITE, 0], [0, 0]]
    assert cosine.tolist() == [[1, 0], [0, 0], [254, 0], [0, 0]]  # from -1 to 1, whatever was measured
    assert set(grid["metrics"]) == {"client_drift", "cosine"}


def test_damaged_part_removes_only_its_rounds(tmp_path: Path) -> None:
    table = ClientTable(tmp_path)
    for r in (1, 2, 3):
        table.add(r, {"client": np.array([0]), "client_drift": np.array([float(r)])})
        table.flush()
    (tmp_path / "part-00000002-00000002.parquet").write_bytes(b"PAR1 no longer")
    grid = client_grid(tmp_path, 1)
    assert grid is not None
    assert (codes(grid, "client_drift") > 0).tolist() == [[True, False, True]]
    assert client_grid(tmp_path / "none", 1) is None
    assert client_grid(tmp_path, 0) is None


# Missing pieces


def test_killed_run_is_reported_without_an_outcome(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", ended=False)
    with folder.rounds.open("a") as file:
        file.write('{"round": 41, "validation')
    view = run_view(read_run(folder.path))
    assert view["state"] == "unfinished"
    assert view["verdict"].startswith("Unfinished at round 40: no outcome is recorded")
    assert ["round", "40 of 100 at most", ""] in view["reached"]
    assert view["target"] == {"metric": "validation_accuracy", "value": 0.9}
    assert "The last line of the record is incomplete and left out." in view["notes"]


@pytest.mark.parametrize(
    ("outcome", "verdict", "reasons"),
    [
        ({"outcome": "converged", "round": 9, "words": "converged at round 9: it held", "reason": "it held"},
         "Converged at round 9", ["it held"]),
        ({"outcome": "stopped", "words": "stopped at round 9: enough"}, "stopped at round 9: enough", []),
        ({}, "Ended at round ?", []),
    ],
)  # fmt: skip
def test_outcomes_of_earlier_versions_have_a_headline(
    outcome: dict[str, Any], verdict: str, reasons: list[str], tmp_path: Path
) -> None:
    folder = make_record(tmp_path / "run", rounds=9, ended=False)
    folder.write_outcome(outcome)
    view = run_view(read_run(folder.path))
    assert (view["verdict"], view["reasons"]) == (verdict, reasons)


@pytest.mark.parametrize("missing", ["clients", "environment.json", "outcome.json", "events.jsonl", "partition.json"])
def test_report_is_made_if_one_piece_is_missing(
    missing: str, tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    folder = make_record(tmp_path / "run", partition=population_of([5] * 30))
    piece = folder.path / missing
    shutil.rmtree(piece) if piece.is_dir() else piece.unlink()
    view = data_of(report_page([read_run(folder.path)]))["runs"][0]
    assert column(view, "validation_loss")[0] == list(range(41))
    assert (view["grid"] is None) == (missing in ("clients",))
    assert ("sizes" in view["partition"]) == (missing != "partition.json")


@pytest.mark.parametrize(
    "damaged", ["environment.json", "outcome.json", "events.jsonl", "partition.json", "scenario.toml"]
)
def test_damaged_pieces_are_left_out_and_named(damaged: str, tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run")
    (folder.path / damaged).write_bytes(b'{"half\n= \xff\n[]\n')
    view = run_view(read_run(folder.path))
    assert column(view, "validation_loss")[0] == list(range(41))
    assert any(note.startswith(damaged) for note in view["notes"])


@pytest.mark.parametrize("rounds", [0, 1])
def test_run_of_zero_or_one_round_has_a_report(rounds: int, tmp_path: Path) -> None:
    view = data_of(write_report([make_record(tmp_path / "run", rounds=rounds).path]).read_text("utf-8"))["runs"][0]
    assert column(view, "validation_loss")[0] == list(range(rounds + 1))
    assert view["round"] == rounds
    empty = make_record(tmp_path / "empty", rounds=0, ended=False)
    empty.rounds.write_bytes(b"")
    assert run_view(read_run(empty.path))["series"] == []


def test_partition_is_drawn_from_what_the_run_recorded(
    tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    population = population_of([3, 9, 6])
    view = run_view(read_run(make_record(tmp_path / "run", clients=3, partition=population).path))
    assert view["partition"]["sizes"] == [3, 9, 6]
    assert np.sum(view["partition"]["label_counts"], axis=1).tolist() == [3, 9, 6]
    assert view["partition"]["measures"]["label_emd"] == 1.25


def test_norm_of_each_layer_is_drawn_from_the_record(tmp_path: Path) -> None:
    view = run_view(read_run(make_record(tmp_path / "run").path))
    for name, norm in (("0.weight", 0.2), ("2.weight", 0.4)):
        rounds, values = column(view, f"by_layer.{name}.aggregate_norm")
        assert rounds == list(range(1, 41))
        assert values == pytest.approx([norm / r for r in rounds], rel=1e-5)


def test_view_has_the_notices_and_the_names_of_the_record(
    tmp_path: Path, population_of: Callable[..., Population]
) -> None:
    population = population_of([3, 9, 6])
    facts = replace(population.federation, client_name=("Dongsi", "Shunyi", "Wanliu").__getitem__)
    folder = make_record(tmp_path / "run", clients=3, partition=replace(population, federation=facts))
    before = run_view(read_run(folder.path))
    environment = json.loads(folder.environment.read_text())
    del environment["checksum"]
    classes = ", ".join(f"class {k}" for k in range(population.outputs))
    environment["run"] |= {"notices": ["12 values were filled."], "data_facts": {"classes": classes}}
    folder.environment.write_text(json.dumps(environment))
    view = run_view(read_run(folder.path))
    assert (before["notices"], view["notices"]) == ([], ["12 values were filled."])
    assert view["header"] == before["header"]  # the page shows the notices once
    assert view["grid"]["known"] == {"0": "Dongsi", "1": "Shunyi", "2": "Wanliu"}
    assert view["partition"]["classes"] == classes.split(", ")
    assert "classes" not in before["partition"]


# The page


def test_text_of_a_record_is_escaped(tmp_path: Path) -> None:
    folder = make_record(
        tmp_path / "run <img src=x>", outcome={"words": "stopped at round 40: </script><b>", "hint": "<"}
    )
    page = write_report([folder.path]).read_text("utf-8")
    assert "</script><script>alert" not in page
    assert "<img src=x>" not in page
    assert page.count("</script>") == page.count("<script")
    view = data_of(page)["runs"][0]
    assert view["title"] == TITLE
    assert view["verdict"] == "stopped at round 40: </script><b>"
    assert "&lt;/script&gt;&lt;b&gt;" in page  # for readers without JavaScript


def test_page_loads_nothing(tmp_path: Path) -> None:
    page = write_report([make_record(tmp_path / "run").path]).read_text("utf-8")
    assert "default-src 'none'" in page
    assert "connect-src" not in page
    assert re.findall(r'(?:src|href)="(?!data:,)[^"]*"', page.replace(asset(DRAWING[0]), "")) == []
    assert "@import" not in page
    assert str(tmp_path) not in page  # no path of this machine


def test_view_says_what_happened_and_which_model_is_the_best(tmp_path: Path) -> None:
    view = run_view(read_run(make_record(tmp_path / "run", rounds=9).path))
    assert view["happened"] == "Validation loss falls."
    assert view["signs"] == [["outputs agree", "not measured", "no agreement was measured"]]
    rows = {name: (value, aside) for name, value, aside in view["reached"]}
    assert rows["best model"] == ("that of round 8, validation loss 0.25", "model.best.safetensors")
    assert condition_text.HAPPENED not in rows
    assert condition_text.SIGNS_ROW not in rows


def test_record_of_an_earlier_version_says_nothing_of_its_condition(tmp_path: Path) -> None:
    earlier = {"condition": None, "signs": [], "best_model": None}
    view = run_view(read_run(make_record(tmp_path / "run", rounds=9, outcome=earlier).path))
    assert (view["happened"], view["signs"]) == ("", [])
    assert "best model" not in {row[0] for row in view["reached"]}


def test_console_prints_the_condition_the_signs_and_the_best_model() -> None:
    outcome = {
        "condition": {"kind": "overfitted", "words": "it overfits since round 9"},
        "signs": [{"name": "parameters_settle", "says": "no", "number": 0.1, "words": "a round changes them"}],
        "best_model": {"round": 60, "metric": "validation_loss", "value": 0.5},
        "last_finite_round": 60,
    }
    assert run_text.reached(outcome)[:3] == [
        ("what happened", "It overfits since round 9."),
        ("signs", "parameters settle: no"),
        ("best model", "that of round 60, validation loss 0.5   (also the last: model.best.safetensors and "
                       "model.safetensors are equal)"),
    ]  # fmt: skip


def test_run_ends_with_its_report(tmp_path: Path) -> None:
    run = simulate("quadratic-two-clients", out=tmp_path / "run")
    view = data_of((tmp_path / "run" / "report.html").read_text("utf-8"))["runs"][0]
    assert view["verdict"] == run.verdict.headline
    assert view["reasons"] == list(run.verdict.reasons)
    assert "_" not in run.verdict.reason
    assert column(view, "validation_loss")[1] == pytest.approx(run.rounds["validation_loss"].tolist(), rel=1e-5)
    assert view["partition"]["sizes"] == [1, 1]
    assert view["grid"]["rounds"] == run.verdict.round_index


def test_impossible_path_of_the_page_is_refused(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", rounds=3).path
    with pytest.raises(UserError) as error:
        write_report([folder], tmp_path)
    there = f"Name a file in it, such as {tmp_path / 'report.html'}."
    assert str(error.value) == f"out: must be a file, and '{tmp_path}' is a folder. {there}"
    with pytest.raises(UserError, match=r"out: must be a file, and '.' is a folder"):
        write_report([folder], Path("."))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"out: must lie in a folder, and '.*file' is a file"):
        write_report([folder], tmp_path / "file" / "page.html")
    with pytest.raises(RunFolderError) as refused:
        write_report([folder], tmp_path / "file" / "deep" / "page.html")
    assert "cannot be written: " in str(refused.value)
    assert refused.value.fix == "Free some space, or name another file with --out."
    assert (tmp_path / "file").read_text() == "mine"
    assert write_report([folder], tmp_path / "new" / "deep" / "page.html").read_text().startswith("<!doctype html>")


def test_page_and_console_name_the_same_clients_with_the_largest_drift(tmp_path: Path) -> None:
    run = simulate("quadratic-two-clients", out=tmp_path / "run")
    lines = [line for line in run.rounds.lines if line["round"]]
    view = run_view(read_run(tmp_path / "run"))
    assert view["widest"]["words"] == "Clients most often among a round's 3 largest drifts"
    assert sorted(view["widest"]["clients"]) == [f"{k} ({len(lines)} rounds)" for k in ("0", "1")]  # both, always
    words = dict(run_text.reached(run.outcome))["client drift"]
    assert words.endswith(
        f"   (clients most often among a round's 3 largest drifts: {', '.join(view['widest']['clients'])})"
    )


def test_error_of_a_regression_is_drawn() -> None:
    wide = {"validation_mae": 0.3, "validation_error": 0.4, "federated_mae": 0.5, "federated_error": 0.6}
    drawn = set(round_series.paths_of([{"round": 1, **wide}]))
    assert {("validation_error",), ("federated_error",)} <= drawn
    assert not {("validation_mae",), ("federated_mae",)} & drawn
    of_classes = {"round": 1, "validation_accuracy": 0.9, "validation_error": 0.1}
    assert ("validation_error",) not in round_series.paths_of([of_classes])


class FolderAtTheReportsPlace:
    """Creates a folder at the report's path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def round_finished(self, line: dict[str, Any]) -> None:
        self.path.mkdir(exist_ok=True)


def test_failing_report_is_an_event_and_the_run_is_complete(tmp_path: Path) -> None:
    run = simulate(
        "quadratic-two-clients",
        out=tmp_path / "run",
        observers=[FolderAtTheReportsPlace(tmp_path / "run" / "report.html")],
    )
    assert run.verdict.outcome == "converged"
    assert (tmp_path / "run" / "outcome.json").is_file()
    events, _ = read_rounds(tmp_path / "run" / "events.jsonl")
    (dropped,) = [event for event in events if event["kind"] == "observer_dropped"]
    assert "ReportWriter failed in run_finished" in dropped["message"]


def test_page_size_is_bounded_for_long_and_wide_runs(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", rounds=500, clients=1000)
    page = report_page([read_run(folder.path)])
    grid = data_of(page)["runs"][0]["grid"]
    assert grid["rows"] * grid["columns"] <= Budget().cells
    assert len(page) < 2_500_000
    note = "1,000 clients and 500 rounds are drawn as 346 by 346 cells"
    assert any(note in line for line in data_of(page)["runs"][0]["notes"])
    twenty = share_out(20)
    view = run_view(read_run(folder.path), twenty)
    assert len(json.dumps(view)) * 20 < 4_000_000
    assert any(f"of {501:,} rounds" in line for line in view["notes"])


@pytest.mark.slow
def test_ten_thousand_clients_and_five_hundred_rounds_stay_below_5_mb(tmp_path: Path) -> None:
    folder = make_record(tmp_path / "run", rounds=500, clients=10_000)
    assert write_report([folder.path]).stat().st_size < 5_000_000


def test_mistakes_in_the_list_of_runs_are_refused(tmp_path: Path) -> None:
    run = make_record(tmp_path / "run").path
    with pytest.raises(UserError, match=r"got .*run' twice"):
        write_report([run, tmp_path / "." / "run"])
    with pytest.raises(UserError, match="at least one"):
        write_report([])
    with pytest.raises(UserError, match="at most 100, got 101"):
        write_report([run] * 101)
    with pytest.raises(RunFolderError, match="no such folder"):
        write_report([tmp_path / "nowhere"])


def test_drawing_library_has_the_documented_checksum() -> None:
    documented = re.search(r"sha256 of the file: `([0-9a-f]{64})`", asset("echarts/README.md"))
    assert documented is not None
    code = asset(DRAWING[0])
    assert hashlib.sha256(code.encode()).hexdigest() == documented[1]
    assert "</script" not in code
    assert {"LICENSE", "NOTICE", "LICENSE-d3", "LICENSE-zrender"} <= set(
        re.findall(r"`([A-Z][\w-]+)`", asset("echarts/README.md"))
    )
