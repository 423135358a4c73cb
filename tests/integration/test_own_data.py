"""Nodes with tables of their own: the server knows sizes and names, and the clients train on what it never reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from own_nodes import run_on_own_nodes
from strange_grid import StrangeGrid

from clients.core.errors import StrategyError, UserError
from simulator.apps import apps
from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import Scenario, load_scenario, to_toml

ROWS = {"north": 40, "south": 70, "west": 25}


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Three tables whose labels differ, and the server's; south has one class alone."""
    random = np.random.default_rng(3)
    for name, rows in (*ROWS.items(), ("server", 60)):
        x = random.normal(size=(rows, 3)) * [1.0, 20.0, 0.1]
        label = (x[:, 0] + x[:, 1] / 20 > 0).astype(int) + (x[:, 2] > 0.1)
        label = np.zeros(rows, int) if name == "south" else label
        lines = [f"{a:.6f},{b:.6f},{c:.6f},{'abc'[k]}" for (a, b, c), k in zip(x, label, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["heat,flow,level,state", *lines]))
    return tmp_path


def scenario_of(tables: Path, *sets: str) -> Scenario:
    base = {
        "data": {"kind": "table", "path": str(tables / "server.csv"), "task": "classification", "target": "state",
                 "classes": ["a", "b", "c"], "scale": "client",  "validation_fraction": 0.4, "test_fraction": 0.2},
        "partition": {"kind": "iid", "clients": 1},
        "model": {"kind": "softmax"},
        "local": {"local_lr": 0.1, "batch_size": 8, "local_steps": 5},
        "nodes": {"own_data": True, "count": 3, "join_seconds": 5.0},
        "run": {"rounds": 4},
    }  # fmt: skip
    return load_scenario(base, sets=list(sets))


def nodes(tables: Path, *names: str) -> list[dict[str, str]]:
    return [{"name": name, "data": str(tables / f"{name}.csv")} for name in names]


def test_nodes_train_on_tables_that_the_server_never_reads(tables: Path) -> None:
    scenario = scenario_of(tables)
    grid = StrangeGrid(apps(scenario, observers=[])[1], nodes(tables, "west", "north", "south"))
    run = simulate(scenario, grid=grid, out=tables / "run")
    facts = run.session.population.federation
    assert [facts.client_name(k) for k in range(3)] == ["north", "south", "west"], "in order of names"
    kept = {name: round(rows * 0.4) for name, rows in ROWS.items()}
    assert facts.sizes.tolist() == pytest.approx(list(kept.values()), abs=2)
    losses = run.rounds["validation_loss"]
    assert losses[-1] < losses[0]
    record = open_run(tables / "run")
    assert record.rounds["respondents"].tolist()[1:] == [3.0] * 4
    for mine, recorded in zip(run.model().parameters(), record.model().parameters(), strict=True):
        torch.testing.assert_close(mine, recorded, rtol=0, atol=0)


FULL = (
    *("local.optimizer=gd", "local.batch_size=", "local.local_steps=", "local.local_epochs=1"),
    *("data.validation_fraction=0", "data.test_fraction=0", "nodes.validates=false"),
)
"""Full batches and one step, so that no draw decides."""


def together(tables: Path) -> torch.Tensor:
    """Return the parameters of one process with the same rows, each table a client; it moves the nodes' tables."""
    folder = tables / "together"
    folder.mkdir()
    for name in ROWS:
        (tables / f"{name}.csv").rename(folder / f"{name}.csv")
    scenario = scenario_of(tables, *FULL, f"data.path={folder}", "data.layout=files", "partition=", "nodes=")
    return simulate(scenario, record=False).params


def test_numbers_are_those_of_one_table_with_all_rows_by_client(tables: Path) -> None:
    scenario = scenario_of(tables, *FULL)
    grid = StrangeGrid(apps(scenario, observers=[])[1], nodes(tables, *ROWS))
    there = simulate(scenario, grid=grid, record=False)
    torch.testing.assert_close(there.params, together(tables), rtol=1e-5, atol=1e-7)
    assert "validation_loss" not in there.rounds.columns


@pytest.mark.federation
@pytest.mark.slow
def test_supernodes_with_tables_of_their_own_give_the_numbers_of_one_process(
    tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="fs-", dir="/tmp") as runtime:  # sockets need a short path
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        scenario = to_toml(scenario_of(tables, *FULL, "nodes.join_seconds=120"))
        record = run_on_own_nodes(tables / "federation", scenario, [(node, {}) for node in nodes(tables, *ROWS)])
    there = open_run(record.path)
    assert there.rounds["respondents"].tolist()[1:] == [3.0] * 4
    params = torch.cat([values.flatten() for values in there.model().state_dict().values()])
    torch.testing.assert_close(params, together(tables), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([{"clients": "0-2"}] * 3, "node_config.data: is missing, and in this run each node brings data of its own"),
        ([{"data": "north.csv"}] * 3, "must name itself and its data"),
        ([{"data": "north.csv", "name": "x"}] * 3, "two nodes have the name 'x'"),
        ([{"data": "north.csv", "name": "x"}], "1 of 3 nodes with data of their own joined within"),
        ([{"data": "none.csv", "name": str(k)} for k in range(3)], "none.csv"),
    ],
)
def test_nodes_that_do_not_fit_are_named(tables: Path, given: list[dict[str, str]], words: str) -> None:
    scenario = scenario_of(tables, "nodes.join_seconds=0.3")
    configs = [{k: str(tables / v) if k == "data" else v for k, v in node.items()} for node in given]
    with pytest.raises(StrategyError) as error:
        simulate(scenario, grid=StrangeGrid(apps(scenario, observers=[])[1], configs), record=False)
    assert words in str(error.value)


def test_table_with_other_columns_is_named(tables: Path) -> None:
    (tables / "south.csv").write_text("heat,state\n1,a\n2,b\n3,a\n4,b\n5,c\n6,b")
    scenario = scenario_of(tables)
    grid = StrangeGrid(apps(scenario, observers=[])[1], nodes(tables, *ROWS))
    with pytest.raises(StrategyError, match=r"node 'south' has examples of classification with features \[1\] and 3"):
        simulate(scenario, grid=grid, record=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.scale=global", "data.scale: must be 'client' or 'none'"),
        ("data.classes=", "data.classes: is missing"),
        ("evaluation.baselines=true", "evaluation.baselines: needs the clients' data, which are on the nodes"),
        ("evaluation.objective_every=1", "evaluation.objective_every: needs the clients' data"),
    ],
)
def test_keys_that_need_the_clients_data_are_refused(tables: Path, change: str, words: str) -> None:
    scenario = scenario_of(tables, change)
    grid = StrangeGrid(apps(scenario, observers=[])[1], nodes(tables, *ROWS))
    with pytest.raises(UserError) as error:
        simulate(scenario, grid=grid, record=False)
    assert words in str(error.value)


def test_own_data_in_one_process_is_refused(tables: Path) -> None:
    with pytest.raises(UserError, match=r"nodes.own_data: is true, and the clients are in this process"):
        simulate(scenario_of(tables), record=False)


def test_node_with_own_data_in_a_run_of_the_scenarios_data_is_refused(tables: Path) -> None:
    scenario = scenario_of(tables, "nodes=", "data.scale=none")
    grid = StrangeGrid(apps(scenario, observers=[])[1], nodes(tables, "north"))
    with pytest.raises(StrategyError, match=r"node_config.data: names data of the node's own, and the run uses"):
        simulate(scenario, grid=grid, record=False)


def test_labels_outside_the_given_classes_are_refused(tables: Path) -> None:
    with pytest.raises(UserError, match=r"data.classes: column 'state' has the label '[bc]', which is not in classes"):
        simulate(scenario_of(tables, 'data.classes=["a", "z"]', "nodes=", "data.scale=none"), record=False)
