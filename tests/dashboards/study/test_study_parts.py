"""The parts of a study's page: each number equals one computed by hand from the table or the records."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.core.errors import RunFolderError
from dashboards.report.compared_measures import MEASURES
from dashboards.study.curves import CurveReader, RunCurves, curves_view, run_curves
from dashboards.study.interactions import interactions_view
from dashboards.study.ranking import rankings
from dashboards.study.study_data import StudyData, is_study, read_study_data, value_of
from dashboards.study.survival import survival_view
from dashboards.study.tradeoff import pareto_front, tradeoff_view
from tests.support.made_studies import BUDGET, Row, made_facts, made_rows, row_of, without_numbers, write_study

BY_KEY = {measure.key: measure for measure in MEASURES}


def study_of(rows: list[Row], **facts: Any) -> StudyData:
    """Return a study that is in no folder."""
    return StudyData(Path("nowhere"), rows, facts)


def needing(arm: str, *rounds: int | None) -> list[Row]:
    """Return the rows of an arm whose runs need these rounds to the target; None missed it."""
    return [row_of(arm, seed, {"algorithm.kind": arm}, needed, 0.9) for seed, needed in enumerate(rounds)]


# The table


def test_groups_of_arms_are_ranked_each_by_itself() -> None:
    rows = [*needing("clean", 9, 9), *needing("other", 2, 2), *needing("faulty", 8, 8), *needing("worse", 3, 3)]
    groups = [["clean", "faulty"], ["other", "worse"]]
    pairs = [["clean", "faulty"], ["other", "worse"]]
    study = study_of(rows, **made_facts(rows, pairs=pairs, groups=groups))
    (first, *_) = rankings(study)
    assert [study.arms[row["arm"]] for row in first["rows"]] == ["faulty", "clean", "other", "worse"]
    assert tradeoff_view(study) == [], "no front leads through arms with other data"
    alone = study_of(rows, **made_facts(rows))
    (first, *_) = rankings(alone)
    assert [alone.arms[row["arm"]] for row in first["rows"]] == ["other", "worse", "faulty", "clean"]


def test_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = made_rows(seeds=2)
    found = read_study_data(write_study(tmp_path / "s", rows, made_facts(rows), records=False))
    assert found.arms == list(dict.fromkeys(row["arm"] for row in rows))
    assert found.seeds == [0, 1]
    assert found.factors == {"algorithm.kind": ["fedavg", "fedprox", "scaffold", "fednova"],
                             "local.local_lr": [0.02, 0.05]}  # fmt: skip
    assert found.measure is BY_KEY["rounds_to_target"]
    assert found.pairs[0] == ("fedavg, local_lr 0.02", "fedavg, local_lr 0.05")
    missed = found.by_arm["fedavg, local_lr 0.02"][0]
    assert value_of(missed, BY_KEY["rounds_to_target"]) == (BUDGET, False)
    assert value_of(missed, BY_KEY["test_accuracy"]) == (missed["test_accuracy"], True)
    assert value_of(missed, BY_KEY["optimality_gap"]) == (None, False)


def test_table_without_facts_compares_each_arm_with_the_first() -> None:
    found = study_of([*needing("a", 3, 4), *needing("b", 2, 3), *needing("c", 5, 6)])
    assert found.pairs == [("a", "b"), ("a", "c")]
    assert found.measure is BY_KEY["rounds_to_target"]
    known = study_of(needing("a", None, 4), measure="test_accuracy", pairs=[["a", "nobody"]])
    assert known.measure is BY_KEY["test_accuracy"]
    assert known.pairs == []


def test_runs_outside_the_folder_are_not_opened() -> None:
    study = study_of(needing("a", 3))
    for name in ("/etc", "../other", "runs/../../x", ""):
        assert study.folder_of({"run": name}) is None
    assert study.folder_of({"run": "runs/ab"}) == Path("nowhere/runs/ab")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: (path / "study.parquet").write_bytes(b"PAR1 no"), "no Parquet file"),
        (lambda path: (path / "study.parquet").unlink(), "has no table yet"),
        (lambda path: (path / "study.json").write_text("{"), "not JSON"),
        (lambda path: (path / "study.json").write_text("[1]"), "not a table"),
    ],
)
def test_damaged_study_is_refused_with_its_file(tmp_path: Path, change: Any, words: str) -> None:
    rows = needing("a", 3)
    path = write_study(tmp_path / "s", rows, made_facts(rows), records=False)
    (path / "study.toml").write_text("seeds = 1\n")
    assert is_study(path)
    change(path)
    with pytest.raises(RunFolderError, match=words):
        read_study_data(path)


def test_table_without_a_column_is_refused(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "state"} for row in needing("a", 3)]
    with pytest.raises(RunFolderError, match="has no column 'state'"):
        read_study_data(write_study(tmp_path / "s", rows, records=False))


# Ranking


def test_ranking_has_means_and_the_better_arm_first() -> None:
    rows = [*needing("slow", 30, 32, 34), *needing("fast", 20, 22, 30)]
    for row in rows:
        row["test_accuracy"] = 0.8 if row["arm"] == "slow" else 0.7
    found = {one["key"]: one for one in rankings(study_of(rows))}
    rounds = found["rounds_to_target"]["rows"]
    assert [one["arm"] for one in rounds] == [1, 0]
    assert rounds[0]["estimate"] == pytest.approx(24)
    half = 4.302652729749 * np.std([20, 22, 30], ddof=1) / math.sqrt(3)  # Student's quantile of 2 degrees of freedom
    assert rounds[0]["low"] == pytest.approx(24 - half)
    assert rounds[0]["high"] == pytest.approx(24 + half)
    assert [one["arm"] for one in found["test_accuracy"]["rows"]] == [0, 1]  # higher is better
    assert found["rounds_to_target"]["kind"] == "mean"
    assert next(iter(found)) == "rounds_to_target"


def test_ranking_of_missed_targets_has_medians_and_arms_without_one_last() -> None:
    rows = [*needing("never", None, None, None), *needing("half", 10, None, None), *needing("most", 20, 30, None)]
    found = rankings(study_of(rows))[0]
    assert found["kind"] == "median"
    assert [(one["arm"], one["estimate"], one["missed"]) for one in found["rows"]] == [
        (2, 30.0, 1),
        (1, None, 2),
        (0, None, 3),
    ]


def test_arm_without_a_number_is_last_and_has_none() -> None:
    rows = [*needing("a", 3, 4), *[without_numbers(row, "failed", "an error") for row in needing("b", 3, 4)]]
    found = rankings(study_of(rows))[0]["rows"]
    assert found[1] == {"arm": 1, "n": 0, "missed": 0, "estimate": None, "low": None, "high": None}


# Runs that reached the target


def test_reached_share_is_the_closed_form_of_a_censored_arm() -> None:
    rows = needing("a", 10, 20, None, 30)
    rows[2]["rounds_to_target_at_least"] = 25.0  # it stopped between the second hit and the third
    curve = survival_view(study_of(rows))["round"][0]
    assert curve is not None
    assert curve["x"] == [0.0, 10.0, 20.0, 30.0]
    assert curve["reached"] == [0.0, 0.25, 0.5, 1.0]
    assert curve["missed"] == [25.0]
    assert curve["n"] == 4
    last = survival_view(study_of(needing("a", 10, None)))["round"][0]
    assert last is not None
    assert (last["x"], last["reached"]) == ([0.0, 10.0, float(BUDGET)], [0.0, 0.5, 0.5])  # it goes on to the last miss


def test_study_without_a_target_has_no_reached_share() -> None:
    rows = [{key: math.nan if "_to_target" in key else value for key, value in row.items()} for row in needing("a", 3)]
    assert survival_view(study_of(rows)) == {}


# Cost against score


def test_pareto_front_has_the_arms_that_none_beats() -> None:
    points = [(3.0, 0.9), (1.0, 0.7), (2.0, 0.6), (1.0, 0.7), (5.0, 0.9), None, (4.0, 0.95)]
    assert pareto_front(points, higher=True) == [1, 3, 0, 6]
    assert pareto_front(points, higher=False) == [1, 3, 2]


def test_tradeoff_has_medians_and_leaves_out_costs_that_are_equal() -> None:
    rows = [*needing("a", 10, 20, 60), *needing("b", 30, 30, None)]
    for row, sent in zip(rows, (1e6, 2e6, 4e6, 1e6, 1e6, 1e6), strict=True):
        row["bytes_sent"], row["test_accuracy"] = sent, 0.9 if row["arm"] == "a" else 0.95
    found = {(one["cost"], one["score"]): one for one in tradeoff_view(study_of(rows))}
    assert ("rounds_played", "test_accuracy") not in found
    assert found["bytes_sent", "test_accuracy"]["points"] == [(2e6, 0.9), (1e6, 0.95)]
    assert found["bytes_sent", "test_accuracy"]["front"] == [1]
    assert found["rounds_to_target", "test_accuracy"]["points"] == [(20.0, 0.9), (30.0, 0.95)]
    assert found["rounds_to_target", "test_accuracy"]["front"] == [0, 1]


# Two factors


def test_interaction_averages_other_factors_within_a_seed_first() -> None:
    rows = []
    for seed in range(2):
        for a, kind in enumerate(("x", "y")):
            for b, rate in enumerate((0.1, 0.2)):
                for c, size in enumerate((8, 16)):
                    factors = {"algorithm.kind": kind, "local.local_lr": rate, "local.batch_size": size}
                    rows.append(row_of(f"{kind} {rate} {size}", seed, factors, 10 + a + 2 * b + 4 * c + 8 * seed, 0.9))
    view = [one for one in interactions_view(study_of(rows)) if one["measure"] == "rounds_to_target"]
    assert [(one["across"], one["lines"]) for one in view] == [
        ("algorithm.kind", "local.local_lr"), ("algorithm.kind", "local.batch_size"),
        ("local.local_lr", "local.batch_size"),
    ]  # fmt: skip
    mean, low, high, runs = view[0]["cells"][1][0]  # kind x, rate 0.2: 10 + 2 + (0 or 4) + (0 or 8)
    assert (mean, runs) == (18.0, 4)
    half = 12.7062047362 * np.std([14, 22], ddof=1) / math.sqrt(2)  # over seeds: 1 degree of freedom
    assert (low, high) == (pytest.approx(18 - half), pytest.approx(18 + half))
    assert view[0]["columns"] == ["x", "y"]
    assert view[0]["rows"] == ["0.1", "0.2"]


def test_one_factor_has_no_interaction() -> None:
    assert interactions_view(study_of([*needing("a", 1, 2), *needing("b", 1, 2)])) == []


# Curves


def curves(x: list[float], y: list[float]) -> RunCurves:
    """Return a run with one series, measured at these rounds."""
    axes = {"round": np.array(x), "bytes": 10 * np.array(x), "simulated": np.full(len(x), math.nan)}
    return RunCurves(axes, {"validation_loss": np.array(y)})


def band(runs: list[RunCurves], axis: str = "round") -> dict[str, Any]:
    found: dict[str, Any] = curves_view({"arm": runs})[0]["axes"][axis][0]
    return found


def test_curve_is_the_median_with_a_band_of_tenths() -> None:
    runs = [curves([0, 1, 2], [value, 2.0 * value, 3.0 * value]) for value in range(1, 12)]
    found = band(runs)
    assert found["x"] == [0, 1, 2]
    assert found["mid"] == [6, 12, 18]
    assert found["low"] == [2, 4, 6]
    assert found["high"] == [10, 20, 30]
    assert band(runs, "bytes")["x"] == [0, 10, 20]
    assert "simulated" not in curves_view({"arm": runs})[0]["axes"]


def test_ended_run_keeps_its_last_value_and_missing_rounds_are_interpolated() -> None:
    found = band([curves([0, 1], [4.0, 2.0]), curves([0, 4], [8.0, 0.0])])
    assert found["x"] == [0, 1, 4]
    assert found["mid"] == [6.0, 4.0, 1.0]


def test_diverged_run_counts_as_infinite() -> None:
    fine = [curves([0, 1, 2], [3.0, 2.0, 1.0])] * 2
    found = band([*fine, curves([0, 1, 2], [3.0, math.inf, math.inf])])
    assert found["mid"] == [3.0, 2.0, 1.0]
    assert found["high"] == [3.0, None, None]


def test_long_curve_is_thinned_to_even_places_with_both_ends() -> None:
    found = band([curves(list(range(1001)), [float(r) for r in range(1001)])])
    assert len(found["x"]) <= 120
    assert (found["x"][0], found["x"][-1]) == (0, 1000)
    assert found["mid"] == found["x"]
    assert "low" not in found  # one run has no band


def test_record_is_read_into_series(tmp_path: Path) -> None:
    def change(row: Row, line: dict[str, Any]) -> dict[str, Any]:
        line["validation_loss"] = math.nan if line["round"] == 5 else line["validation_loss"]
        return line

    rows = needing("a", 3)
    path = write_study(tmp_path / "s", rows, change=change)
    found = run_curves(path / rows[0]["run"])
    assert found.axes["round"].tolist() == list(range(BUDGET + 1))
    assert found.axes["simulated"][-1] == 0.5 * BUDGET
    assert math.isinf(found.series["validation_loss"][5])
    assert found.series["validation_loss"][0] == pytest.approx(rows[0]["validation_loss"] + 2.0)
    assert math.isnan(found.series["train_loss"][0])
    assert found.series["client_drift.mean"][1] == pytest.approx(1.0)
    assert "validation_error" not in found.series


@pytest.mark.parametrize("rounds", [79, 80, 400, 1001])
def test_long_record_is_sampled_at_even_rounds_with_the_last(tmp_path: Path, rounds: int) -> None:
    rows = needing("a", 3)
    rows[0]["rounds"] = rounds
    path = write_study(tmp_path / "s", rows)
    found = run_curves(path / rows[0]["run"]).axes["round"].astype(int).tolist()
    stride = {79: 1, 80: 2, 400: 10, 1001: 20}[rounds]
    assert found == sorted({*range(0, rounds + 1, stride), rounds})


def test_rounds_without_a_validation_loss_are_left_out(tmp_path: Path) -> None:
    def change(row: Row, line: dict[str, Any]) -> dict[str, Any]:
        if line["round"] % 5:
            del line["validation_loss"]
        return line

    rows = needing("a", 3)
    path = write_study(tmp_path / "s", rows, change=change)
    with (path / rows[0]["run"] / "rounds.jsonl").open("a") as file:
        file.write('{"round": 99, "validation_loss": 0.')  # a killed run's last line
    found = run_curves(path / rows[0]["run"])
    assert found.axes["round"].tolist() == list(range(0, BUDGET + 1, 5))


def test_finished_run_is_read_once_and_a_lost_record_is_named(tmp_path: Path) -> None:
    rows = needing("a", 3, 4)
    path = write_study(tmp_path / "s", rows)
    reader, study = CurveReader(), read_study_data(path)
    before = reader.read(study)
    assert reader.problems == []
    record = path / rows[0]["run"] / "rounds.jsonl"
    record.write_text(record.read_text("utf-8").replace("{", "{{", 1), "utf-8")
    assert reader.read(study)["a"][0] is before["a"][0]
    assert len(CurveReader().read(study)["a"]) == 1
    other = CurveReader()
    other.read(study)
    assert other.problems[0].startswith("Curves are without the 1 record that cannot be read; the first: a, seed 0: ")


def test_facts_of_every_kind_are_json(tmp_path: Path) -> None:
    rows = made_rows(seeds=2)
    data = read_study_data(write_study(tmp_path / "s", rows, made_facts(rows), records=False))
    parts = [rankings(data), survival_view(data), tradeoff_view(data), interactions_view(data)]
    assert json.loads(json.dumps(parts, allow_nan=False))
