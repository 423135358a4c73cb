"""Real federations that lose a process on the way: the right numbers, or a clear outcome."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from flower_processes import PATIENCE, federating, processes_naming, resuming, wait_for_rounds

from server.record.records import RunFolder
from simulator.cli.exit_codes import EXIT_MISTAKE, EXIT_OK
from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario

pytestmark = pytest.mark.federation

SETS = (
    *("partition.clients=6", "model.hidden=[8]", "local.local_epochs=1", "algorithm.cohort=", "engine.kind=plain"),
    *("algorithm.kind=scaffold", "algorithm.weighting=", "evaluation.baselines=false", "evaluation.federated_every=0"),
    *("convergence.stop=never", "engine.tile=", "engine.compile=", "engine.threads=1"),
)


def words(*sets: str) -> list[str]:
    return [word for change in (*SETS, *sets) for word in ("--set", change)]


def kill_one(folder: Path, part: str) -> None:
    """SIGKILL one process whose command has a part."""
    found = [pid for pid, command in processes_naming(folder / "private").items() if part in command]
    assert found, f"no process has {part}"
    os.kill(min(found), signal.SIGKILL)


def test_killed_server_app_goes_on_from_its_checkpoint_with_the_states_of_its_nodes(tmp_path: Path) -> None:
    sets = ("run.rounds=5", "run.checkpoint_rounds=1")
    simulate(load_scenario("digits-label-skew", sets=[*SETS, *sets]), out=tmp_path / "here")
    with federating(tmp_path, "digits-label-skew", *words(*sets), "--nodes", "2") as process:
        wait_for_rounds(process, tmp_path, 2)
        kill_one(tmp_path, "bin/flwr-serverapp")
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_MISTAKE, errors
    events = RunFolder(tmp_path / "run").read_events().values
    assert [e["message"][:43] for e in events if e["kind"] == "federation_ended"] == [
        "ServerApp: ended without a verdict; its log"
    ]
    with resuming(tmp_path) as process:
        _, errors = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == EXIT_OK, errors
    assert "starting a SuperLink and 2 SuperNodes for 6 clients" in errors, "as many as before"
    here, there = open_run(tmp_path / "here"), open_run(tmp_path / "run")
    mine, yours = (torch.cat([v.flatten() for v in run.model().state_dict().values()]) for run in (here, there))
    assert (yours - mine).norm() <= 1e-5 * mine.norm()
    np.testing.assert_allclose(there.rounds["train_loss"], here.rounds["train_loss"], rtol=1e-4)
    kinds = [event["kind"] for event in RunFolder(tmp_path / "run").read_events().values]
    assert "resumed" in kinds
    assert "client_states_lost" not in kinds


@pytest.mark.slow
def test_killed_superlink_ends_the_run_with_an_error_and_another_goes_on_with_it(tmp_path: Path) -> None:
    sets = ("run.rounds=4", "run.checkpoint_rounds=1")
    simulate(load_scenario("digits-label-skew", sets=[*SETS, *sets]), out=tmp_path / "here")
    with federating(tmp_path, "digits-label-skew", *words(*sets), "--nodes", "2") as process:
        wait_for_rounds(process, tmp_path, 1)
        kill_one(tmp_path, "bin/flower-superlink")
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_MISTAKE
    assert "SuperLink" in errors
    with resuming(tmp_path, "--nodes", "2") as process:
        _, errors = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == EXIT_OK, errors
    here, there = open_run(tmp_path / "here"), open_run(tmp_path / "run")
    np.testing.assert_allclose(there.rounds["train_loss"], here.rounds["train_loss"], rtol=1e-4)


@pytest.mark.slow
def test_run_goes_on_without_the_clients_of_a_killed_node(tmp_path: Path) -> None:
    """The default time limit is an hour: the round goes on because the SuperLink says that the node is gone."""
    sets = ("run.rounds=4", "nodes.retries=0")
    with federating(tmp_path, "digits-label-skew", *words(*sets), "--nodes", "3") as process:
        wait_for_rounds(process, tmp_path, 1)
        kill_one(tmp_path, "bin/flower-supernode")
        printed, errors = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == EXIT_OK, errors
    rounds = open_run(tmp_path / "run").rounds
    assert rounds["respondents"][1] == 6
    assert rounds["respondents"][-1] == 4, "the two clients of the killed node are missing"
    assert np.isfinite(rounds["validation_loss"]).all()
    events = {e["kind"]: e["message"] for e in RunFolder(tmp_path / "run").read_events().values}
    assert " was killed by signal 9; " in events["node_ended"]
    assert printed.count("was killed by signal 9") == 1, "it is shown once"
