"""Our apps through Flower's own Ray simulation give the parameters of our grid (needs the extra `ray`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from run_folders import digits, recorded

from server.record.jsonlines import from_json
from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import to_toml

HALF_OF_THEM = ("run.rounds=3", "engine.tile=", "engine.compile=", "engine.threads=", "engine.kind=auto")
ALGORITHMS = {
    "fedavg": (),
    "scaffold": ("algorithm.kind=scaffold", "algorithm.weighting="),
    "local buffers": ("model.norm=batch", "local.buffers=local", "local.drop_last=true", "partition.min_size=16"),
}


QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
PLAY = """
import sys
from flwr.simulation import run_simulation
from simulator.apps import apps
from simulator.scenario.sections import load_scenario

scenario = load_scenario(sys.argv[1])
server_app, client_app = apps(scenario, out=sys.argv[2])
one_cpu = {"client_resources": {"num_cpus": 1}, "init_args": {"include_dashboard": False}}
run_simulation(server_app, client_app, num_supernodes=scenario.partition.clients, backend_config=one_cpu)
"""
"""The script of a separate process: Ray's warnings and workers stay out of the tests."""


@pytest.mark.ray
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ray_simulation_gives_the_parameters_of_our_grid(algorithm: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    scenario = digits(*HALF_OF_THEM, *ALGORITHMS[algorithm])
    ours = simulate(scenario, out=tmp_path / "ours")
    file, out = tmp_path / "played.toml", tmp_path / "ray"
    file.write_text(to_toml(scenario))
    command = [sys.executable, "-c", PLAY, str(file), str(out)]
    done = subprocess.run(command, timeout=300, capture_output=True, text=True, env=os.environ | QUIET, check=False)
    assert done.returncode == 0, done.stderr[-5000:]

    theirs = open_run(out)
    parameters = torch.cat([p.detach().flatten() for p in theirs.model().parameters()])
    norm = torch.linalg.vector_norm
    assert norm(parameters - ours.params) <= 1e-5 * norm(ours.params)
    assert norm(ours.params - ours.session.start.params) >= 0.1 * norm(ours.params), "the parameters have hardly moved"
    for line, expected in zip(recorded(out), recorded(tmp_path / "ours"), strict=True):
        played, wanted = from_json(line), from_json(expected)
        assert played.keys() - {"rejected", "late_replies", "repeats"} == wanted.keys()
        exact = ("cohort", "respondents", "failures", "bytes_total", "simulated_seconds_total", "local_steps")
        assert {k: played.get(k) for k in exact} == {k: wanted.get(k) for k in exact}
        close = ["validation_loss"]
        if played["round"]:
            close += ["train_loss", "update_dispersion", "aggregate_norm", "largest_gradient_norm"]
        if played["round"] == 3:
            close.append("federated_loss")
        for name in close:
            assert played[name] == pytest.approx(wanted[name], rel=1e-4), name
        if played["round"]:
            assert played["client_drift"]["mean"] == pytest.approx(wanted["client_drift"]["mean"], rel=1e-4)
            assert played["client_drift"]["mean"] > 0
