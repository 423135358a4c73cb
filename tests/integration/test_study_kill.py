"""A study is killed again and again, and ends with the table of one that was not; two shards make one table."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from waiting import eventually

from simulator.studies.folder import StudyFolder
from simulator.studies.study import open_study

STUDY = """
title = "Killed and resumed"
scenario = "digits-label-skew"
seeds = 2
[set]
"partition.clients" = 10
"model.hidden" = [8]
"local.local_epochs" = 1
"algorithm.cohort" = 4
"evaluation.baselines" = false
"evaluation.federated_every" = 0
"convergence.stop" = "never"
"convergence.target" = { metric = "validation_accuracy", at_least = 0.5 }
"run.rounds" = 40
"run.checkpoint_rounds" = 3
"engine.kind" = "stacked"
"engine.tile" = 4
"engine.threads" = 1
"engine.compile" = "never"
[factors]
"algorithm.kind" = ["fedavg", "scaffold"]
"""
RUNS = 4
START = [sys.executable, "-m", "simulator.cli", "study"]


def start(study: Path, out: Path, *more: str, processes: int = 2) -> subprocess.Popen[bytes]:
    """Start a study in a process group of its own."""
    command = [*START, str(study), "--out", str(out), "--processes", str(processes), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def play(study: Path, out: Path) -> None:
    """Play a study to its end, in one process: what is tested happened before."""
    process = start(study, out, processes=1)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()


def table(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "study.parquet").drop(columns="seconds")


def rounds_recorded(out: Path) -> int:
    """Return the recorded rounds of all runs."""
    return sum(file.read_bytes().count(b"\n") for file in (out / "runs").glob("*/rounds.jsonl"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """The study file, and the table of a study that ran through."""
    folder = tmp_path_factory.mktemp("whole")
    study = folder / "study.toml"
    study.write_text(STUDY)
    play(study, folder / "out")
    found = table(folder / "out")
    assert list(found["state"]) == ["done"] * RUNS
    assert found["test_accuracy"].nunique() > 1
    return study, found


@pytest.mark.parametrize("kills", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_killed_study_ends_with_the_table_of_an_uninterrupted_one(
    whole: tuple[Path, pd.DataFrame], kills: int, tmp_path: Path
) -> None:
    study, expected = whole
    out, draws = tmp_path / "out", random.Random(7)
    for kill in range(kills):
        process, before = start(study, out), rounds_recorded(out)
        step = draws.randint(1, 25)
        enough = before + step
        eventually(
            lambda p=process, n=enough: p.poll() is not None or rounds_recorded(out) >= n, seconds=300, pause=0.01
        )
        time.sleep(draws.random() * 0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        may_be_over = kill > 0 and kill >= kills - 3
        assert may_be_over or process.returncode == -signal.SIGKILL, "the study was over before it was killed"
    played = {key: os.stat(out / "runs" / key / "outcome.json").st_mtime_ns for key in finished(out)}
    play(study, out)
    assert_frame_equal(table(out), expected)
    again = {key: os.stat(out / "runs" / key / "outcome.json").st_mtime_ns for key in played}
    assert again == played, "a finished run was played again"


def finished(out: Path) -> list[str]:
    folder = StudyFolder(out)
    return [f.stem for f in (out / "rows").glob("*.json") if (folder.read_row(f.stem) or {}).get("state") == "done"]


def test_two_shards_at_once_make_the_table_of_one(whole: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    study, expected = whole
    out = tmp_path / "out"
    both = [start(study, out, "--shard", f"{k}/2", processes=1) for k in (1, 2)]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()
    assert_frame_equal(table(out), expected)


@pytest.mark.slow
def test_two_processes_on_one_folder_share_the_runs(whole: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    study, expected = whole
    out = tmp_path / "out"
    both = [start(study, out) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()
    assert_frame_equal(table(out), expected)
    events = [line for file in (out / "runs").glob("*/events.jsonl") for line in file.read_text().splitlines()]
    assert not [line for line in events if "resumed" in line], "a run was played by two processes"


def test_ctrl_c_keeps_checkpoints_and_the_study_goes_on(whole: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    study, expected = whole
    out = tmp_path / "out"
    process = start(study, out)
    eventually(lambda: rounds_recorded(out) > 10, seconds=300, pause=0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes of the study get it
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors.decode()
    assert "Traceback" not in errors.decode()
    left = open_study(out)
    assert not left.complete
    play(out, out)
    assert_frame_equal(table(out), expected)


def test_lost_process_is_a_failed_run_and_the_others_go_on(whole: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    study, expected = whole
    out = tmp_path / "out"
    process = start(study, out)
    eventually(lambda: rounds_recorded(out) > 5, seconds=300, pause=0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    process.communicate(timeout=600)
    assert process.returncode == 1
    found = pd.read_parquet(out / "study.parquet")
    assert sorted(found["state"]) == ["done"] * (RUNS - 1) + ["failed"]
    assert "was killed by SIGKILL" in found[found["state"] == "failed"]["verdict"].item()
    play(study, out)
    assert_frame_equal(table(out), expected)
