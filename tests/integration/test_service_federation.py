"""A real federation whose nodes have a local service each, in which clients train over two processes."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flower_processes import PATIENCE, federating, processes_naming, wait_for_rounds
from waiting import eventually

from simulator.cli.exit_codes import EXIT_OK
from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario

pytestmark = pytest.mark.federation

SMALL = (
    "partition.clients=4", "model.hidden=[8]", "local.local_epochs=1", "algorithm.kind=scaffold",
    "algorithm.weighting=", "algorithm.cohort=", "evaluation.baselines=false", "evaluation.federated_every=0",
    "convergence.stop=never", "engine.kind=plain", "engine.tile=", "engine.compile=", "engine.threads=1",
)  # fmt: skip
GONE_SECONDS = 10.0


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put sockets into a folder of the test, whose path is short."""
    folder = tempfile.mkdtemp(prefix="fs-", dir="/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    yield
    shutil.rmtree(folder)


def settings(*sets: str) -> list[str]:
    return [word for change in (*SMALL, *sets) for word in ("--set", change)]


def parameters(path: Path) -> torch.Tensor:
    return torch.cat([values.flatten() for values in open_run(path).model().state_dict().values()])


def services(folder: Path) -> dict[int, str]:
    """Return the processes of services and of their ranks, which have the same command, with their owners."""
    found = processes_naming(folder / "private")
    return {pid: command.split()[5] for pid, command in found.items() if " -m clients.service " in command}


def test_clients_over_two_devices_have_the_numbers_of_one_process(tmp_path: Path) -> None:
    simulate(load_scenario("digits-label-skew", sets=[*SMALL, "run.rounds=2"]), out=tmp_path / "here")
    arguments = settings("run.rounds=2", "local.devices=2")
    with federating(tmp_path, "digits-label-skew", *arguments, "--nodes", "2") as process:
        wait_for_rounds(process, tmp_path, 1)
        owners = list(services(tmp_path).values())
        _, errors = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == EXIT_OK, errors
    here, there = (parameters(tmp_path / name) for name in ("here", "run"))
    assert float(torch.linalg.vector_norm(here - there) / torch.linalg.vector_norm(here)) < 1e-5
    assert len(set(owners)) == 2
    assert len(owners) == 4, "a service and one more rank for each node"
    eventually(lambda: not services(tmp_path), seconds=GONE_SECONDS)


def test_killed_supernode_takes_its_service_and_ranks_along(tmp_path: Path) -> None:
    arguments = settings("run.rounds=100000", "local.devices=2")
    with federating(tmp_path, "digits-label-skew", *arguments, "--nodes", "2") as process:
        wait_for_rounds(process, tmp_path, 1)
        owner = next(iter(services(tmp_path).values()))
        os.kill(int(owner.partition(":")[0]), signal.SIGKILL)
        eventually(lambda: owner not in services(tmp_path).values(), seconds=GONE_SECONDS)
    eventually(lambda: not services(tmp_path), seconds=GONE_SECONDS)
