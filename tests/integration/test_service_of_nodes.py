"""Nodes whose messages a local service answers: the training of one process, and errors as Flower has them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from owners import owning
from run_folders import digits
from strange_grid import StrangeGrid

from clients.core.errors import StrategyError
from clients.flower import app as client_app_module
from clients.flower.forwarding import forward, packed, unpacked
from clients.flower.shim import claim_identity
from clients.processes.forking import can_fork
from clients.service.owner import Owner
from simulator.apps import apps
from simulator.runs.record import open_run
from simulator.runs.run import simulate

SETS = ("engine.kind=plain", "engine.tile=", "engine.compile=", "run.rounds=3", "algorithm.kind=scaffold",
        "algorithm.weighting=", "algorithm.cohort=5")  # fmt: skip
pytestmark = pytest.mark.skipif(not can_fork(), reason="the service runs on Linux only")


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    """Return a process that messages take for their SuperNode."""
    with owning() as (found, folder):
        folder.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        monkeypatch.setattr(client_app_module, "find_owner", lambda: found)
        yield found


def test_nodes_with_one_service_train_as_one_process(owner: Owner, tmp_path: Path) -> None:
    """Seven messages or more have one process, in which each client trains over two ranks."""
    scenario = digits(*SETS)
    split = replace(scenario, local=replace(scenario.local, devices=2))
    simulate(scenario, out=tmp_path / "here")
    nodes = [{"clients": held, "states": str(tmp_path / f"states-{k}")} for k, held in enumerate(("0-2", "3-6", "7"))]
    simulate(split, grid=StrangeGrid(apps()[1], nodes), out=tmp_path / "there")
    here, there = open_run(tmp_path / "here"), open_run(tmp_path / "there")
    for mine, yours in zip(here.model().state_dict().values(), there.model().state_dict().values(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-5, atol=1e-7)
    for name in ("cohort", "respondents", "failures", "local_steps", "train_loss", "client_drift.mean"):
        np.testing.assert_allclose(there.rounds[name], here.rounds[name], rtol=1e-5, err_msg=name)
    sockets = list((Path("/tmp") / f"fs-{owner.pid}" / "fedscape").glob("*.sock"))
    assert [socket.name for socket in sockets] == [f"{owner.pid}-{owner.started}.sock"]


def test_node_may_turn_the_service_off(owner: Owner, tmp_path: Path) -> None:
    nodes = [{"clients": "0-7", "states": str(tmp_path / "states"), "service": "off"}]
    simulate(digits(*SETS, "run.rounds=1"), grid=StrangeGrid(apps()[1], nodes), out=tmp_path / "there")
    assert not (Path("/tmp") / f"fs-{owner.pid}" / "fedscape").exists()


def test_failure_of_the_service_is_an_error_with_its_reason(owner: Owner) -> None:
    claim_identity()
    context = Context(1, 2, {"clients": "0"}, RecordDict(), {})
    message = Message(RecordDict(), dst_node_id=2, message_type="train", group_id="1")
    reply = forward("train", message, context, owner, "no_such_answers:answer")
    assert reply.error.code == 2
    assert "No module named 'no_such_answers'" in reply.error.reason


def test_error_of_the_node_config_is_named_by_the_service(owner: Owner) -> None:
    claim_identity()
    context = Context(1, 2, {"clients": "3-1"}, RecordDict(), {})
    message = Message(RecordDict(), dst_node_id=2, message_type="train", group_id="1")
    reply = forward("train", message, context, owner, "simulator.node:answered")
    assert reply.error.reason.startswith("node_config.clients: has the range '3-1'")


def test_content_and_state_survive_packing() -> None:
    content, state = RecordDict({"config": ConfigRecord({"a": 1, "b": [0.5], "c": b"\0"})}), RecordDict()
    found, held = unpacked(packed(content, state))
    assert found == content
    assert held == state


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\2" + bytes(7) + b"\xff\xff"])
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(StrategyError, match="message"):
        unpacked(data)


def test_apps_import_no_torch() -> None:
    program = "import sys, simulator.apps; print('torch' in sys.modules)"
    with tempfile.TemporaryDirectory() as folder:
        out = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=folder
        ).stdout
    assert out.strip() == "False"
