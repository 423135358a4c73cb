"""The Slurm scripts of deploy/ as processes of this machine, with SuperNodes behind the gateway's rules."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from deploy_files import DEPLOY, ROOT, SLURM
from needs import NGINX, program
from prometheus_servers import free_port
from waiting import eventually

from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario

pytestmark = pytest.mark.federation
PATIENCE = 120.0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to submit from, with the variables that Slurm and federation.sh set."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hostname").write_text("#!/bin/sh\necho localhost\n")
    (tmp_path / "bin" / "hostname").chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    (tmp_path / "fed").mkdir(mode=0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", str(ROOT)))
    for name, value in {
        "FOLDER": tmp_path / "fed",
        "NODES": 2,
        "CLIENTS_PER_NODE": 1,
        "SUBMIT": DEPLOY / "submit.py",
        "SLURM_JOB_ID": os.getpid(),  # the scripts' ports follow from it
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


@contextmanager
def job(place: Path, log: str, *words: str | Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process with its output in a file; end it with its group."""
    with (place / log).open("wb") as out:
        process = subprocess.Popen(
            list(map(str, words)), cwd=place, stdout=out, stderr=out, env={**os.environ, **variables},
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def gateway(place: Path, address: str) -> tuple[list[str | Path], str]:
    """Return the command of an nginx with the gateway's rules before a SuperLink, and its address."""
    folder, listen = place / "gateway", free_port()
    folder.mkdir()
    for name in ("ca.crt", "superlink.crt", "superlink.key"):
        (folder / name).write_bytes((place / "fed" / "certs" / name).read_bytes())
    text = (DEPLOY / "gateway" / "gateway.conf").read_text("utf-8").replace("/tmp/", f"{folder}/")
    text = text.replace("superlink:8000", address).replace("proxy_ssl_name superlink", "proxy_ssl_name localhost")
    (folder / "gateway.conf").write_text(text.replace("9092", str(listen)))
    nginx = program("nginx")
    assert nginx
    return [nginx, "-e", "stderr", "-c", folder / "gateway.conf", "-g", "daemon off;"], f"localhost:{listen}"


@NGINX.mark
def test_scripts_run_a_federation_behind_the_gateway_and_end(place: Path) -> None:
    scenario = ["quadratic-two-clients", "--sets", "run.rounds=2; engine.kind=plain"]
    fed = place / "fed"
    with job(place, "link", "bash", SLURM / "superlink.sbatch", *scenario) as link:
        eventually(lambda: (fed / "address").exists() or link.poll() is not None, seconds=PATIENCE)
        assert link.poll() is None, (place / "link").read_text()
        command, address = gateway(place, (fed / "address").read_text().strip())
        (fed / "address").write_text(address)
        with job(place, "gateway.log", *command):
            known = {"SUPERLINK": address, "CA": str(fed / "certs" / "ca.crt")}
            submitted = subprocess.run(
                [sys.executable, DEPLOY / "submit.py", "run", "digits-iid"],
                env={**os.environ, **known}, capture_output=True, text=True,
            )  # fmt: skip
            assert submitted.returncode == 2  # the gateway has no control API
            nodes = [SLURM / "supernode.sbatch"] * 2
            with (
                job(place, "node-0", "bash", nodes[0], SLURM_ARRAY_TASK_ID="0") as first,
                job(place, "node-1", "bash", nodes[1], SLURM_ARRAY_TASK_ID="1") as second,
            ):
                assert link.wait(PATIENCE) == 0, (place / "link").read_text()
                assert first.wait(PATIENCE) == second.wait(PATIENCE) == 0
    simulate(load_scenario(scenario[0], sets=scenario[2].split("; ")), out=place / "here")
    here, there = (open_run(path).rounds["validation_loss"] for path in (place / "here", fed / "record"))
    assert there.tolist() == pytest.approx(here.tolist(), rel=1e-5)
