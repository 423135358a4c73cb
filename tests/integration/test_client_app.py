"""A user's unchanged Flower ClientApp on our grid: that of the PyTorch quickstart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedProx
from quickstart import (
    CLIENTS,
    SIZES,
    Net,
    app,
    changed,
    client_of,
    new_net,
    returning,
    run_app,
    train,
    train_net,
)
from safetensors.torch import load_file
from torch import Tensor

from clients.core.errors import StrategyError
from server.record.checked.line_files import read_rounds
from simulator.runs.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")


def by_hand(rounds: int) -> dict[str, Tensor]:
    """Return the quickstart's federated averaging written out: a weighted mean of state dicts."""
    weights = torch.tensor(SIZES, dtype=torch.float64) / sum(SIZES)
    state = new_net().state_dict()
    for r in range(1, rounds + 1):
        states = []
        for client in range(CLIENTS):
            net = Net()
            net.load_state_dict(state)
            train_net(net, client, epochs=2, lr=0.05, server_round=r)
            states.append(net.state_dict())
        state = {
            name: sum(w * s[name].double() for w, s in zip(weights, states, strict=True)).to(state[name].dtype)
            for name in state
        }
    return state


def assert_is_by_hand(run: Run, rounds: int) -> None:
    state = run.model().state_dict()
    for name, expected in by_hand(rounds).items():
        if expected.is_floating_point():
            torch.testing.assert_close(state[name], expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("strategy", [None, FedAvg])
def test_quickstart_equals_averaging_by_hand(strategy: type[FedAvg] | None) -> None:
    """The strategy averages every floating-point entry, also the statistics of batch normalisation."""
    run = run_app(app, strategy=strategy() if strategy else None)
    assert_is_by_hand(run, 4)
    lines = run.rounds.lines
    assert lines[-1]["validation_loss"] < 0.8 * lines[0]["validation_loss"]
    assert lines[-1]["validation_accuracy"] > 0.7
    for line in lines[1:]:
        assert (line["cohort"], line["respondents"], line["failures"]) == (CLIENTS, CLIENTS, 0)
        assert line["update_dispersion"] > 0
        assert line["client_drift"] is None
        assert line["local_steps"] is None
        assert line["not_measured"] == ("client_drift and local_steps: the clients return only their final parameters")
        assert 0 < line["train_loss"] < 1.2
    each = range(1, 5) if strategy else (2, 4)  # Flower's FedAvg evaluates in every round
    for r in each:
        assert 0 < lines[r]["federated_loss"] < 1.2
        assert lines[r]["client_spread"]["clients"] == CLIENTS
    size = sum(t.numel() * t.element_size() for n, t in new_net().state_dict().items())
    assert lines[1]["bytes_down"] == CLIENTS * size


def test_record_names_the_client_app(tmp_path: Path) -> None:
    run_app(app, "run.rounds=2", record=True, out=tmp_path / "run")
    facts = read_json(tmp_path / "run" / "environment.json")["run"]
    assert (facts["engine"], facts["engine_reason"]) == ("ClientApp", "a user's ClientApp, one message a client")
    assert facts["from_python"] == ["model", "data", "client_app"]
    first = read_rounds(tmp_path / "run" / "rounds.jsonl")[0][1]
    assert {w["client"] for w in first["worst"]["update_norm"]} <= set(range(CLIENTS))
    loaded = Net()
    loaded.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))


def read_json(path: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(path.read_text())
    return found


def test_each_node_keeps_its_context() -> None:
    seen: dict[int, list[float]] = {}

    def counting(message: Message, context: Context) -> Message:
        before = context.state.metric_records.get("count", MetricRecord({"rounds": 0}))
        now = float(str(before["rounds"])) + 1
        context.state["count"] = MetricRecord({"rounds": now, "client": client_of(context)})
        assert before.get("client", client_of(context)) == client_of(context)
        seen.setdefault(client_of(context), []).append(now)
        return train(message, context)

    run_app(changed(counting), "algorithm.cohort=3", "run.rounds=5")
    assert sum(map(len, seen.values())) == 15
    assert all(counts == list(range(1, len(counts) + 1)) for counts in seen.values())
    assert len(seen) > 3, "every round has the same cohort of three"


def test_metrics_of_unknown_names_are_ignored() -> None:
    """A missing loss must not end a run as diverged."""

    other = returning(dict, train_loss=None)
    other._registered_funcs.pop("evaluate.default")
    other.evaluate()(lambda message, context: Message(
        RecordDict({"m": MetricRecord({"num-examples": 1, "f1": 0.5})}), reply_to=message))  # fmt: skip
    run = run_app(other, strategy=FedAvg())
    assert run.verdict.outcome == "stopped"
    assert "federated_loss" not in run.rounds
    assert run.rounds.lines[1]["train_loss"] is None


def test_federation_of_one_client_trains() -> None:
    with pytest.raises(
        StrategyError, match="min_available_nodes = 2 is more than the 1 clients that can be sampled: Flower would wait"
    ):
        run_app(app, strategy=FedAvg(), clients=1)
    alone = run_app(app, clients=1)
    assert alone.rounds.lines[-1]["cohort"] == 1
    assert alone.rounds.lines[-1]["update_dispersion"] == pytest.approx(0, abs=1e-9)
    one = FedAvg(min_available_nodes=1, min_train_nodes=1, min_evaluate_nodes=1)
    same = run_app(app, strategy=one, clients=1)
    torch.testing.assert_close(same.params, alone.params)


def test_flowers_fedprox_sends_the_app_its_mu() -> None:
    seen = set()

    def handler(message: Message, context: Context) -> Message:
        seen.add(message.content["config"]["proximal-mu"])
        return train(message, context)

    run_app(changed(handler), strategy=FedProx(proximal_mu=0.3), record=False)
    assert seen == {0.3}


def test_server_momentum_works_on_a_users_clients() -> None:
    """Rows without changes on clients work with any ClientApp: momentum 0 is averaging, 0.9 moves further."""
    still = run_app(app, "algorithm.kind=fedavgm", "algorithm.server_momentum=0.0")
    moving = run_app(app, "algorithm.kind=fedavgm", "algorithm.server_momentum=0.9")
    start = still.session.start.params
    torch.testing.assert_close(still.params, run_app(app).params)
    assert torch.linalg.vector_norm(moving.params - start) > 1.3 * torch.linalg.vector_norm(still.params - start)
