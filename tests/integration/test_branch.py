"""A branch without changes has the bits of its run; one with changes keeps the rounds before, and refuses the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import assert_engine_is_named, client_rows, digits, mistake, recorded, stop_after

import fedscape as fs
from clients.core.errors import RunFolderError, ScenarioError, UserError
from server.record.checked.json_files import write_json
from server.record.checked.line_files import read_rounds
from server.record.checkpoint import CheckpointStore
from server.record.records import RunFolder
from simulator.cli.main import main
from simulator.replay.branch import branch
from simulator.runs.record import open_run
from simulator.runs.run import resume, simulate

KEPT = "run.keep_checkpoints_every=3"
PATIENT = ("convergence.stop=any", "convergence.plateau.patience=4", "convergence.plateau.min_delta=0.1")
UNCHANGED = {
    "fedavg": (),
    "scaffold": ("algorithm.kind=scaffold", "algorithm.weighting="),
    "feddyn": ("algorithm.kind=feddyn", "algorithm.weighting="),
    "momentum": ("algorithm.kind=fedavgm",),
    "local momentum": ("local.optimizer=momentum", "local.local_lr=0.02"),
    "adaptive server": ("algorithm.kind=fedadam",),
    "fednova and partial work": ("algorithm.kind=fednova", "local.partial_work=0.5", "local.local_epochs=3"),
    "shared buffers": ("model.norm=batch", "local.drop_last=true", "partition.min_size=16"),
    "local buffers": ("model.norm=batch", "local.buffers=local", "local.drop_last=true", "partition.min_size=16"),
    "faults": ("faults.flips={kind='label_symmetric',severity=0.5,schedule={start=2.0,stop=6.0}}",),
    "drift": ("drifts.turn={kind='incremental',changes='p(y|x)',start=2.0,duration=4.0}",),
    "criteria": (*PATIENT, "run.rounds=60"),
    "curves": ("evaluation.objective_every=2", "evaluation.test_every=3", "run.keep_parameters_every=2"),
}


def unmarked(path: Path) -> list[str]:
    """Return the lines of a branch without the mark of inherited ones."""
    return [line.replace(', "inherited": true', "") for line in recorded(path)]


def assert_unchanged(path: Path, parent: Path) -> None:
    """Assert that a branch without changes has the bits of its run."""
    assert_engine_is_named(path)
    assert unmarked(path) == recorded(parent)
    assert RunFolder(path).model.read_bytes() == RunFolder(parent).model.read_bytes()
    assert RunFolder(path).best_model.read_bytes() == RunFolder(parent).best_model.read_bytes()
    assert list(RunFolder(path).read_certificate().values) == list(RunFolder(parent).read_certificate().values)
    rows, expected = client_rows(path), client_rows(parent)
    assert rows.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_array_equal(rows[name], column, err_msg=name)
    outcomes = [dict(RunFolder(p).read_outcome() or {}) for p in (path, parent)]
    assert all(outcome.pop("record") for outcome in outcomes)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", UNCHANGED)
def test_branch_without_changes_has_the_bits_of_its_run(name: str, tmp_path: Path) -> None:
    simulate(digits(KEPT, *UNCHANGED[name]), out=tmp_path / "run")
    branch(tmp_path / "run", round=3, out=tmp_path / "branch")
    assert_unchanged(tmp_path / "branch", tmp_path / "run")
    assert open_run(tmp_path / "branch").problems == ()


@pytest.mark.parametrize("start", [0, 6, 8])
def test_branch_starts_from_any_kept_round_and_from_the_last_one(start: int, tmp_path: Path) -> None:
    scenario = digits(KEPT, "algorithm.kind=scaffold", "algorithm.weighting=", "run.rounds=10")
    simulate(scenario, out=tmp_path / "whole")
    simulate(digits(KEPT, "algorithm.kind=scaffold", "algorithm.weighting="), out=tmp_path / "run")
    branch(tmp_path / "run", round=start, sets=["run.rounds=10"], out=tmp_path / "branch")
    assert RunFolder(tmp_path / "branch").model.read_bytes() == RunFolder(tmp_path / "whole").model.read_bytes()
    hashes = [open_run(tmp_path / name).rounds["state_hash"].tolist() for name in ("branch", "whole")]
    assert hashes[0] == hashes[1]


def test_branch_of_own_algorithm_and_model_needs_both(tmp_path: Path) -> None:
    def model() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10))

    mine = fs.Algorithm("mine", server=fs.momentum(1.0, beta=0.5))
    simulate(digits(KEPT), model=model, algorithm=mine, out=tmp_path / "run")
    with pytest.raises(RunFolderError, match="was started from Python with its own model and algorithm"):
        branch(tmp_path / "run", round=3, out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    branch(tmp_path / "run", round=3, model=model, algorithm=mine, out=tmp_path / "branch")
    assert_unchanged(tmp_path / "branch", tmp_path / "run")


def test_branch_of_a_branch_has_the_bits_of_the_run(tmp_path: Path) -> None:
    simulate(digits(KEPT), out=tmp_path / "run")
    branch(tmp_path / "run", round=3, out=tmp_path / "one")
    branch(tmp_path / "one", round=6, out=tmp_path / "two")
    assert_unchanged(tmp_path / "two", tmp_path / "run")
    assert [line.get("inherited") for line in read_rounds(RunFolder(tmp_path / "two").rounds)[0]] == [True] * 7 + [
        None
    ] * 2


def test_interrupted_branch_is_resumed(tmp_path: Path) -> None:
    simulate(digits(KEPT, "algorithm.kind=scaffold", "algorithm.weighting="), out=tmp_path / "run")
    branch(tmp_path / "run", round=3, out=tmp_path / "branch", stop_asked=stop_after(2))
    resume(tmp_path / "branch")
    assert_unchanged(tmp_path / "branch", tmp_path / "run")
    events = [(e["round"], e["kind"]) for e in read_rounds(RunFolder(tmp_path / "branch").events)[0]]
    assert events == [(3, "branched"), (5, "resumed")]
    started = json.loads((tmp_path / "branch" / "environment.json").read_text())["run"]
    assert started["branch"]["round"] == 3


def test_branch_without_its_checkpoint_is_not_begun_from_the_start(tmp_path: Path) -> None:
    """Its rounds before are those of another scenario."""
    simulate(digits(KEPT), out=tmp_path / "run")
    branch(tmp_path / "run", round=3, sets=["local.local_lr=0.01"], out=tmp_path / "branch", stop_asked=stop_after(1))
    shutil.rmtree(tmp_path / "branch" / "checkpoint")
    with pytest.raises(RunFolderError, match="is a branch, and its checkpoint is missing"):
        resume(tmp_path / "branch")


def test_branch_that_is_killed_while_its_folder_is_made_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(digits(KEPT), out=tmp_path / "run")

    def killed(self: CheckpointStore, *arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointStore, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        branch(tmp_path / "run", round=3, out=tmp_path / "branch")
    monkeypatch.undo()
    with pytest.raises(RunFolderError):
        resume(tmp_path / "branch")


def test_record_of_a_branch_names_its_run_and_marks_inherited_lines(tmp_path: Path) -> None:
    simulate(digits(KEPT), out=tmp_path / "run")
    run = branch(tmp_path / "run", round=3, sets={"local.local_lr": 0.01}, out=tmp_path / "branch")
    lines = list(run.rounds.lines)
    assert [line.get("inherited", False) for line in lines] == [True] * 4 + [False] * 5
    facts: list[dict[str, Any]] = [json.loads((tmp_path / p / "environment.json").read_text())["run"]
                                   for p in ("branch", "run")]  # fmt: skip
    assert facts[0]["branch"] == {
        "parent": facts[1]["run_id"], "round": 3, "sets": ["local.local_lr=0.01"], "notes": [],
    }  # fmt: skip
    assert facts[0]["run_id"] != facts[1]["run_id"]
    event = read_rounds(RunFolder(tmp_path / "branch").events)[0][0]
    assert event["message"] == f"branched from {facts[1]['run_id']} after round 3, with local.local_lr=0.01"
    before, after = (open_run(tmp_path / p).rounds["state_hash"].tolist() for p in ("run", "branch"))
    assert before[:4] == after[:4]
    assert all(one != other for one, other in zip(before[4:], after[4:], strict=True))
    cohorts = [client_rows(tmp_path / p)["client"].tolist() for p in ("run", "branch")]
    assert cohorts[0] == cohorts[1], "a branch draws the cohorts of its run"


def test_other_algorithm_begins_without_the_states_of_the_one_before(tmp_path: Path) -> None:
    simulate(digits(KEPT, "algorithm.kind=scaffold", "algorithm.weighting="), out=tmp_path / "run")
    branch(tmp_path / "run", round=3, sets=["algorithm.kind=fedavgm"], out=tmp_path / "branch")
    event = read_rounds(RunFolder(tmp_path / "branch").events)[0][0]
    assert event["message"].endswith("; server_variate, client_variate of scaffold begin anew")
    certificate = list(RunFolder(tmp_path / "branch").read_certificate().values)
    names = {name for name in certificate[4]["tensors"] if not name.startswith("parameters")}
    assert names == {"server/momentum"}


def test_scaffold_after_fedavg_has_the_bits_of_scaffold_from_there(tmp_path: Path) -> None:
    """Control variates begin at 0, as in the first round of a run: two branches by two ways have the same bits."""
    simulate(digits(KEPT), out=tmp_path / "fedavg")
    simulate(digits(KEPT, "algorithm.kind=fedavgm"), out=tmp_path / "other")
    sets = ["algorithm.kind=scaffold", "algorithm.weighting="]
    branch(tmp_path / "fedavg", round=0, sets=sets, out=tmp_path / "one")
    branch(tmp_path / "other", round=0, sets=sets, out=tmp_path / "two")
    simulate(digits(KEPT, *sets), out=tmp_path / "scaffold")
    models = [RunFolder(tmp_path / name).model.read_bytes() for name in ("one", "two", "scaffold")]
    assert models[0] == models[1] == models[2]


@pytest.mark.parametrize(
    "change",
    [
        "faults.later={kind='label_symmetric',severity=0.5,schedule={start=5.0}}",
        "drifts.later={kind='abrupt',start=5.0}",
        "algorithm.cohort=6",
        "local.local_epochs=2",
        "local.optimizer=adam",
        "convergence.stop=any",
        "evaluation.federated_every=1",
        "engine.tile=2",
        "fleet.bytes_per_second_up=100",
    ],
)
def test_change_that_can_apply_later_is_played(change: str, tmp_path: Path) -> None:
    simulate(digits(KEPT), out=tmp_path / "run")
    run = branch(tmp_path / "run", round=3, sets=[change], out=tmp_path / "branch")
    assert run.verdict.outcome in ("stopped", "converged")
    assert len(run.rounds) == 9
    assert unmarked(tmp_path / "branch")[:4] == recorded(tmp_path / "run")[:4]
    hashes = [open_run(tmp_path / name).rounds["state_hash"].tolist() for name in ("branch", "run")]
    if change.startswith(("faults", "drifts", "conv", "eval", "fleet")):
        assert hashes[0][4] == hashes[1][4]
    elif not change.startswith("engine"):
        assert hashes[0][4] != hashes[1][4]


def test_fault_of_the_run_can_end_later(tmp_path: Path) -> None:
    fault = "faults.flips={kind='label_symmetric',severity=0.5}"
    simulate(digits(KEPT, fault), out=tmp_path / "run")
    run = branch(tmp_path / "run", round=3, sets=["faults.flips.schedule.stop=5"], out=tmp_path / "branch")
    changed = run.rounds["faults.flips.changed"]
    assert (changed[1:5] > 0).all()
    assert not np.nan_to_num(changed[5:]).any()


LATE = "cannot change after round 3"
ACTIVE = f"{LATE}: it is active before, or follows the world's clock."
REFUSED = {
    "data.test_fraction=0.3": f"data.test_fraction: {LATE}: the rounds before were played on other data. Run it",
    "partition.clients=9": f"partition.clients: {LATE}: the rounds before were played with other clients. Run it",
    "partition.kind=iid": f"partition.kind: {LATE}",
    "model.hidden=[8]": f"model.hidden: {LATE}: the parameters of a round belong to one model. Run it",
    "features.bins=8": f"features.bins: {LATE}",
    "run.seed=5": f"run.seed: {LATE}: the rounds before drew other random numbers. Run it from the start",
    "run.dtype=float64": f"run.dtype: {LATE}",
    "run.rounds=3": "run.rounds: must be more than 3, the round that the branch starts from, got 3. Set run.rounds=13",
    "faults.flips.severity=0.9": f"faults.flips: {ACTIVE} End it (faults.flips.schedule.stop=4), and add another one",
    "faults.flips=": f"faults.flips: {LATE}",
    "faults.flips.schedule.start=5": f"faults.flips: {LATE}",
    "faults.new.kind=label_pair_flip": f"faults.new: {ACTIVE} Let it start later, in rounds: "
    "faults.new.schedule.start=4.",
    "drifts.turn={kind='abrupt',start=3.0}": f"drifts.turn: {ACTIVE} Let it start later, in rounds: "
    "drifts.turn.start=4.",
    "local.local_lrr=1": "local.local_lrr: 'local_lrr' is not a key of [local]",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with a fault from the start on, and checkpoints of rounds 0, 3, 6 and 8."""
    path = tmp_path_factory.mktemp("runs") / "run"
    simulate(digits(KEPT, "faults.flips={kind='label_symmetric',severity=0.5}"), out=path)
    return path


@pytest.mark.parametrize("change", REFUSED)
def test_change_that_cannot_apply_later_is_refused(change: str, faulty: Path, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as refused:
        branch(faulty, round=3, sets=[change], out=tmp_path / "branch")
    assert str(refused.value).startswith(REFUSED[change])
    assert not (tmp_path / "branch").exists()


def test_round_without_a_checkpoint_names_those_that_there_are(faulty: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        branch(faulty, round=4, out=tmp_path / "branch")
    assert str(refused.value) == (
        "round: 4 has no checkpoint. Rounds that have one: 0, 3, 6, 8. run.keep_checkpoints_every = k keeps those of "
        "every k rounds."
    )


def test_run_on_nodes_cannot_be_branched(faulty: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(faulty, copy)
    facts = json.loads((copy / "environment.json").read_text())
    del facts["checksum"]
    facts["run"]["from_python"] = ["grid"]
    write_json(copy / "environment.json", facts)
    with pytest.raises(RunFolderError, match="had its clients on nodes, whose states are not in its checkpoints"):
        branch(copy, round=3, out=tmp_path / "branch")


def test_parent_is_unchanged_by_its_branches(faulty: Path, tmp_path: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(faulty.rglob("*")) if path.is_file()}

    before = contents()
    branch(faulty, round=3, sets=["local.local_lr=0.01"], out=tmp_path / "branch")
    assert contents() == before


def test_full_disk_costs_checkpoints_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=10_000))
    run = simulate(digits(KEPT), out=tmp_path / "run")
    assert run.verdict.outcome == "stopped"
    events = [
        e["round"] for e in read_rounds(RunFolder(tmp_path / "run").events)[0] if e["kind"] == "checkpoints_not_kept"
    ]
    assert events == [0]
    assert RunFolder(tmp_path / "run").kept_checkpoints.rounds() == []


def test_resumed_run_keeps_the_checkpoints_of_the_uninterrupted_one(tmp_path: Path) -> None:
    scenario = digits(KEPT, "algorithm.kind=scaffold", "algorithm.weighting=", "run.checkpoint_rounds=4")
    simulate(scenario, out=tmp_path / "cut", stop_asked=stop_after(7))
    folder = RunFolder(tmp_path / "cut")
    folder.kept_checkpoints.truncate(5)
    resume(tmp_path / "cut")
    assert folder.kept_checkpoints.rounds() == [0, 3]
    branch(tmp_path / "cut", round=3, out=tmp_path / "branch")
    assert unmarked(tmp_path / "branch") == recorded(tmp_path / "cut")


def test_branch_on_the_command_line(faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "branch"
    assert main(["branch", str(faulty), "--round", "6", "--set", "local.local_lr=0.01", "--out", str(out)]) == 0
    assert "after round 6, with local.local_lr=0.01" in capsys.readouterr().out
    assert len(open_run(out).rounds) == 9
    message = mistake(capsys, "branch", str(faulty), "--round", "5", "--out", str(tmp_path / "no"))
    assert message.startswith("round: 5 has no checkpoint.")
