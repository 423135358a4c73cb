"""Arms of a study are tuned with equal budgets on other seeds, and then compared with their best values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clients.core.errors import UserError
from simulator.scenario.sections import Scenario, load_scenario
from simulator.studies.reading import read_study
from simulator.studies.study import open_study
from simulator.tuning.arms import arm_parameters, tune_arms, tuning_table
from simulator.tuning.tuned_study import study

SETS = ("run.rounds=12", "convergence.settled=", "engine.kind=plain", "engine.threads=1", "engine.workers=1")
RATES = {"local.local_lr": [0.01, 0.02, 0.04]}


def arms(**kinds: str) -> dict[str, Scenario]:
    return {
        name: load_scenario("quadratic-two-clients", sets=[*SETS, f"algorithm.kind={kind}"])
        for name, kind in kinds.items()
    }


def table(**given: Any) -> Any:
    return tuning_table({"params": RATES, "sampler": "grid", "measure": "optimality_gap", "seeds": 2, **given})


def test_every_arm_gets_the_same_trials_on_seeds_that_are_not_compared(tmp_path: Path) -> None:
    found = tune_arms(tmp_path, arms(fedavg="fedavg", scaffold="scaffold"), table(), compared=range(3))
    assert found.seeds == (3, 4)
    assert [len(tuned.trials) for tuned in found.arms.values()] == [3, 3]
    for name, tuned in found.arms.items():
        assert tuned.name == name
        values = {trial.values["local.local_lr"]: trial.value for trial in tuned.trials}
        assert tuned.best["local.local_lr"] == min(values, key=lambda rate: values[rate] or 0.0)
        assert found.scenarios[name].local.local_lr == float(tuned.best["local.local_lr"])
    assert found.sentences == [
        "Each of 2 arms was tuned with 3 trials of 2 runs (seeds 3, 4), by the median of the optimality gap. "
        "The comparison has other seeds."
    ]
    written = json.loads((tmp_path / "tuning" / "tuning.json").read_text())
    assert written["arms"]["scaffold"]["best"] == found.arms["scaffold"].best
    assert len(list((tmp_path / "runs").iterdir())) == 12


def test_tuning_on_a_compared_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tuning.seeds: has the compared seed \[2\]"):
        tune_arms(tmp_path, arms(fedavg="fedavg"), table(seeds=[2, 9]), compared=range(3))


def test_arm_without_the_key_is_named_as_untuned(tmp_path: Path) -> None:
    two = arms(fedavg="fedavg", fedprox="fedprox")
    parameters = arm_parameters(two, table(params={"algorithm.mu": [0.1, 1.0]}))
    assert list(parameters) == ["fedprox"]
    found = tune_arms(tmp_path, two, table(params={"algorithm.mu": [0.1, 1.0]}), compared=[0])
    assert found.untuned == ("fedavg",)
    assert found.scenarios["fedavg"] == two["fedavg"]
    assert "fedavg" in found.sentences[1].lower()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "tuning.params: is missing"),
        ({"params": RATES, "trails": 3}, "tuning.trails: 'trails' is not a key of \\[tuning\\]. Nearest: 'trials'"),
        ({"params": RATES, "trials": 0}, "trials: must be a whole number"),
    ],
)
def test_wrong_table_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tuning_table(given)


def test_database_with_a_login_is_refused_and_not_shown() -> None:
    with pytest.raises(UserError, match=r"tuning.storage: has a login \('postgresql://host/db'\)") as error:
        table(storage="postgresql://me:s3cretword@host/db")
    assert "s3cretword" not in str(error.value)


def test_key_of_no_arm_is_refused() -> None:
    with pytest.raises(UserError, match=r"algorithm\.mu"):
        arm_parameters(arms(fedavg="fedavg"), table(params={**RATES, "algorithm.mu": [0.1, 1.0]}))


def test_study_with_a_tuning_compares_the_best_values_of_each_arm(tmp_path: Path) -> None:
    file = tmp_path / "rates.toml"
    file.write_text("""
scenario = "quadratic-two-clients"
seeds = 3
[set]
"run.rounds" = 12
"convergence.settled" = ""
"engine.kind" = "plain"
[factors]
"algorithm.kind" = ["fedavg", "scaffold"]
[answer]
compare = "algorithm.kind"
measure = "optimality_gap"
[tuning]
params = { "local.local_lr" = [0.01, 0.02, 0.04] }
sampler = "grid"
measure = "optimality_gap"
seeds = 1
""")
    with pytest.raises(UserError, match="shard: must be K/N"):  # before the first trial
        study(file, out=tmp_path / "none", shard="3/2")
    assert not (tmp_path / "none").exists()
    ended: list[tuple[str, int]] = []
    done = study(
        file, out=tmp_path / "out", processes=1, trial_ended=lambda arm, row, tuned: ended.append((arm, row.number))
    )
    assert ended == [(arm, number) for arm in ("fedavg", "scaffold") for number in range(3)]
    assert done.failures == {}
    assert done.complete
    facts = json.loads((tmp_path / "out" / "study.json").read_text())
    best = {name: float(found["best"]["local.local_lr"]) for name, found in facts["tuning"].items()}
    frame = done.table()
    for name in ("fedavg", "scaffold"):
        assert set(frame[frame["arm"] == name]["local.local_lr"]) == {best[name]}
        assert done.runs[name, 2].scenario.local.local_lr == best[name]
    assert facts["pairs"] == [["fedavg", "scaffold"]]
    assert "The comparison has other seeds." in facts["notes"][0]
    assert read_study(tmp_path / "out").tuning == {}
    again = study(file, out=tmp_path / "out", processes=1, trial_ended=lambda arm, row, tuned: ended.append((arm, -1)))
    assert len(ended) == 6
    assert again.table()["key"].tolist() == frame["key"].tolist()
    assert open_study(tmp_path / "out").complete


def test_study_that_is_stopped_in_its_tuning_plays_no_arm(tmp_path: Path) -> None:
    given = {
        "scenario": "quadratic-two-clients",
        "set": {"run.rounds": 12, "convergence.settled": "", "engine.kind": "plain"},
        "seeds": 2,
        "tuning": {"params": RATES, "sampler": "grid", "measure": "optimality_gap", "seeds": 1},
    }
    done = study(given, out=tmp_path, stop_asked=lambda: True)
    assert not done.complete
    assert set(done.table()["state"]) == {"planned"}
    assert read_study(tmp_path).tuning["measure"] == "optimality_gap"
    assert study(tmp_path, processes=1).complete
