"""City runs with faults, drift, feature statistics and remedies: resuming, nodes, both engines, records."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import assert_same_run, assert_same_training, client_rows, stop_after
from strange_grid import StrangeGrid, context

from server.convergence.divergence import DivergenceOptions
from server.record.checked.line_files import read_rounds
from server.record.records import RunFolder
from simulator.apps import apps
from simulator.runs.run import Run, resume, simulate
from simulator.scenario.sections import Scenario, parse_scenario, to_toml

SHARED: dict[str, Any] = {
    "world": {"days": 20, "districts": 4, "power_cuts_per_month": 8.0},
    "faults": {
        "noisy": {"kind": "noise", "severity": 0.6, "clients": 0.5, "schedule": {"start": 3, "stop": 6}},
        "out": {"kind": "gateway_outage", "severity": 0.7},
        "stuck": {"kind": "stuck_at", "severity": 0.5, "schedule": {"start": 4}},
    },
    "drifts": {
        "sudden": {"kind": "abrupt", "changes": "p(y)", "start": 5, "clients": 0.6},
        "slow": {"kind": "gradual", "changes": "p(y|x)", "start": 2, "duration": 4, "strength": 0.5},
        "creeping": {"kind": "incremental", "changes": "p(x)", "start": 1, "duration": 6, "stagger": 2},
        "coming": {"kind": "recurring", "changes": "p(x)", "start": 3, "period": 2},
    },
    "algorithm": {"kind": "fedavg", "cohort": 6},
    "evaluation": {"federated_every": 3, "gradient_every": 4},
    "convergence": {"stop": "never", "divergence": {"loss_factor": 0}},
    "engine": {"kind": "stacked", "tile": 4, "compile": "never", "threads": 1, "workers": 1},
    "run": {"rounds": 8, "seed": 3},
}
CITIES: dict[str, dict[str, Any]] = {
    "intrusion": {
        "data": {"kind": "intrusion", "clients": 10},
        "model": {"kind": "softmax"},
        "features": {"normalise": "client", "select": "mutual_information", "keep": 12},
        "local": {"local_epochs": 1, "local_lr": 0.02, "batch_size": 16, "sampling": "class_balanced",
                  "focal_gamma": 1.0, "class_weights": "effective", "weights_from": "federation",
                  "augment": {"jitter": 0.1, "mixup": 0.2}},
    },
    "traffic": {
        "data": {"kind": "traffic", "clients": 10, "step_minutes": 60},
        "model": {"kind": "linear"},
        "features": {"normalise": "federated"},
        "local": {"local_epochs": 1, "local_lr": 0.02, "batch_size": 16},
    },
}  # fmt: skip
WRONG = {"kind": "label_symmetric", "severity": 0.5, "schedule": {"start": 2, "stop": 7}}


def city(name: str) -> Scenario:
    table = {**SHARED, **CITIES[name], "name": name}
    if name == "intrusion":
        table["faults"] = {**SHARED["faults"], "wrong": WRONG}
    return parse_scenario(table, source=name)


@pytest.mark.parametrize("name", CITIES)
def test_scenario_survives_toml(name: str) -> None:
    scenario = city(name)
    off = replace(scenario.convergence, divergence=DivergenceOptions(loss_factor=None, spike=None))
    for written in (scenario, replace(scenario, convergence=off)):
        assert parse_scenario(tomllib.loads(to_toml(written)), source=name) == written


def events(path: Path) -> list[dict[str, Any]]:
    lines, _ = read_rounds(RunFolder(path).events)
    own = ("time", "finished_at")
    return [{k: v for k, v in e.items() if k not in own} for e in lines if e["kind"] != "resumed"]


@pytest.mark.parametrize("name", CITIES)
def test_resumed_run_equals_the_uninterrupted_one_and_repeats_no_event(name: str, tmp_path: Path) -> None:
    whole = simulate(city(name), out=tmp_path / "whole")
    assert whole.verdict.outcome == "stopped"
    cut = tmp_path / "cut"
    stops = iter([2, 1, 3])  # interrupted after rounds 2, 3 and 6
    run = simulate(city(name), out=cut, stop_asked=stop_after(next(stops)))
    while run.verdict.outcome == "interrupted":
        run = resume(cut, stop_asked=stop_after(next(stops, 1000)))
    assert torch.equal(run.params, whole.params)
    assert_same_run(cut, tmp_path / "whole")
    assert events(cut) == events(tmp_path / "whole")
    named = [(e["round"], e["kind"], e["name"]) for e in events(cut) if e["kind"].startswith(("fault", "drift"))]
    assert (6, "fault_ended", "noisy") in named
    assert (5, "drift_started", "sudden") in named
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", CITIES)
def test_nodes_in_any_order_give_the_same_bits_as_the_plain_engine(name: str, tmp_path: Path) -> None:
    scenario = replace(city(name), engine=replace(city(name).engine, kind="plain", tile=None))
    simulate(scenario, out=tmp_path / "here")
    server, client = apps(scenario, out=tmp_path / "there", observers=[])
    server(StrangeGrid(client, [3, 0, 7, 5, 1, 2, 6, 4, 9, 8]), context())
    assert_same_training(tmp_path / "here", tmp_path / "there", rtol=1e-5)
    assert events(tmp_path / "here") == events(tmp_path / "there")


def played(name: str, **engine: Any) -> Run:
    scenario = city(name)
    return simulate(replace(scenario, engine=replace(scenario.engine, **engine)), record=False)


@pytest.mark.parametrize("name", CITIES)
def test_engines_and_tiles_see_the_same_data(name: str) -> None:
    whole, tiled, plain = played(name, tile=None), played(name, tile=7), played(name, kind="plain", tile=None)
    assert torch.equal(tiled.params, whole.params)
    size = torch.linalg.vector_norm(whole.params)
    assert torch.linalg.vector_norm(plain.params - whole.params) <= 1e-4 * size
    for ours, theirs in zip(plain.rounds.lines[1:], whole.rounds.lines[1:], strict=True):
        assert ours["faults"] == theirs["faults"]
        assert ours["concept_drift"] == theirs["concept_drift"]


@pytest.mark.parametrize("name", CITIES)
def test_each_line_records_the_faults_and_drift_levels_of_its_cohort(name: str, tmp_path: Path) -> None:
    scenario = city(name)
    scenario = replace(scenario, features=replace(scenario.features, select="none", keep=None))
    run = simulate(scenario, out=tmp_path / "run")
    population, rows = run.session.population, client_rows(tmp_path / "run")
    measured = np.array([c.measured for c in population.spec.channels])
    seen = set()
    for line in run.rounds.lines[1:]:
        now, clients = population.during(line["round"]), rows["client"][rows["round"] == line["round"]]
        assert len(clients) == line["respondents"]
        assert now.history.drift_levels is not None
        masks, changed = now.masks(clients), np.zeros(len(clients))
        assert masks.keys() == line["faults"].keys()
        for fault, each in masks.items():
            share = np.array([m[..., measured].mean() if m.ndim > 1 else m.mean() for m in each])
            changed += share
            assert line["faults"][fault]["clients"] == np.count_nonzero(share)
            assert line["faults"][fault]["changed"] == pytest.approx(share.mean(), rel=1e-5)
            seen |= {fault} if share.any() else set()
        for drift, level in now.history.drift_levels(clients).items():
            assert line["concept_drift"][drift] == {"level": level.mean(), "clients": np.count_nonzero(level)}
            seen |= {drift} if level.any() else set()
        district = now.places(clients).district
        assert set(line["districts"]) == {now.federation.districts[d] for d in district}
        for d in np.unique(district):
            district_line = line["districts"][now.federation.districts[d]]
            assert district_line["clients"] == np.count_nonzero(district == d)
            assert district_line["changed"] == pytest.approx(np.minimum(changed, 1.0)[district == d].mean(), rel=1e-5)
    assert seen == {*scenario.faults, *scenario.drifts}
