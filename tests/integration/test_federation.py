"""Real federations on this machine: SuperLink, SuperNodes and apps as processes, with TLS and registered keys."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from flower_processes import PATIENCE, federating, processes_naming, resuming, wait_for_rounds
from waiting import eventually

from server.record.records import RunFolder
from simulator.cli.exit_codes import EXIT_INTERRUPTED, EXIT_MISTAKE, EXIT_OK
from simulator.federate.cert_files import CertFolder
from simulator.federate.certs import make_certs
from simulator.federate.dealing import free_ports
from simulator.federate.processes import Processes
from simulator.federate.workspace import environment, superlink_command, supernode_command, write_home
from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import load_scenario

pytestmark = pytest.mark.federation

SMALL = (
    *("partition.clients=3", "model.hidden=[8]", "local.local_epochs=1", "algorithm.cohort=", "engine.kind=plain"),
    *("evaluation.baselines=false", "evaluation.federated_every=0", "convergence.stop=never"),
    *("engine.tile=", "engine.compile=", "engine.threads=1"),
)
"""Three clients with real digits and a tiny model."""
ENDLESS = ("quadratic-two-clients", "--set", "run.rounds=100000", "--set", "convergence.stop=never", "--nodes", "2")
GONE_SECONDS = 10.0
"""Seconds after which no process of a killed federation is left."""


def settings(*sets: str) -> list[str]:
    return [word for change in (*SMALL, *sets) for word in ("--set", change)]


def assert_all_gone(folder: Path) -> None:
    """Assert that no process of a federation is left, nor its private folder."""
    eventually(lambda: not processes_naming(folder / "private"), seconds=GONE_SECONDS)
    assert list((folder / "private").iterdir()) == []


def assert_same_numbers(here: Path, there: Path) -> None:
    """Assert that parameters agree to 1e-5 in relative norm, and the measures of every round with them."""
    one, other = open_run(here), open_run(there)
    mine, yours = (torch.cat([v.flatten() for v in run.model().state_dict().values()]) for run in (one, other))
    assert (yours - mine).norm() <= 1e-5 * mine.norm()
    for name in ("round", "train_loss", "validation_loss", "client_drift.p95", "update_dispersion"):
        np.testing.assert_allclose(other.rounds[name], one.rounds[name], rtol=1e-4, err_msg=name)


def test_three_nodes_give_the_numbers_of_one_process(tmp_path: Path) -> None:
    sets = ("run.rounds=1", "algorithm.kind=scaffold", "algorithm.weighting=")
    simulate(load_scenario("digits-label-skew", sets=[*SMALL, *sets]), out=tmp_path / "here")
    certs = make_certs(tmp_path / "certs", nodes=3)
    with federating(
        tmp_path, "digits-label-skew", *settings(*sets), "--nodes", "3", "--certs", str(certs.path)
    ) as process:
        printed, errors = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == EXIT_OK, errors
    assert "Stopped at round 1" in printed
    assert f"report          {tmp_path / 'run' / 'report.html'}" in printed
    assert_same_numbers(tmp_path / "here", tmp_path / "run")
    logs = {log.name: log.read_text() for log in RunFolder(tmp_path / "run").logs.iterdir()}
    ours = {"superlink.log", "flwr.log", "forker.log"}
    assert set(logs) == ours | {"supernode-0.log", "supernode-1.log", "supernode-2.log"}
    assert not any("PRIVATE KEY" in text or "Traceback" in text for text in logs.values())
    assert_all_gone(tmp_path)


def test_many_clients_a_node_and_a_resumed_run_give_the_numbers_of_one_process(tmp_path: Path) -> None:
    """SCAFFOLD: clients remember between rounds, in the run's folder."""
    sets = ("partition.clients=6", "run.rounds=3", "algorithm.kind=scaffold", "algorithm.weighting=")
    changed = {change.partition("=")[0]: change for change in (*SMALL, *sets)}
    simulate(load_scenario("digits-label-skew", sets=list(changed.values())), out=tmp_path / "here")
    words = [word for change in changed.values() for word in ("--set", change)]
    with federating(tmp_path, "digits-label-skew", *words, "--nodes", "2") as process:
        wait_for_rounds(process, tmp_path, 0)
        os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_INTERRUPTED, errors
    with resuming(tmp_path, "--nodes", "3") as process:
        _, errors = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == EXIT_OK, errors
    assert_same_numbers(tmp_path / "here", tmp_path / "run")
    assert_all_gone(tmp_path)


def test_killed_federation_leaves_no_process(tmp_path: Path) -> None:
    with federating(tmp_path, *ENDLESS) as process:
        wait_for_rounds(process, tmp_path, 0)
        names = ("flower-superlink", "flower-supernode", "flower-superexec", "flwr-serverapp", "flwr-clientapp")
        eventually(lambda: all(name in str(processes_naming(tmp_path / "private")) for name in names))
        os.kill(process.pid, signal.SIGKILL)
        assert_all_gone(tmp_path)


def test_ctrl_c_finishes_the_round_and_keeps_a_checkpoint(tmp_path: Path) -> None:
    with federating(tmp_path, *ENDLESS) as process:
        wait_for_rounds(process, tmp_path, 0)
        os.kill(process.pid, signal.SIGINT)
        printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_INTERRUPTED
    assert "finishing this round, then stopping" in errors
    assert "Interrupted at round" in printed
    assert f"to continue with these processes: fedscape federate --resume {tmp_path / 'run'}" in errors
    outcome = RunFolder(tmp_path / "run").read_outcome()
    assert outcome is not None
    assert outcome["outcome"] == "interrupted"
    assert RunFolder(tmp_path / "run").model.exists()
    assert_all_gone(tmp_path)


def test_second_ctrl_c_stops_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    with federating(tmp_path, *ENDLESS) as process:
        wait_for_rounds(process, tmp_path, 0)
        assert process.stderr is not None
        os.kill(process.pid, signal.SIGINT)
        while "Ctrl-C again stops at once" not in process.stderr.readline():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_INTERRUPTED
    assert "interrupted; the record is kept" in errors
    assert "Traceback" not in errors
    assert_all_gone(tmp_path)


def test_sigterm_before_the_run_has_begun_ends_it(tmp_path: Path) -> None:
    with federating(tmp_path, *ENDLESS) as process:
        eventually(lambda: "flower-superlink" in str(processes_naming(tmp_path / "private")), seconds=PATIENCE)
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_INTERRUPTED
    assert_all_gone(tmp_path)


def test_killed_server_app_ends_the_federation_with_an_error(tmp_path: Path) -> None:
    with federating(tmp_path, *ENDLESS) as process:
        wait_for_rounds(process, tmp_path, 0)
        found = processes_naming(tmp_path / "private")
        (server_app,) = (pid for pid, command in found.items() if "bin/flwr-serverapp" in command)
        os.kill(server_app, signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_MISTAKE
    assert "ServerApp: ended without a verdict; its log" in errors
    assert_all_gone(tmp_path)


def test_mistake_found_by_the_server_app_is_the_error_of_the_command(tmp_path: Path) -> None:
    arguments = ("quadratic-two-clients", "--set", "algorithm.cohort=3", "--nodes", "2")
    with federating(tmp_path, *arguments) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_MISTAKE
    assert "algorithm.cohort: must be at most the 2 clients" in errors
    assert "Traceback" not in errors
    assert_all_gone(tmp_path)


@contextmanager
def superlink(folder: Path, certs: CertFolder) -> Iterator[tuple[Processes, int, dict[str, str]]]:
    """Start a SuperLink; yield the processes, its port, and the environment."""
    (port,) = free_ports(1)
    env = environment(write_home(folder, port, certs))
    with Processes("flwr-serverapp") as processes:
        processes.start("superlink", superlink_command(port, certs), env=env, log=folder / "superlink.log")
        log = folder / "superlink.log"
        eventually(lambda: log.exists() and "running on https://" in log.read_text(), seconds=PATIENCE)
        yield processes, port, env


def assert_refused(folder: Path, certs: CertFolder, reasons: list[tuple[CertFolder, str]]) -> None:
    """Assert that SuperNodes with keys and authority of some folders are not admitted, with words in their logs."""
    with superlink(folder, certs) as (processes, port, env):
        for k, ((trusted, _), free) in enumerate(zip(reasons, free_ports(len(reasons)), strict=True)):
            config = folder / f"node-{k}.toml"
            config.write_text("partition-id = 0\n")
            command = supernode_command(0, free, port, trusted, config)
            processes.start(f"supernode-{k}", command, env=env, log=folder / f"supernode-{k}.log")
        for k, (_, words) in enumerate(reasons):
            log = folder / f"supernode-{k}.log"
            eventually(lambda log=log, words=words: log.exists() and words in log.read_text(), seconds=PATIENCE)
            assert "SuperNode ID" not in log.read_text()


def test_node_with_an_unregistered_key_or_another_authority_is_refused(tmp_path: Path) -> None:
    certs, other = (make_certs(tmp_path / name, nodes=1) for name in ("certs", "other"))
    reasons = [(certs, "Failed to activate SuperNode"), (other, "CERTIFICATE_VERIFY_FAILED")]
    assert_refused(tmp_path, certs, reasons)


def test_node_does_not_connect_to_an_expired_certificate(tmp_path: Path) -> None:
    certs = make_certs(tmp_path / "certs", nodes=1, days=1, now=datetime.now(UTC) - timedelta(days=2))
    assert_refused(tmp_path, certs, [(certs, "certificate has expired")])
