"""Two real processes on one run's folder: the second is refused, and a killed process leaves no lock."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import assert_same_run

from simulator.cli.exit_codes import EXIT_MISTAKE, EXIT_OK
from simulator.runs.run import simulate

ENGINE = "engine={kind=stacked, tile=2, compile=never, threads=1, workers=1}"
SCENARIO = ["quadratic-two-clients", "run.checkpoint_rounds=1", ENGINE]
WAITS = """
import sys
import fedscape as fs

class Waits:
    def round_finished(self, line):
        if line["round"] == 4:
            print("waiting", flush=True)
            sys.stdin.readline()

scenario = fs.load_scenario(sys.argv[1], sets=sys.argv[2:-1])
fs.simulate(scenario, out=sys.argv[-1], observers=[Waits()])
"""
RESUME = "import sys; from simulator.cli.main import main; sys.exit(main(['resume', sys.argv[1]]))"


def resumed(run: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", RESUME, str(run)], capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="folders are locked on POSIX systems only")
def test_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    from simulator.scenario.sections import load_scenario

    simulate(load_scenario(SCENARIO[0], sets=SCENARIO[1:]), out=tmp_path / "whole")
    run = tmp_path / "run"
    command = [sys.executable, "-c", WAITS, *SCENARIO, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "waiting\n"
        before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
        refused = resumed(run)
        assert refused.returncode == EXIT_MISTAKE
        assert "is still running: another process writes its record" in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
        first.send_signal(signal.SIGKILL)
    done = resumed(run)
    assert done.returncode == EXIT_OK, done.stderr
    assert_same_run(run, tmp_path / "whole")
