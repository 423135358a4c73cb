"""A real run is killed repeatedly, at random and at chosen moments, and resumed until it is over.

Run as a script, this file is the process that is killed. It imports everything once; for each line it reads, it forks
a process that runs `fedscape run` or `fedscape resume`. So a kill costs a quarter of a second instead of an import of
torch. To die at a chosen moment, a process kills itself in an audit hook just before a system call.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from simulator.cli.main import main

ALGORITHMS = {"fedavg": [], "scaffold": ["algorithm.kind=scaffold", "algorithm.weighting="]}
ROUNDS = 90
SETS = ["run.checkpoint_rounds=2", f"run.rounds={ROUNDS}", "evaluation.federated_every=5"]

RECORD_AHEAD = ("open", "checkpoint/.state-")
"""The round is recorded and on the disk, and its checkpoint has not begun."""
MOMENTS = [
    RECORD_AHEAD,
    ("os.rename", "rounds.jsonl"),  # the resumed run takes the record back to the checkpoint
    ("os.rename", "checkpoint/state-"),
    ("open", "checkpoint/.manifest.previous"),
    ("os.rename", "checkpoint/manifest.previous"),
    ("os.rename", "checkpoint/manifest.json"),
    ("os.remove", "checkpoint/state-"),
    ("open", "clients/.part-"),
    ("os.rename", "clients/part-"),
]
CLIENT_MOMENTS = [("open", "checkpoint/.clients-"), ("os.rename", "checkpoint/clients-")]
"""Moments that only algorithms with client states reach: SCAFFOLD's run is killed at every moment of FedAvg's, too."""
LAST_MOMENTS = [("os.rename", "model.safetensors"), ("os.rename", "outcome.json")]
ENDING_MOMENTS = [
    ("os.rename", "partition.json"),
    ("os.rename", "environment.json"),
    ("os.rename", "clients/part-"),
    ("os.rename", "checkpoint/manifest.json"),
    ("os.rename", "model.safetensors"),
    ("os.rename", "load_model.py"),
    ("os.rename", "outcome.json"),
    ("os.rename", "report.html"),
]
"""Every file that a run without a checkpoint before its end writes after its scenario."""
RANDOM_KILLS = 6
AT_LATEST = (*RECORD_AHEAD, 3)
"""The latest moment of a random kill: the process kills itself here if the kill is late on a busy machine."""


def die_at(event: str, target: str, count: int) -> None:
    """Kill this process just before the `count`-th call `event` on a file that starts as `target` in the run's folder.

    The target of a rename is the new name.
    """
    left = count

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if name != event:
            return
        path = str(arguments[1 if event == "os.rename" else 0])
        if f"/run/{target}" in path and (event != "open" or "w" in (arguments[1] or "")):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def zygote() -> None:
    import sklearn.datasets  # noqa: F401
    import torch
    import torch._dynamo  # torch imports it with its first optimizer, which takes seconds

    import simulator.cli.console
    import simulator.runs.run  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            if request["die"]:
                die_at(*request["die"])
            os._exit(main(request["command"]))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Player:
    """Runs commands in forked processes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, command: list[str], die: tuple[str, str, int] | None = None) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, "die": die}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def exit_code(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@contextmanager
def player() -> Iterator[Player]:
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Player(process)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def lines_of(folder: Path) -> int:
    file = folder / "rounds.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def command_for(folder: Path, scenario: Path) -> list[str]:
    """Return the command to continue with: `run` while the folder has no scenario yet, `resume` afterwards."""
    if (folder / "scenario.toml").exists():
        return ["resume", str(folder)]
    shutil.rmtree(folder, ignore_errors=True)
    return ["run", str(scenario), "--out", str(folder)]


def kill_at_random(play: Player, command: list[str], folder: Path, draw: random.Random) -> None:
    """Kill a process soon after its start, or some rounds into it."""
    child = play.start(command, die=AT_LATEST)
    if draw.random() < 0.6:
        patience, before, rounds = time.monotonic() + 60, lines_of(folder), draw.randint(1, 5)
        while not 0 < lines_of(folder) - before >= rounds and time.monotonic() < patience:
            before = min(before, lines_of(folder))  # the resumed run cuts the record first
            time.sleep(0.0005)
    time.sleep(draw.uniform(0.0, 0.02))
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    assert play.exit_code() == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("algorithm", [pytest.param("fedavg", marks=pytest.mark.slow), "scaffold"])
def test_run_killed_repeatedly_ends_as_the_uninterrupted_run(algorithm: str, tmp_path: Path) -> None:
    from run_folders import assert_same_run, digits

    from simulator.scenario.sections import to_toml

    draw = random.Random(f"{algorithm} 7")
    scenario, folder = tmp_path / "kill.toml", tmp_path / "run"
    scenario.write_text(to_toml(digits(*SETS, *ALGORITHMS[algorithm])))
    with player() as play:
        play.start(["run", str(scenario), "--out", str(tmp_path / "whole")])
        assert play.exit_code() == 0

        moments = [(*m, draw.randint(1, 3)) for m in MOMENTS[2:] + (CLIENT_MOMENTS if algorithm == "scaffold" else [])]
        draw.shuffle(moments)
        moments = [(*RECORD_AHEAD, 2), ("os.rename", "rounds.jsonl", 1), *moments]
        kills = 0
        for moment in moments:
            play.start(command_for(folder, scenario), die=moment)
            assert play.exit_code() == -signal.SIGKILL, f"the run never reached {moment}"
            kills += 1
        for _ in range(RANDOM_KILLS):
            kill_at_random(play, command_for(folder, scenario), folder, draw)
            kills += 1
        assert lines_of(folder) < ROUNDS, "the run ended before it was killed often enough"
        for event, target in LAST_MOMENTS:
            play.start(command_for(folder, scenario), die=(event, target, 1))
            assert play.exit_code() == -signal.SIGKILL
            kills += 1
        play.start(command_for(folder, scenario))
        assert play.exit_code() == 0
    assert kills >= 16
    assert_same_run(folder, tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_run_killed_before_any_of_its_last_files_ends_as_the_uninterrupted_run(tmp_path: Path) -> None:
    """The run converges at round 16. A resumed run must not play round 17."""
    from run_folders import assert_same_run

    # A run without environment.json chooses anew what is not named here.
    sets = [
        "run.checkpoint_seconds=1e6",
        "engine.kind=stacked",
        "engine.tile=2",
        "engine.compile=never",
        "engine.threads=1",
        "engine.workers=1",
    ]
    command = ["run", "quadratic-two-clients", *(word for key in sets for word in ("--set", key)), "--out"]
    with player() as play:
        play.start([*command, str(tmp_path / "whole")])
        assert play.exit_code() == 0
        for event, target in ENDING_MOMENTS:
            folder = tmp_path / target.replace("/", " ") / "run"
            play.start([*command, str(folder)], die=(event, target, 1))
            assert play.exit_code() == -signal.SIGKILL, f"the run never reached {target}"
            play.start(["resume", str(folder)])
            assert play.exit_code() == 0, target
            assert_same_run(folder, tmp_path / "whole")
            made = {path.name for path in (tmp_path / "whole").iterdir()}
            assert {path.name for path in folder.iterdir() if not path.name.endswith(".tmp")} == made, target


if __name__ == "__main__":
    zygote()
