"""Studies and tunings whose data files change: their runs are identified by what the files hold."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.core.errors import RunFolderError, UserError
from simulator.runs.run import Run, resume, simulate
from simulator.scenario.sections import to_toml
from simulator.studies.arms import make_arms, version
from simulator.studies.folder import StudyFolder
from simulator.studies.job import play_job
from simulator.studies.processes.messages import Job
from simulator.studies.reading import read_study
from simulator.studies.study import Study, open_study
from simulator.tuning.tune import tune
from simulator.tuning.tuned_study import study


def write_table(file: Path, seed: int = 0) -> None:
    """Write labelled rows; the size of the file does not depend on the seed."""
    x = np.random.default_rng(seed).uniform(1, 9, (60, 2))
    file.write_text("a,b,y\n" + "\n".join(f"{a:.4f},{b:.4f},{'uv'[int(a > b)]}" for a, b in x) + "\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    write_table(path)
    return path


def scenario_of(file: Path) -> dict[str, Any]:
    return {
        "data": {"kind": "table", "path": str(file), "task": "classification", "target": "y"},
        "partition": {"kind": "iid", "clients": 3}, "model": {"kind": "softmax"},
        "evaluation": {"baselines": False}, "convergence": {"stop": "never"},
        "engine": {"kind": "plain", "workers": 1, "threads": 1}, "run": {"rounds": 2},
    }  # fmt: skip


def played(file: Path, out: Path, **more: Any) -> Study:
    factors = {"local.local_lr": [0.1, 0.5]}
    return study(scenario_of(file), factors=factors, seeds=1, out=out, processes=1, **more)


def losses(found: Study) -> list[float]:
    return found.table()["validation_loss"].tolist()


def test_changed_data_are_played_again_and_named(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = played(file, tmp_path / "out")
    first, kept = losses(before), {path.name for path in (before.path / "runs").iterdir()}
    assert not caplog.records
    write_table(file, seed=1)
    now = played(file, tmp_path / "out")
    assert losses(now) != first
    assert kept < {path.name for path in (now.path / "runs").iterdir()}, "the runs before are kept"
    (record,) = caplog.records
    assert record.getMessage() == (
        f"fedscape: {file} has changed since this study's runs were played: "
        "runs with them are played again, and the runs before stay in runs/"
    )
    caplog.clear()
    write_table(file)
    back = played(file, tmp_path / "out")
    assert losses(back) == first
    assert {run.key for run in back.plan.runs} == kept, "runs with the former contents are found again"


def test_results_are_read_without_the_data(file: Path, tmp_path: Path) -> None:
    found = losses(played(file, tmp_path / "out"))
    write_table(file, seed=1)
    assert losses(open_study(tmp_path / "out")) == found
    file.unlink()
    assert losses(open_study(tmp_path / "out")) == found
    assert losses(study(tmp_path / "out", processes=1)) == found


def test_shard_with_other_data_is_refused(file: Path, tmp_path: Path) -> None:
    played(file, tmp_path / "out", shard="1/2")
    write_table(file, seed=1)
    with pytest.raises(RunFolderError, match=r"has runs with other data: .*rows\.csv has changed\. Restore the data"):
        played(file, tmp_path / "out", shard="2/2")
    write_table(file)
    assert played(file, tmp_path / "out", shard="2/2").complete


def test_data_that_change_while_a_study_runs_fail_the_runs_that_are_left(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = played(file, out)
    write_table(file, seed=1)
    run = found.plan.runs[1]
    (out / "rows" / f"{run.key}.json").unlink()
    (out / "runs" / run.key / "outcome.json").unlink()
    job = Job(run.key, to_toml(run.arm.of(run.seed)), data=run.arm.data)
    row = play_job(StudyFolder(out), job, observer=object(), stop_asked=lambda: False)
    assert row["state"] == "failed"
    assert "holds other data than when the study began" in row["error"]


def test_runs_of_a_version_without_a_look_into_files_are_played_again(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = played(file, tmp_path / "out")
    arm = found.plan.arms[0]
    row = StudyFolder(found.path).read_row(arm.key(0))
    assert row is not None
    StudyFolder(found.path).write_row(make_arms(found.plan.options, lambda scenario: "")[0].key(0), row)
    (found.path / "data.json").unlink()
    played(file, tmp_path / "out")
    assert [r.getMessage() for r in caplog.records] == [
        f"fedscape: an earlier version played runs without a look into {file}: "
        "runs with them are played again, and the runs before stay in runs/"
    ]


def test_identity_of_data_without_files_is_that_of_earlier_versions() -> None:
    (arm,) = make_arms(read_study("digits-iid"))
    before, after = arm._texts
    text = f"{version()}\n7\n{before}\n{after}"
    assert arm.key(7) == hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def test_tuning_does_not_go_on_with_other_data(file: Path, tmp_path: Path) -> None:
    def go(trials: int) -> int:
        done = tune(scenario_of(file), ["local.local_lr=0.1,0.5,1.0"], trials=trials, seeds=1, out=tmp_path / "out",
                    sampler="random")  # fmt: skip
        return len(done.found.trials)

    assert go(1) == 1
    write_table(file, seed=1)
    with pytest.raises(UserError, match=r"data: are not those of the study 'out': .*rows\.csv has changed\. Restore"):
        go(2)
    write_table(file)
    assert go(2) == 2


def interrupted(file: Path, out: Path) -> Run:
    """Play a round of two, and stop."""
    scenario = scenario_of(file)
    scenario["run"] = {"rounds": 4, "checkpoint_rounds": 1, "keep_checkpoints_every": 1}
    seen: list[int] = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) >= 2

    run = simulate(scenario, out=out, stop_asked=stop)
    assert run.verdict.outcome == "interrupted"
    return run


def test_run_does_not_go_on_with_other_data(file: Path, tmp_path: Path) -> None:
    from simulator.replay.branch import branch

    out = tmp_path / "run"
    interrupted(file, out)
    write_table(file, seed=1)
    refused = r"was played with other data: .*rows\.csv has changed\. Restore the data, or run it as another run"
    with pytest.raises(RunFolderError, match=refused):
        resume(out)
    with pytest.raises(RunFolderError, match=refused):
        branch(out, round=1, sets=["local.local_lr=0.2"], out=tmp_path / "branch")
    assert not (tmp_path / "branch").exists()
    write_table(file)
    branched = branch(out, round=1, sets=["local.local_lr=0.2"], out=tmp_path / "branch")
    assert branched.verdict.outcome != "interrupted"
    assert resume(out).verdict.outcome != "interrupted"


def test_verify_and_bisect_name_changed_data(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from simulator.replay.bisect import bisect
    from simulator.replay.verify import verify

    caplog.set_level(logging.ERROR)
    simulate(scenario_of(file), out=tmp_path / "a")
    file.write_text(file.read_text().rstrip("\n"))
    same = verify(tmp_path / "a")
    assert str(same) == f"equal: rounds 0 to 2 have the same bits; {file} has changed since, without an effect"
    write_table(file, seed=1)
    other = verify(tmp_path / "a")
    assert other.result == "different"
    assert f"({file} has changed since the run was played: restore the data to verify it" in str(other)
    simulate(scenario_of(file), out=tmp_path / "b")
    found = bisect(tmp_path / "a", tmp_path / "b", replay=False)
    assert f"{file} has changed between the runs" in found.environment
