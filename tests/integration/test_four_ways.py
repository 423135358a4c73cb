"""One scenario in one process, on workers, in Flower's Ray simulation and on SuperNodes: the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flower_processes import PATIENCE, federating
from torch import Tensor

from simulator.cli.exit_codes import EXIT_OK
from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import Scenario, load_scenario

_MLP = (
    *("partition.clients=3", "algorithm.cohort=2", "model.hidden=[12]", "model.dropout=0.3", "local.local_epochs=1"),
    *("evaluation.baselines=false", "convergence.stop=never", "run.rounds=3", "engine.tile=", "engine.compile="),
    *("engine.kind=auto", "engine.threads=1"),
)
SCENARIOS = {
    "digits, MLP with dropout, FedAvg, 2 of 3 clients": ("digits-label-skew", _MLP),
    "digits, MLP with dropout, SCAFFOLD, 2 of 3 clients": (
        "digits-label-skew",
        (*_MLP, "algorithm.kind=scaffold", "algorithm.weighting="),
    ),
    "traffic with silent gateways, GRU, 4 clients a node": (
        "city-traffic-outages",
        ("data.clients=12", "run.rounds=3", "convergence.stop=never", "evaluation.baselines=false", "engine.threads=1"),
    ),
}
RAY = """
import sys
from flwr.simulation import run_simulation
from simulator.apps import apps
from simulator.scenario.sections import load_scenario

server_app, client_app = apps(load_scenario(sys.argv[1], sets=sys.argv[3:]), out=sys.argv[2])
backend = {"client_resources": {"num_cpus": 1}, "init_args": {"include_dashboard": False}}
run_simulation(server_app, client_app, num_supernodes=3, backend_config=backend)
"""


def scenario_of(name: str, *sets: str) -> Scenario:
    source, changes = SCENARIOS[name]
    return load_scenario(source, sets=[*changes, *sets])


def parameters(folder: Path) -> Tensor:
    return torch.cat([v.flatten() for v in open_run(folder).model().state_dict().values()])


def assert_same(here: Path, there: Path) -> None:
    mine, yours = parameters(here), parameters(there)
    assert (yours - mine).norm() <= 1e-5 * mine.norm()
    one, other = open_run(here).rounds, open_run(there).rounds
    for name in ("respondents", "train_loss", "validation_loss", "client_drift.p95", "update_dispersion"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-4, err_msg=name)


def played_here(name: str, folder: Path) -> Path:
    run = simulate(scenario_of(name, "engine.workers=1"), out=folder)
    start = run.session.start.params
    assert (run.params - start).norm() >= 0.01 * start.norm(), "the parameters have hardly moved"
    return folder


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_workers_give_the_parameters_of_one_process(name: str, tmp_path: Path) -> None:
    here = played_here(name, tmp_path / "here")
    simulate(scenario_of(name, "engine.workers=2"), out=tmp_path / "workers")
    assert_same(here, tmp_path / "workers")


@pytest.mark.federation
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if "FedAvg" in n else [], id=n) for n in SCENARIOS]
)
def test_supernodes_give_the_parameters_of_one_process(name: str, tmp_path: Path) -> None:
    here = played_here(name, tmp_path / "here")
    source, sets = SCENARIOS[name]
    changes = [word for change in sets for word in ("--set", change)]
    with federating(tmp_path, source, *changes, "--nodes", "3") as process:
        _, errors = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == EXIT_OK, errors
    assert_same(here, tmp_path / "run")


@pytest.mark.ray
@pytest.mark.parametrize("name", SCENARIOS)
def test_ray_simulation_of_three_nodes_gives_the_parameters_of_one_process(name: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    here = played_here(name, tmp_path / "here")
    source, sets = SCENARIOS[name]
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "XDG_STATE_HOME": str(tmp_path / "states")}
    command = [sys.executable, "-c", RAY, source, str(tmp_path / "ray"), *sets]
    done = subprocess.run(command, timeout=400, capture_output=True, text=True, env=os.environ | quiet, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert_same(here, tmp_path / "ray")
