"""The shell scripts of deploy/, with stand-ins for Slurm's programs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from deploy_files import DEPLOY, ROOT, SLURM, scripts, without_comments
from needs import SHELLCHECK, program

NAMES = [str(path.relative_to(DEPLOY)) for path in scripts()]


def stand_in(folder: Path, name: str, script: str = 'printf "%s\\n" "$0" "$@" >>"$CALLS"') -> None:
    """Write a program that notes its arguments."""
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to submit from, with an environment to activate, and stand-ins in its `bin`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path


@SHELLCHECK.mark
@pytest.mark.parametrize("name", NAMES)
def test_shellcheck_finds_nothing(name: str) -> None:
    found = program("shellcheck")
    assert found
    done = subprocess.run([found, DEPLOY / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("slurm/")])
def test_script_stops_at_an_error_and_bash_can_read_it(name: str) -> None:
    assert "\nset -euo pipefail\n" in (DEPLOY / name).read_text("utf-8")
    subprocess.run(["bash", "-n", DEPLOY / name], check=True)


@pytest.mark.parametrize("name", ["torchrun", "superlink", "supernode"])
def test_directives_of_slurm_come_before_the_first_command(name: str) -> None:
    text = (SLURM / f"{name}.sbatch").read_text("utf-8")
    directives = text[: text.index("\nset -euo")]
    assert text.count("\n#SBATCH ") == directives.count("\n#SBATCH ") >= 5
    assert "#SBATCH --time=" in directives


def torchrun(place: Path, *arguments: str) -> list[str]:
    stand_in(place / "bin", "scontrol", "printf 'node7\\nnode8\\n'")
    stand_in(place / "bin", "srun")
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "123456", "SLURM_JOB_NUM_NODES": "2"}
    environment = {**os.environ, **slurm, "SLURM_GPUS_ON_NODE": "8"}
    subprocess.run(["bash", SLURM / "torchrun.sbatch", *arguments], check=True, cwd=place, env=environment)
    return (place / "calls").read_text().splitlines()[1:]


def test_torchrun_job_runs_the_documented_command(place: Path) -> None:
    words = " ".join(torchrun(place, "my.toml", "runs/mine"))
    assert words == (
        "torchrun --nnodes 2 --nproc-per-node 8 --rdzv-id 123456 --rdzv-backend c10d --rdzv-endpoint node7:23456 "
        "-m simulator.cli run my.toml --out runs/mine --set engine.device=cuda"
    )
    page = without_comments((ROOT / "docs" / "gpu.md").read_text("utf-8"))
    documented = re.search(r"torchrun --nnodes.*", page)
    assert documented
    assert set(re.findall(r"--[\w-]+", documented[0])) <= set(words.split())


def test_torchrun_job_resumes_a_record_that_is_there(place: Path) -> None:
    (place / "runs" / "mine").mkdir(parents=True)
    (place / "runs" / "mine" / "rounds.jsonl").write_text("")
    assert torchrun(place, "my.toml", "runs/mine")[-4:] == ["-m", "simulator.cli", "resume", "runs/mine"]


def test_federation_submits_a_superlink_and_an_array_that_starts_with_it(place: Path) -> None:
    stand_in(place / "bin", "sbatch", 'printf "%s\\n" CALL "$@" "FOLDER=$FOLDER" >>"$CALLS"; echo 41')
    environment = {**os.environ, "NODES": "3", "CLIENTS_PER_NODE": "4"}
    command = ["bash", SLURM / "federation.sh", "digits-iid", "--sets", "run.rounds=2"]
    done = subprocess.run(command, check=True, cwd=place, env=environment, capture_output=True, text=True)
    (folder,) = (place / "federations").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    calls = (place / "calls").read_text().split("CALL\n")
    assert calls[1].splitlines()[-4:] == ["digits-iid", "--sets", "run.rounds=2", f"FOLDER={folder}"]
    assert {"--array=0-2", "--dependency=after:41"} <= set(calls[2].splitlines())
    assert "scancel 41 41" in done.stdout


def test_federation_without_a_number_of_nodes_submits_nothing(place: Path) -> None:
    stand_in(place / "bin", "sbatch")
    environment = {key: value for key, value in os.environ.items() if key not in ("NODES", "CLIENTS_PER_NODE")}
    done = subprocess.run(
        ["bash", SLURM / "federation.sh", "digits-iid"], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "how many SuperNodes" in done.stderr
    assert not (place / "calls").exists()
