"""A tuning is killed in the middle of trials and started again: its table is that of an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from run_folders import DIGITS
from waiting import eventually

ROOT = Path(__file__).parents[2]
SETS = (*DIGITS[:-1], "run.rounds=20", "run.checkpoint_rounds=2", "evaluation.federated_every=0")


def start(out: Path, *options: str) -> subprocess.Popen[bytes]:
    sets = [word for change in SETS for word in ("--set", change)]
    command = [sys.executable, "-m", "simulator.cli", "tune", "digits-label-skew", *sets, "--out", str(out)]
    command += ["--param", "local_lr=log:0.01:0.5", "--trials", "4", "--seeds", "2", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)


def trials(out: Path) -> list[dict[str, Any]]:
    """Return the trials of a finished tuning without their seconds."""
    found: list[dict[str, Any]] = json.loads((out / "tuning.json").read_text())["trials"]
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in found]


def rounds(out: Path) -> int:
    """Return how many lines the records of a tuning have."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("runs/*/rounds.jsonl"))


def test_killed_tuning_ends_with_the_trials_of_an_uninterrupted_one(tmp_path: Path) -> None:
    assert start(tmp_path / "whole").wait(600) == 0
    killed = tmp_path / "killed"
    for wanted in (10, 90):
        process = start(killed)
        eventually(lambda wanted=wanted: rounds(killed) >= wanted, seconds=300)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(killed).wait(600) == 0
    assert trials(killed) == trials(tmp_path / "whole")
    assert len(trials(killed)) == 4


@pytest.mark.slow
def test_two_processes_play_the_trials_of_one(tmp_path: Path) -> None:
    grid = ("--sampler", "random")
    assert start(tmp_path / "one", *grid).wait(600) == 0
    process = start(tmp_path / "two", *grid, "--processes", "2")
    eventually(lambda: rounds(tmp_path / "two") >= 20, seconds=300)
    process.send_signal(signal.SIGINT)
    assert process.wait(600) == 130
    assert start(tmp_path / "two", *grid, "--processes", "2").wait(600) == 0
    assert trials(tmp_path / "two") == trials(tmp_path / "one")
