"""Studies that are played: the table, the records, the engine's choice, failures, early stopping, comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from run_folders import assert_same_run

import fedscape as fs
from clients.core.errors import RunFolderError, UserError
from dashboards.report.compared_measures import MEASURES
from simulator.runs.run import simulate
from simulator.studies.plan import PARTS
from simulator.studies.study import Study, open_study
from simulator.tuning.tuned_study import study

SMALL: dict[str, Any] = {
    "partition.clients": 8, "model.hidden": [8], "local.local_epochs": 1, "algorithm.cohort": 4, "run.rounds": 4,
    "evaluation.baselines": False, "evaluation.federated_every": 0, "convergence.stop": "never",
    "convergence.plateau": None, "convergence.agreement": None,
    "convergence.target": {"metric": "validation_accuracy", "at_least": 0.3},
}  # fmt: skip
ARMS = {
    "fedavg": {},
    "scaffold": {"algorithm.kind": "scaffold"},
    "too many": {"algorithm.cohort": 9},  # found when the run has its data
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Study:
    out = tmp_path_factory.mktemp("study")
    return study("digits-label-skew", arms=ARMS, seeds=[3, 5], set=SMALL, out=out, processes=2)


def test_table_has_a_row_for_each_arm_and_seed(played: Study) -> None:
    table = played.table()
    assert list(zip(table["arm"], table["seed"], strict=True)) == [(arm, seed) for seed in (3, 5) for arm in ARMS]
    assert list(table["state"]) == ["done", "done", "failed"] * 2
    assert list(table["algorithm.kind"]) == ["fedavg", "scaffold", "fedavg"] * 2
    assert list(table["algorithm.cohort"]) == [4, 4, 9] * 2
    assert {*(m.key for m in MEASURES), "rounds_to_target_at_least"} <= set(table.columns)
    done = table[table["state"] == "done"]
    assert (done["rounds"] == 4).all()
    assert (done["seconds"] > 0).all()
    assert done["validation_loss"].nunique() == 4
    assert (done["rounds_to_target"].notna() ^ done["rounds_to_target_at_least"].notna()).all()
    assert_frame_equal(pd.read_parquet(played.path / "study.parquet"), table)


def test_numbers_of_the_table_are_those_of_the_records(played: Study) -> None:
    table = played.table().set_index(["arm", "seed"])
    assert sorted(played.runs) == [("fedavg", 3), ("fedavg", 5), ("scaffold", 3), ("scaffold", 5)]
    for which in played.runs:
        record = played.runs[which]
        assert record.outcome is not None
        assert table.loc[which, "test_accuracy"] == record.outcome["test_accuracy"]
        assert table.loc[which, "validation_loss"] == record.rounds["validation_loss"][-1]
        assert record.scenario.run.seed == which[1]
    with pytest.raises(KeyError, match="has not begun"):
        played.runs["too many", 3]


def test_record_of_a_run_names_its_study_and_arm(played: Study) -> None:
    for arm, seed in played.runs:
        facts = json.loads((played.runs[arm, seed].path / "environment.json").read_text())["run"]
        assert facts["study"] == {"name": "digits-label-skew", "arm": arm}


def test_failed_run_is_a_row_with_its_error(played: Study) -> None:
    table = played.table()
    errors = table[table["state"] == "failed"]["verdict"]
    assert all("algorithm.cohort: must be at most the 8 clients" in error for error in errors)
    assert len(played.failures) == 2


def test_run_of_a_study_has_the_bits_of_its_scenario_file_played_alone(played: Study, tmp_path: Path) -> None:
    row = played.table().set_index(["arm", "seed"]).loc["scaffold", 5]
    path = played.path / row["run"]
    simulate(path / "scenario.toml", out=tmp_path / "alone")
    assert_same_run(path, tmp_path / "alone")


def test_arms_that_differ_in_nothing_fast_share_an_engine(played: Study) -> None:
    facts = json.loads((played.path / "study.json").read_text())
    engines = {arm["name"]: arm["engine"] for arm in facts["arms"]}
    for name in ("fedavg", "scaffold"):
        assert engines[name]["engine"]["workers"] == 1
        assert {run.scenario.engine.kind for run in played.runs.values()} <= {"stacked", "plain"}
        assert engines[name]["reason"]
    runs = [played.runs["fedavg", seed].scenario.engine for seed in (3, 5)]
    assert runs[0] == runs[1]


def test_facts_say_what_each_pair_shares(played: Study) -> None:
    facts = json.loads((played.path / "study.json").read_text())
    (pair,) = [one for one in facts["shared"] if one["arms"] == ["fedavg", "scaffold"]]
    assert pair["parts"] == dict.fromkeys(PARTS, True)
    assert facts["pairs"] == [["fedavg", "scaffold"], ["fedavg", "too many"]]


def test_study_played_again_plays_only_what_failed(played: Study) -> None:
    times = ended(played)
    before = played.table()
    again = study(played.path, processes=1)
    assert ended(played) == times
    assert_frame_equal(again.table().drop(columns="seconds"), before.drop(columns="seconds"))
    assert again.path == played.path
    assert again.complete


def ended(of: Study) -> list[int]:
    """Return when the outcomes of the study's runs were written."""
    return [file.stat().st_mtime_ns for file in sorted(of.path.glob("runs/*/outcome.json"))]


def test_opened_study_is_the_played_one(played: Study) -> None:
    found = open_study(str(played.path))
    assert found.complete
    assert found.arms == list(ARMS)
    assert_frame_equal(found.table(), played.table())
    assert repr(found) == f"<Study in {played.path}: 3 arms, 2 seeds, 4 of 6 runs>"
    with pytest.raises(RunFolderError, match=r"is no study's folder"):
        open_study(played.path / "runs")


def test_comparison_pairs_the_seeds(played: Study) -> None:
    found = played.compare("fedavg", "scaffold", "validation_loss")
    table = played.table()
    losses = {arm: table[table["arm"] == arm]["validation_loss"].to_numpy() for arm in ("fedavg", "scaffold")}
    assert found.pairs == 2
    assert found.paired is not None
    assert found.paired.mean == pytest.approx((losses["scaffold"] - losses["fedavg"]).mean())
    assert played.measure.key == "rounds_to_target"
    with pytest.raises(UserError, match=r"second: 'scafold' is not an arm of the study\. Nearest: 'scaffold'"):
        played.compare("fedavg", "scafold")
    with pytest.raises(UserError, match=r"measure: 'loss' is not a measure"):
        played.compare("fedavg", "scaffold", "loss")


def test_ranking_has_the_best_first(played: Study) -> None:
    ranking = played.ranking("test_accuracy").dropna(subset="median")
    assert list(ranking["median"]) == sorted(ranking["median"], reverse=True)
    losses = played.ranking("validation_loss").dropna(subset="median")
    assert list(losses["median"]) == sorted(losses["median"])


def test_tables_are_written_for_others(played: Study, tmp_path: Path) -> None:
    text = played.to_latex(tmp_path / "paper" / "table.tex", "validation_loss")
    assert (tmp_path / "paper" / "table.tex").read_text() == text
    assert r"\begin{tabular}" in text
    assert r"too many & --" in text
    assert_frame_equal(pd.read_parquet(played.to_parquet(tmp_path / "t.parquet")), played.table())


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"already holds files \(notes\.txt\) and is no study's"):
        study("quadratic-two-clients", out=tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"processes": 0}, "processes: must be a whole number of at least 1, got 0"),
        ({"shard": "3/2"}, r"shard: must be K/N with K from 1 to N, got '3/2'"),
        ({"shard": "half"}, r"shard: must be K/N"),
    ],
)
def test_wrong_argument_makes_no_folder(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        study("quadratic-two-clients", out=tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_hopeless_arms_are_dropped_where_a_study_asks_for_it(tmp_path: Path) -> None:
    found = study(
        "quadratic-two-clients",
        arms={"good": {}, "slow": {"local.local_lr": 0.001}, "slower": {"local.local_lr": 0.0001}},
        seeds=4, set={"run.rounds": 3}, out=tmp_path / "out", processes=1,
        answer={"measure": "optimality_gap"}, early={"kind": "successive_halving", "seeds": 1},
    )  # fmt: skip
    table = found.table()
    states = {arm: list(table[table["arm"] == arm]["state"]) for arm in found.arms}
    assert states == {
        "good": ["done"] * 4, "slow": ["done"] * 2 + ["stopped"] * 2, "slower": ["done"] + ["stopped"] * 3,
    }  # fmt: skip
    verdict = table[(table["arm"] == "slower") & (table["state"] == "stopped")]["verdict"].iloc[0]
    assert verdict == "stopped early after 1 seeds: not among the best 2 of 3 by the median of optimality gap"
    assert found.complete
    assert found.failures == {}
    assert fs.open_study(found.path).complete
