"""The scores of the clients that evaluate a model are rows of the record: read back, resumed and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fedscape as fs
from server.record.completeness import problems_of
from server.record.records import RunFolder

SETS = ["run.rounds=7", "evaluation.federated_every=3", "run.checkpoint_rounds=1", "partition.clients=12",
        "algorithm.cohort=5", "convergence.stop=never",
        "engine.kind=stacked", "engine.tile=5", "engine.threads=1", "engine.workers=1",
        "engine.compile=never"]  # fmt: skip


def run(folder: Path, *sets: str, **more):
    return fs.simulate(fs.load_scenario("digits-label-skew", sets=[*SETS, *sets]), out=folder, **more)


def test_scores_of_each_client_are_those_that_the_record_sums_up(tmp_path):
    """Rounds 3 and 6 are evaluated, and the final model of round 7."""
    done = run(tmp_path / "run")
    rows = fs.open_run(tmp_path / "run").scores
    assert rows.columns == ["round", "client", "num_examples", "loss", "accuracy", "balanced_accuracy"]
    assert sorted(set(rows["round"].tolist())) == [3, 6, 7]
    for r in (3, 6):
        (line,) = [line for line in done.rounds.lines if line["round"] == r]
        now = rows.where(round=r)
        assert len(now) == line["client_spread"]["clients"]
        assert now["accuracy"].var() == pytest.approx(line["client_spread"]["variance"])
        assert np.median(now["loss"]) == pytest.approx(line["client_spread"]["loss"]["p50"])
        assert np.average(now["accuracy"], weights=now["num_examples"]) == pytest.approx(line["federated_accuracy"])
        worst = line["client_spread"]["worst"][0]
        assert rows.where(round=r, client=worst["client"])["accuracy"][0] == pytest.approx(worst["value"])
    final = rows.where(round=7)["accuracy"]
    assert final.min() == pytest.approx(done.outcome["client_spread"]["worst"])
    assert final.var() == pytest.approx(done.outcome["client_spread"]["variance"])
    np.testing.assert_array_equal(done.scores["loss"], rows["loss"])


@pytest.mark.parametrize("rounds", [4, 6, 7])
def test_resumed_run_has_the_same_scores(tmp_path, rounds):
    """It is stopped after some rounds and resumed, or resumed from the checkpoint of its last round."""
    whole = run(tmp_path / "whole")
    played = iter(range(1, 8))
    run(tmp_path / "part", stop_asked=lambda: next(played) == rounds)
    (tmp_path / "part" / "outcome.json").unlink(missing_ok=True)
    again = fs.resume(tmp_path / "part")
    assert len(again.scores) == len(whole.scores)
    for name in whole.scores.columns:
        np.testing.assert_array_equal(again.scores[name], whole.scores[name], err_msg=name)


def test_run_without_evaluation_on_clients_has_the_scores_of_its_final_model(tmp_path):
    run(tmp_path / "run", "evaluation.federated_every=0")
    assert set(fs.open_run(tmp_path / "run").scores["round"].tolist()) == {7}


def test_lost_scores_are_missed(tmp_path):
    run(tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    rounds, outcome = folder.read_rounds(), folder.read_outcome()
    assert problems_of(folder, rounds, outcome) == []
    for part in folder.scores.glob("*.parquet"):
        part.unlink()
    (found,) = problems_of(folder, rounds, outcome)
    lost = sum(line["client_spread"]["clients"] for line in rounds.values if line["round"] in (3, 6))
    assert "Scores of round" in found
    assert f"{lost:,} of {lost:,} rows" in found
