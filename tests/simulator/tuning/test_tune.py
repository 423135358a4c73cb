"""Tunings find what independent runs have, go on after a stop, and refuse what is another tuning's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

import fedscape as fs
from clients.core.errors import FedscapeError, UserError
from simulator.scenario.sections import load_scenario
from simulator.tuning.findings import TrialRow, Tuned
from simulator.tuning.tune import Tuning, tune
from simulator.tuning.words import summary

SETS = ("run.rounds=12", "convergence.settled=", "engine.kind=plain", "engine.threads=1", "engine.workers=1")
BASE = "quadratic-two-clients"


def tuned(out: Path, *params: str, **options: Any) -> Tuning:
    given = {"trials": 6, "seeds": 1, "measure": "optimality_gap", "sets": SETS} | options
    return tune(BASE, params, out=out, **given)


def values_of(tuning: Tuning) -> list[tuple[Any, ...]]:
    """Return what equal tunings have equal: all but the seconds."""
    return [(t.number, t.state, t.value, dict(t.values), dict(t.by_seed), dict(t.runs)) for t in tuning.found.trials]


def gap_at(rate: float) -> float:
    """Return the optimality gap of an independent run."""
    run = fs.simulate(load_scenario(BASE, sets=[*SETS, f"local_lr={rate}"]), record=False)
    return float(run.rounds["optimality_gap"][-1])


def test_grid_has_the_values_of_independent_runs_and_the_least_is_best(tmp_path: Path) -> None:
    rates = [0.005, 0.01, 0.02, 0.1]
    done = tuned(tmp_path, f"local_lr={','.join(map(str, rates))}", sampler="grid")
    gaps = [gap_at(rate) for rate in rates]
    assert len(set(gaps)) == 4
    assert [trial.value for trial in done.found.trials] == gaps
    assert done.best == {"local.local_lr": str(rates[gaps.index(min(gaps))])}
    assert done.value == min(gaps)
    assert done.scenario.local.local_lr == rates[gaps.index(min(gaps))]
    assert fs.simulate(load_scenario(tmp_path / "best.toml"), record=False).rounds["optimality_gap"][-1] == min(gaps)


def test_first_trial_has_the_scenarios_own_values(tmp_path: Path) -> None:
    done = tuned(tmp_path, "local_lr=log:0.001:0.4", trials=3, sampler="random")
    first = done.found.trials[0]
    assert first.values == {"local.local_lr": 0.05}
    assert done.found.untuned == first.value == gap_at(0.05)
    assert len({trial.values["local.local_lr"] for trial in done.found.trials}) == 3


def stopping_after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


def test_stopped_tuning_goes_on_to_the_table_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = tuned(tmp_path / "whole", "local_lr=log:0.001:0.4", seeds=2)
    stops = 0
    for calls in (3, 31, 40, 70, 10_000):
        done = tuned(tmp_path / "stopped", "local_lr=log:0.001:0.4", seeds=2, stop_asked=stopping_after(calls))
        stops += done.interrupted
    assert stops >= 3
    assert not done.interrupted
    assert values_of(done) == values_of(whole)
    assert done.best == whole.best


def test_trials_are_in_all_and_finished_ones_are_not_played_again(tmp_path: Path) -> None:
    tuned(tmp_path, "local_lr=log:0.001:0.4", trials=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/rounds.jsonl")}
    played: list[int] = []

    def trial_ended(row: TrialRow, so_far: Tuned) -> None:
        played.append(row.number)

    again = tuned(tmp_path, "local_lr=log:0.001:0.4", trials=3, trial_ended=trial_ended)
    assert played == [2]
    assert len(again.found.trials) == 3
    assert before.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/rounds.jsonl")}.items()


@pytest.mark.parametrize(
    ("params", "options", "words"),
    [
        (["local_lr=log:0.002:0.4"], {}, "params: differs from that of the study"),
        (["local_lr=log:0.001:0.4"], {"seeds": 2}, "seeds: differs from that of the study"),
        (["local_lr=log:0.001:0.4"], {"measure": "distance_to_optimum"}, "measure: differs from that of the study"),
        (["local_lr=log:0.001:0.4"], {"sets": [*SETS, "run.rounds=13"]}, "scenario: differs from that of the study"),
    ],
)
def test_folder_of_another_tuning_is_refused(
    params: list[str], options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    tuned(tmp_path, "local_lr=log:0.001:0.4", trials=1)
    with pytest.raises(UserError, match=words):
        tuned(tmp_path, *params, trials=1, **options)


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not empty and has no tuning"):
        tuned(tmp_path, "local_lr=log:0.001:0.4")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trials": 0}, "trials: must be a whole number from 1 to 100,000, got 0"),
        ({"trials": True}, "trials: must be a whole number"),
        ({"seeds": []}, "seeds: must be a number of seeds or a list of them"),
        ({"seeds": [1, 1]}, "seeds: must differ"),
        ({"sampler": "tpee"}, "sampler: 'tpee' is not a sampler of Optuna's. Nearest: 'tpe'"),
        ({"pruner": "mean"}, "pruner: 'mean' is not a pruner"),
        ({"within": 2.0}, "within: must be a share from 0 to 1"),
        ({"storage": "tuning.db"}, "storage: must be the URL of a database, got 'tuning.db'"),
        ({"measure": "loss"}, "measure: 'loss' is not a measure"),
        ({"sampler": "grid"}, "local.local_lr: has neither choices nor a step"),
    ],
)
def test_wrong_option_is_refused_before_the_first_run(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        tuned(tmp_path / "out", "local_lr=log:0.001:0.4", **options)
    assert words in str(error.value)
    assert not list(tmp_path.rglob("rounds.jsonl"))


def test_diverged_trials_are_infinitely_bad_and_never_best(tmp_path: Path) -> None:
    done = tuned(tmp_path, "local_lr=0.05,0.6", sampler="grid", sets=(*SETS, "run.rounds=40"))
    assert [trial.value for trial in done.found.trials][1] == math.inf
    assert done.best == {"local.local_lr": "0.05"}
    assert json.loads((tmp_path / "tuning.json").read_text())["trials"][1]["value"] == "inf"


def test_failing_scenario_ends_the_tuning_after_three_trials(tmp_path: Path) -> None:
    with pytest.raises(FedscapeError, match="three trials in turn failed; the last one: measure: 'test_accuracy'"):
        tuned(tmp_path, "local_lr=log:0.001:0.4", measure="test_accuracy", trials=9)
    found = json.loads((tmp_path / "tuning.json").read_text())
    assert [trial["state"] for trial in found["trials"]] == ["failed"] * 3
    assert "was not measured" in found["trials"][0]["error"]


def test_flatness_spans_the_trials_within_a_share_of_the_best(tmp_path: Path) -> None:
    rates = [round(0.01 * 1.1**k, 6) for k in range(8)]
    done = tuned(tmp_path, f"local_lr={','.join(map(repr, rates))}", sampler="grid", within=0.5, trials=8)
    gaps = dict(zip(map(repr, rates), map(gap_at, rates), strict=True))
    least = min(gaps.values())
    (part,) = done.found.flatness
    assert part.choices == tuple(rate for rate, gap in gaps.items() if gap <= 1.5 * least)
    assert 1 < len(part.choices) == done.found.as_good < 8


def test_best_value_at_an_end_of_its_range_is_noted(tmp_path: Path) -> None:
    done = tuned(tmp_path, "local_lr=0.2:0.4:0.1", sampler="grid")
    (part,) = done.found.flatness
    assert part.at_edge
    assert part.best == 0.2
    assert any("lies at an end of its range: better values may lie outside" in line for line in summary(done.found))


def test_measure_of_the_test_examples_is_noted(tmp_path: Path) -> None:
    sets = ("run.rounds=2", "engine.kind=plain", "engine.threads=1", "partition.clients=4", "algorithm.cohort=2",
            "model.hidden=[4]",
            "evaluation.federated_every=0", "convergence.stop=never")  # fmt: skip
    done = tune("digits-iid", ["local_lr=0.05,0.1"], sets=sets, seeds=1, measure="test_accuracy", sampler="grid",
                out=tmp_path)  # fmt: skip
    assert done.found.better == "higher"
    assert done.value == max(trial.value or 0.0 for trial in done.found.trials)
    assert any("test scores of the best values are optimistic" in note for note in done.found.notes)


def test_trials_of_one_shape_share_the_engine_that_was_chosen_first(tmp_path: Path) -> None:
    sets = ("run.rounds=2", "partition.clients=4", "algorithm.cohort=2", "model.hidden=[4]", "convergence.stop=never")
    params = ["local_lr=log:0.01:0.1", "model.hidden=[4],[8]"]
    done = tune("digits-iid", params, sets=sets, seeds=1, trials=4, sampler="random", out=tmp_path)
    plans = {path.name: json.loads(path.read_text()) for path in (tmp_path / "plans").iterdir()}
    shapes = {str(trial.values["model.hidden"]) for trial in done.found.trials}
    assert len([name for name in plans if name.startswith("tuning-")]) == len(shapes)
    chosen: dict[str, set[str]] = {}
    for trial in done.found.trials:
        engine = fs.open_run(tmp_path / "runs" / trial.runs[7]).scenario.engine
        chosen.setdefault(str(trial.values["model.hidden"]), set()).add(repr(engine))
    assert all(len(engines) == 1 for engines in chosen.values())


def test_table_has_a_row_for_each_trial_and_a_column_for_each_parameter_and_seed(tmp_path: Path) -> None:
    table = tuned(tmp_path, "local_lr=0.05,0.1", sampler="grid", seeds=[3, 5]).table()
    assert list(table.columns) == [
        "number",
        "state",
        "value",
        "at_least",
        "local.local_lr",
        "seed 3",
        "seed 5",
        "seconds",
    ]
    assert table["seed 3"].tolist() == [gap_at(0.05), gap_at(0.1)]


def test_study_is_optunas_with_intermediate_values_by_round(tmp_path: Path) -> None:
    tuned(tmp_path, "local_lr=0.05,0.1", sampler="grid", seeds=2, sets=(*SETS, "run.rounds=50"))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.journal"))
    study = optuna.load_study(study_name=tmp_path.name, storage=optuna.storages.JournalStorage(backend))
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    first = study.trials[0]
    run = fs.open_run(tmp_path / "runs" / first.user_attrs["results"][0]["run"])
    assert list(first.intermediate_values) == list(range(2, 101, 2))
    assert first.intermediate_values[20] == run.rounds["optimality_gap"][20]
    assert (
        first.intermediate_values[70] == run.rounds["optimality_gap"][20]
    )  # the second seed; a quadratic has no noise


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_pruner_ends_hopeless_trials_and_their_runs_keep_checkpoints(pruner: str, tmp_path: Path) -> None:
    good, hopeless = [0.01, 0.012, 0.014, 0.016, 0.018], [1e-6, 2e-6, 3e-6, 4e-6]
    done = tuned(tmp_path, f"local_lr={','.join(map(repr, [*good, *hopeless]))}", sampler="grid", pruner=pruner,
                 trials=9, sets=(*SETS, "run.rounds=60"))  # fmt: skip
    pruned = {float(trial.values["local.local_lr"]) for trial in done.found.trials if trial.state == "pruned"}
    assert pruned & set(hopeless)
    assert pruned >= set(hopeless) or pruner == "hyperband"  # which assigns trials to brackets of other lengths
    assert not done.interrupted
    assert float(done.best["local.local_lr"]) in good
    played = {fs.open_run(path).outcome["outcome"] for path in (tmp_path / "runs").iterdir()}  # type: ignore[index]
    assert "interrupted" in played


def test_database_of_the_user_has_the_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tuning.db'}"
    tuned(tmp_path / "out", "local_lr=0.05,0.1", sampler="grid", storage=url, study_name="rates")
    study = optuna.load_study(study_name="rates", storage=url)
    assert [trial.value for trial in study.trials] == [gap_at(0.05), gap_at(0.1)]
    assert not (tmp_path / "out" / "optuna.journal").exists()


def test_database_that_cannot_be_opened_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        tuned(tmp_path, "local_lr=0.05,0.1", storage="postgresql://me:s3cretword@127.0.0.1:1/tuning")
    assert "storage: postgresql://127.0.0.1:1/tuning cannot be used" in str(error.value)
    assert "s3cretword" not in str(error.value)


def test_key_of_one_kind_is_proposed_to_that_kind_alone(tmp_path: Path) -> None:
    params = ["algorithm.kind=fedavg,fedprox", "algorithm.mu=log:0.01:1"]
    done = tuned(tmp_path, *params, trials=8, sampler="random")
    kinds = {
        kind: [t for t in done.found.trials if t.values["algorithm.kind"] == kind] for kind in ("fedavg", "fedprox")
    }
    assert all("algorithm.mu" not in trial.values for trial in kinds["fedavg"])
    assert all("algorithm.mu" in trial.values for trial in kinds["fedprox"])
    assert kinds["fedavg"]
    assert kinds["fedprox"]


def test_torn_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    whole = tuned(tmp_path, "local_lr=log:0.001:0.4", trials=2)
    with (tmp_path / "optuna.journal").open("ab") as file:
        file.write(b'{"op_code": 4, "worker_id"')
    again = tuned(tmp_path, "local_lr=log:0.001:0.4", trials=3)
    assert values_of(again)[:2] == values_of(whole)
    assert len(again.found.trials) == 3


def test_loggers_of_optuna_are_as_before(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    tuned(tmp_path, "local_lr=0.05,0.1", sampler="grid")
    assert optuna.logging.get_verbosity() == before
    assert "Trial" not in capfd.readouterr().err
