"""Ctrl-C in a real process: the first finishes the round, the second stops at once; both runs can be resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_folders import assert_same_run, digits, recorded, stop_after
from waiting import eventually

from server.record.records import RunFolder
from simulator.cli.exit_codes import EXIT_INTERRUPTED
from simulator.cli.study.interrupting import two_step_interrupt
from simulator.runs.run import resume, simulate
from simulator.scenario.sections import Scenario, to_toml

PATIENCE = 60.0


@contextmanager
def running(folder: Path, scenario: Scenario) -> Iterator[subprocess.Popen[str]]:
    """Start `fedscape run` in a separate process and wait until it has recorded two rounds."""
    file = folder.with_suffix(".toml")
    file.write_text(to_toml(scenario))
    command = [sys.executable, "-m", "simulator.cli", "run", str(file), "--out", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        wait_for_lines(folder, 3)
        yield process
        process.kill()


def wait_for_lines(folder: Path, count: int) -> None:
    rounds = RunFolder(folder).rounds
    eventually(lambda: rounds.exists() and rounds.read_bytes().count(b"\n") >= count, seconds=PATIENCE, pause=0.002)


def wait_for_checkpoint(folder: Path, round_index: int) -> None:
    """Wait until the checkpoint of a round is committed; by then the next round is training."""
    manifest = RunFolder(folder).checkpoint / "manifest.json"
    eventually(
        lambda: manifest.exists() and json.loads(manifest.read_text())["round_index"] >= round_index,
        seconds=PATIENCE, pause=0.002,
    )  # fmt: skip


def assert_resumes_exactly(folder: Path, scenario: Scenario, more: int) -> None:
    """Resume for a few rounds, and compare with a run that was not interrupted before."""
    run = resume(folder, stop_asked=stop_after(more))
    last = run.verdict.round_index
    simulate(scenario, out=folder.with_name("whole"), stop_asked=stop_after(last))
    assert_same_run(folder, folder.with_name("whole"))


def test_first_ctrl_c_finishes_the_round_and_keeps_a_checkpoint(tmp_path: Path) -> None:
    scenario, folder = digits("run.rounds=100000"), tmp_path / "run"
    with running(folder, scenario) as process:
        os.kill(process.pid, signal.SIGINT)
        _, printed = process.communicate(timeout=PATIENCE)
        assert process.returncode == EXIT_INTERRUPTED
    assert "finishing this round, then stopping" in printed
    assert "Traceback" not in printed
    outcome = RunFolder(folder).read_outcome()
    assert outcome is not None
    assert outcome["outcome"] == "interrupted"
    assert outcome["round"] == len(recorded(folder)) - 1
    assert RunFolder(folder).model.exists()
    assert_resumes_exactly(folder, scenario, 2)


def test_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    scenario = digits("run.rounds=100000", "local.local_epochs=200", "run.checkpoint_rounds=1")
    folder = tmp_path / "run"
    with running(folder, scenario) as process:
        assert process.stderr is not None
        wait_for_checkpoint(folder, 2)
        os.kill(process.pid, signal.SIGINT)
        while "Ctrl-C again stops at once" not in process.stderr.readline():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        _, printed = process.communicate(timeout=PATIENCE)
        assert process.returncode == EXIT_INTERRUPTED
    assert "interrupted; the record is kept" in printed
    assert "Traceback" not in printed
    assert RunFolder(folder).read_outcome() is None, "the run finished before the second Ctrl-C"
    assert_resumes_exactly(folder, scenario, 1)


def test_second_ctrl_c_in_a_destructor_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            sum(range(10))  # the handler runs here

    def interrupt_twice(stop_asked: Callable[[], bool]) -> None:
        signal.raise_signal(signal.SIGINT)
        assert stop_asked()
        Interrupted()
        time.sleep(PATIENCE)

    with two_step_interrupt() as stop_asked, pytest.raises(KeyboardInterrupt):
        interrupt_twice(stop_asked)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_run_resumes(tmp_path: Path) -> None:
    scenario, folder = digits("run.rounds=100000", "run.checkpoint_rounds=3"), tmp_path / "run"
    with running(folder, scenario) as process:
        wait_for_lines(folder, 8)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL
    assert_resumes_exactly(folder, scenario, 4)
