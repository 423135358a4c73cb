"""The command as a process: what it imports, and how it ends after a closed output or Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMAND = f"{sys.executable} -m simulator.cli"
SHORT = (
    "run --set run.rounds=3 --set convergence.stop=never"
    " --set engine.kind=stacked --set engine.tile=20 --set engine.threads=1 --set engine.workers=1"
)
HEAVY = (
    "torch", "flwr", "sklearn", "pyarrow", "scipy", "matplotlib", "starlette", "httpx", "numpy", "pydantic",
)  # fmt: skip
READS_A_SCENARIO = {"show": ("numpy",)}
"""Commands that read a scenario, and the libraries that reading one takes."""

needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell; $F is the command."""
    return subprocess.run(
        ["sh", "-c", line], env={**os.environ, "F": COMMAND, **environment}, cwd=ROOT, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments", ["--help", "run --help", "--version", "scenarios", "nonsense", "run --rounds 3", "show"]
)
def test_light_command_imports_no_heavy_library(arguments: str) -> None:
    heavy = [library for library in HEAVY if library not in READS_A_SCENARIO.get(arguments, ())]
    code = (
        "import sys; from simulator.cli.main import main; main(sys.argv[1:]);"
        f"sys.exit(str([m for m in {heavy} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_module_runs_the_command() -> None:
    done = shell(f"{sys.executable} -m simulator.cli --version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fedscape ")


@needs_posix
@pytest.mark.parametrize("arguments", ["show", "scenarios", "--help", "dashboards list"])
def test_closed_pipe_ends_a_command_quietly(arguments: str) -> None:
    done = shell(f"{{ $F {arguments}; echo $? >&2; }} | true")
    assert done.stderr == "0\n"


@needs_posix
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_change_the_exit_code(closed: str) -> None:
    assert shell(f"$F show {closed}").returncode == 0
    assert shell(f"$F nonsense {closed}").returncode == 2


@needs_posix
@pytest.mark.parametrize("place", ["| true", "2>&1 | true", ">&-", "<&- >&- 2>&-"])
def test_run_outlives_the_reader_of_its_output(place: str, tmp_path: Path) -> None:
    done = shell(f"$F {SHORT} --out {tmp_path}/run {place}")
    assert (done.returncode, done.stderr) == (0, "")
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1, 2, 3]
    assert (tmp_path / "run" / "outcome.json").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_on_a_full_disk_is_an_error() -> None:
    done = shell("$F show >/dev/full")
    assert done.returncode == 2
    assert done.stderr == "fedscape: standard output: cannot be written: No space left on device\n"


@needs_posix
@pytest.mark.parametrize("imported", ["click", "numpy", "torch.nn"])
@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_during_imports_leaves_no_traceback(imported: str, presses: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *COMMAND.split()[1:], *SHORT.split(), "--out", str(tmp_path / "run")],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    while process.stderr.readline().rpartition("|")[2].strip() != imported:
        assert process.poll() is None
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode in ((130,) if presses == 1 else (130, -signal.SIGINT))
    assert "Traceback" not in errors
    assert "fedscape: interrupted" in errors
    assert not (tmp_path / "run").exists()
