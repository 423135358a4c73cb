"""The supervisor ends all processes below it, those that left their session and those whose parent is gone included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flower_processes import processes_naming
from waiting import eventually

from clients.core.errors import FedscapeError
from simulator.federate.processes import Processes, last_lines
from simulator.federate.supervisor import descendants

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

ORPHAN = "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True)\n"
"""A process that leaves another one behind, in a session of its own."""


def marked(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "MARK": str(tmp_path)}


def test_all_processes_end_with_the_context(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    with Processes("sleep") as processes:
        processes.remove_at_end(private)
        processes.start("orphan", [sys.executable, "-c", ORPHAN], env=marked(tmp_path), log=tmp_path / "log")
        eventually(lambda: processes.poll(0.1) or "orphan" in processes.ended)
        eventually(lambda: processes.poll(0.1) or processes.watched)
        assert processes.ended["orphan"].code == 0
        assert processes.watched == [pid for pid, command in processes_naming(tmp_path).items() if "sleep" in command]
        assert set(processes.watched) <= set(descendants(processes.supervisor))
    assert processes_naming(tmp_path) == {}
    assert not private.exists()


@pytest.mark.parametrize("victim", ["parent", "supervisor"])
def test_kill_of_a_process_above_ends_those_below(tmp_path: Path, victim: str) -> None:
    code = f"""
import os, sys
from pathlib import Path
from simulator.federate.processes import Processes
with Processes("sleep") as processes:
    env = {{**os.environ, "MARK": {str(tmp_path)!r}}}
    processes.start("sleep", ["sleep", "600"], env=env, log=Path({str(tmp_path / "log")!r}))
    while not processes.watched:
        processes.poll(0.1)
    print(processes.supervisor, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        supervisor = int(parent.stdout.readline())
        assert [command for command in processes_naming(f"MARK={tmp_path}").values() if "sleep 600" in command]
        os.kill(parent.pid if victim == "parent" else supervisor, signal.SIGKILL)
        eventually(lambda: not processes_naming(f"MARK={tmp_path}"), seconds=10.0)
        parent.kill()


def test_killed_supervisor_is_an_error(tmp_path: Path) -> None:
    with Processes("sleep") as processes:
        processes.poll(5.0)
        os.kill(processes.supervisor, signal.SIGKILL)
        with pytest.raises(FedscapeError, match="the supervisor of the federation's processes was killed"):
            eventually(lambda: processes.poll(0.1))


def test_end_of_a_process_is_told_with_its_last_words(tmp_path: Path) -> None:
    code = (
        "print('INFO: bye'); print('\\033[91mERROR\\033[0m: no disk'); print('For more information, visit: x'); exit(3)"
    )
    with Processes("sleep") as processes:
        processes.start("one", [sys.executable, "-c", code], env=dict(os.environ), log=tmp_path / "one.log")
        processes.start("two", ["/no/such/program"], env=dict(os.environ), log=tmp_path / "two.log")
        eventually(lambda: processes.poll(0.1) or len(processes.ended) == 2)
    assert (
        processes.ended["one"].words == f"ended with code 3; its log {tmp_path / 'one.log'} ends with: ERROR: no disk"
    )
    assert "/no/such/program: No such file or directory" in processes.ended["two"].words


def test_missing_log_has_no_last_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "no.log") == ""
