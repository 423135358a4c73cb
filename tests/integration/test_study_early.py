"""Studies that drop hopeless arms, really played: what is dropped, what is not, and the same after kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from waiting import eventually

START = [sys.executable, "-m", "simulator.cli", "study"]
RATES = {"good": 0.05, "close": 0.03, "hopeless": 2.2}
"""Of 8 quadratic clients of which 2 are drawn a round: the first two differ by chance, the third diverges."""
RACING = 'kind = "racing"\nseeds = 4'
HALVING = 'kind = "successive_halving"\nseeds = 2'


def study_file(folder: Path, early: str) -> Path:
    scenario = """
[data]
kind = "quadratic"
clients = 8
dimension = 3
condition = 1.0
[model]
kind = "quadratic"
[local]
optimizer = "gd"
local_steps = 3
[algorithm]
kind = "fedavg"
cohort = 2
[convergence]
stop = "never"
[engine]
kind = "plain"
threads = 1
workers = 1
[run]
rounds = 8
"""
    (folder / "noisy.toml").write_text(scenario)
    arms = "".join(f'[[arms]]\nname = "{name}"\n"local.local_lr" = {rate}\n' for name, rate in RATES.items())
    file = folder / "study.toml"
    file.write_text(
        f'scenario = "noisy.toml"\nseeds = 6\n[answer]\nmeasure = "optimality_gap"\n[early]\n{early}\n{arms}'
    )
    return file


def start(study: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a study in a process group of its own."""
    command = [*START, str(study), "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def play(study: Path, out: Path, *more: str) -> pd.DataFrame:
    process = start(study, out, *more)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()
    return pd.read_parquet(out / "study.parquet").drop(columns="seconds")


def states(table: pd.DataFrame) -> dict[str, list[str]]:
    return {arm: list(table[table["arm"] == arm]["state"]) for arm in RATES}


@pytest.fixture(scope="module", params=[RACING, HALVING], ids=["racing", "halving"])
def raced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """The study file, and the table of a study that ran through."""
    folder = tmp_path_factory.mktemp("raced")
    study = study_file(folder, request.param)
    return study, play(study, folder / "out", "--processes", "2")


def test_hopeless_arm_is_dropped_at_the_first_decision(raced: tuple[Path, pd.DataFrame]) -> None:
    study, table = raced
    if "racing" in study.read_text():
        first = 4
        assert states(table)["good"] == states(table)["close"] == ["done"] * 6, "their difference may be chance"
        words = (
            r"stopped early after 4 seeds: hopeless has \S+ times the optimality gap of (good|close) .*, 4 of 4 pairs"
        )
    else:
        first = 2
        words = r"stopped early after 2 seeds: not among the best 2 of 3 by the median of optimality gap"
        both = sorted([states(table)["good"], states(table)["close"]])
        assert both == [["done"] * 6, ["done"] * 4 + ["stopped"] * 2], "halved again after 4 seeds"
    assert states(table)["hopeless"] == ["done"] * first + ["stopped"] * (6 - first)
    stopped = table[(table["arm"] == "hopeless") & (table["state"] == "stopped")]["verdict"]
    assert stopped.str.fullmatch(f"{words}.*").all(), stopped.iloc[0]


def test_page_names_the_dropped_arm(raced: tuple[Path, pd.DataFrame]) -> None:
    study, _ = raced
    assert "hopeless was stopped early (" in (study.parent / "out" / "study.html").read_text()


def test_killed_race_makes_the_same_decisions(raced: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    study, expected = raced
    out = tmp_path / "out"
    for runs in (2, 7):
        process = start(study, out, "--processes", "1")
        eventually(lambda p=process, n=runs: p.poll() is not None or ended(out) >= n, seconds=300, pause=0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the study was over before it was killed"
    assert_frame_equal(play(study, out, "--processes", "2"), expected)


def ended(out: Path) -> int:
    return len(list((out / "rows").glob("*.json")))


def test_shards_of_a_race_wait_for_each_other(raced: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    study, expected = raced
    out = tmp_path / "out"
    both = [start(study, out, "--shard", f"{k}/2", "--processes", "1") for k in (1, 2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    found = pd.read_parquet(out / "study.parquet").drop(columns="seconds")
    assert_frame_equal(found, expected)
