"""Our two Flower apps on a grid with separate nodes: random ids, replies in any order, one context per node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedProx
from receivers import receiving
from run_folders import assert_same_training, digits
from strange_grid import StrangeGrid, context

from clients.core.errors import StrategyError
from simulator.apps import apps, client_app, server_app
from simulator.grid.cohort_grid import CohortGrid
from simulator.runs.record import open_run
from simulator.runs.run import simulate
from simulator.scenario.sections import Scenario

PLAIN = ("engine.kind=plain", "engine.tile=", "engine.compile=", "run.rounds=3")
SCAFFOLD = ("algorithm.kind=scaffold", "algorithm.weighting=")
ROWS = {
    "fedavg": (),
    "scaffold": SCAFFOLD,
    "feddyn": ("algorithm.kind=feddyn", "algorithm.weighting="),
    "fedprox": ("algorithm.kind=fedprox", "algorithm.mu=0.5"),
    "local buffers": ("model.norm=batch", "local.buffers=local", "local.drop_last=true", "partition.min_size=16"),
}


@pytest.mark.parametrize("row", ROWS)
def test_nodes_in_any_order_give_the_same_bits_as_the_plain_engine(row: str, tmp_path: Path) -> None:
    scenario = digits(*PLAIN, *ROWS[row])
    simulate(scenario, out=tmp_path / "here")
    server, client = apps(scenario, out=tmp_path / "there", observers=[])
    grid, held = StrangeGrid(client, [3, 0, 7, 5, 1, 2, 6, 4]), context()
    server(grid, held)
    assert dict(held.state["fedscape"]) == {
        "verdict": "Stopped at round 3: the budget of 3 rounds is spent",
        "record": str(tmp_path / "there"),
    }
    assert_same_training(tmp_path / "here", tmp_path / "there", rtol=1e-6)
    assert not any(len(c.state) for c in grid.contexts.values()), "states are in files"


def test_same_apps_run_on_our_own_grid(tmp_path: Path) -> None:
    scenario = digits(*PLAIN, *SCAFFOLD)
    simulate(scenario, out=tmp_path / "here")
    server, client = apps(scenario, out=tmp_path / "there", observers=[])
    server(CohortGrid(8, client_app=client), context())
    models = [open_run(tmp_path / name).model().state_dict() for name in ("here", "there")]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_scenario_comes_from_the_run_config(tmp_path: Path) -> None:
    """As in `flwr run . --run-config ...`: the module's apps, and nodes that read the same config."""
    sets = "partition.clients=4; local.local_epochs=1; algorithm.cohort=2; run.rounds=2; engine.threads=1;"
    sets += "evaluation.baselines=false; evaluation.federated_every=2"
    config = {"scenario": "digits-iid", "sets": sets, "out": str(tmp_path / "run")}
    server_app(StrangeGrid(client_app, [2, 0, 3, 1], config), context(**config))
    record = open_run(tmp_path / "run")
    assert record.scenario.name == "digits-iid"
    assert len(record.rounds["round"]) == 3
    assert record.rounds["client_spread.clients"][-1] == 4


def played(scenario: Scenario, partitions: Sequence[object], client: ClientApp | None = None) -> None:
    _, own = apps(scenario, observers=[])
    simulate(scenario, grid=StrangeGrid(client or own, partitions), record=False)


@pytest.mark.parametrize(
    ("partitions", "message"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 6], "holds client 6, which is taken or unknown"),
        ([0, 1, 2, 3, 4, 5, 6, 8], "node_config.partition-id: must be among the scenario's 8 clients, 0 to 7, got 8"),
        ([0, 1, 2, 3, 4, 5, 6, None], "node_config.partition-id: must be the client's index, got None"),
        ([0, 1, 2, 3, 4, 5, 6, "7"], "must be the client's index, got '7'"),
    ],
)
def test_node_without_a_client_or_with_a_taken_client_is_refused(partitions: list[object], message: str) -> None:
    with pytest.raises(StrategyError, match=r"nodes: ") as error:
        played(digits(*PLAIN), partitions)
    assert message in str(error.value)


def test_too_few_nodes_end_in_an_error() -> None:
    """The six nodes are there from the start: the first look finds them, however long it takes."""
    scenario = digits(*PLAIN, "nodes.join_seconds=0.3")
    grid = StrangeGrid(apps(scenario, observers=[])[1], range(6), all_at_once=True)
    with pytest.raises(StrategyError, match="2 of 8 clients have no node after 0 s: 6, 7; 6 nodes joined"):
        simulate(scenario, grid=grid, record=False)


def test_nodes_of_another_scenario_are_refused() -> None:
    _, client = apps(digits(*PLAIN), observers=[])
    with pytest.raises(StrategyError) as error:
        played(digits(*PLAIN, *SCAFFOLD), range(8), client)
    assert (
        "scenario: of the server is another than this node's: algorithm.kind is 'scaffold' there and 'fedavg' here"
        in (str(error.value))
    )


def test_nodes_with_other_options_of_the_rule_are_refused() -> None:
    """The names are equal, the options are not: both are FedProx's rule."""
    _, client = apps(digits(*PLAIN, "algorithm.kind=fedprox", "algorithm.mu=0.5"), observers=[])
    with pytest.raises(StrategyError, match=r"algorithm.mu is 0.25 there and 0.5 here"):
        played(digits(*PLAIN, "algorithm.kind=fedprox", "algorithm.mu=0.25"), range(8), client)


def test_flowers_fedprox_reaches_our_clients() -> None:
    """Flower's FedProx sends mu in the config of its messages, on nodes and on our own grid."""
    scenario = digits(*PLAIN, "algorithm.cohort=")

    def fedprox() -> FedProx:
        return FedProx(fraction_evaluate=0.0, proximal_mu=0.5)

    _, client = apps(scenario, observers=[])
    there = simulate(scenario, strategy=fedprox(), grid=StrangeGrid(client, range(8)), record=False)
    here = simulate(scenario, strategy=fedprox(), record=False)
    ours = simulate(digits(*PLAIN, "algorithm.cohort=", *ROWS["fedprox"]), record=False)
    without = simulate(scenario, record=False)
    size = torch.linalg.vector_norm(ours.params)
    for run in (there, here):
        assert torch.linalg.vector_norm(run.params - ours.params) <= 1e-6 * size
        assert torch.linalg.vector_norm(run.params - without.params) >= 1e-2 * size


def test_client_app_with_a_grid_is_refused() -> None:
    _, client = apps(digits(*PLAIN), observers=[])
    with pytest.raises(StrategyError, match="client_app: cannot be used with grid"):
        simulate(digits(*PLAIN), client_app=client, grid=StrangeGrid(client, range(8)), record=False)


def test_server_app_sends_its_rounds_to_the_receiver_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = apps("quadratic-two-clients", out=tmp_path / "run", observers=[])
    with receiving() as receiver:
        monkeypatch.setenv("FEDSCAPE_REMOTE_WRITE", receiver.url)
        server(StrangeGrid(client, [1, 0]), context())
        sent = receiver.values("fedscape_loss", split="validation")
    assert list(sent.values()) == open_run(tmp_path / "run").rounds["validation_loss"].tolist()
