"""Nodes of one machine take turns: never more at once than allowed, and a turn ends with its holder."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clients.service.turns import TURNS, setting, turn

HOLDER = """
import sys
from clients.service.turns import turn
print("waits", flush=True)
with turn():
    print("has it", flush=True)
    sys.stdin.readline()
"""


def holder(folder: Path, most: int) -> subprocess.Popen[str]:
    env = {**os.environ, TURNS: f"{most}:{folder}", "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    return process


def test_third_waits_until_one_of_two_turns_is_free(tmp_path: Path) -> None:
    first, second = (holder(tmp_path, 2) for _ in range(2))
    for process in (first, second):
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
    third = holder(tmp_path, 2)
    assert third.stdout is not None
    assert not select.select([third.stdout], [], [], 0.5)[0]
    os.kill(first.pid, signal.SIGKILL)
    assert third.stdout.readline() == "has it\n"
    for process in (second, third):
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    first.communicate()


def test_without_the_variable_there_is_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TURNS, raising=False)
    with turn(), turn():
        pass


def test_few_nodes_take_no_turns(tmp_path: Path) -> None:
    assert setting(tmp_path, 4) == {}
    assert setting(tmp_path, 10_000)[TURNS].endswith(f":{tmp_path}")
