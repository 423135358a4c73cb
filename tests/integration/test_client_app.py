"""A user's Flower ClientApp on our grid, unchanged: the PyTorch quickstart's, and ones that go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedProx
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from clients.custom import custom_population
from clients.errors import EngineError, StrategyError
from clients.population import Population
from server.jsonlines import read_rounds
from simulator.run import Run, simulate
from simulator.scenario import Scenario, load_scenario

CLIENTS, SIZES = 6, [30, 50, 20, 40, 25, 35]


def examples(client: int) -> tuple[Tensor, Tensor]:
    """Return a client's examples of a problem with three classes; clients differ in their classes' shares."""
    generator = torch.Generator().manual_seed(client)
    n = SIZES[client] if client < CLIENTS else 200
    labels = torch.multinomial(torch.tensor([1.0, 1.0 + client % 3, 2.0]), n, replacement=True, generator=generator)
    centres = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, -1.0], [0.0, 0.0, 1.0, 0.0]])
    return centres[labels] + 0.5 * torch.randn(n, 4, generator=generator), labels


def population(clients: int = CLIENTS) -> Population:
    return custom_population(examples, SIZES[:clients], outputs=3, validation=examples(99))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """The user's model, with a buffer of every sort: batch normalisation's statistics and its counter."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def new_net() -> Net:
    torch.manual_seed(3)
    return Net()


def train_net(net: Net, client: int, epochs: int, lr: float, server_round: int) -> float:
    """Train as one would without any federation; return the mean loss."""
    data = TensorDataset(*examples(client))
    shuffled = torch.Generator().manual_seed(1000 * server_round + client)
    loader = DataLoader(data, batch_size=10, shuffle=True, generator=shuffled, drop_last=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    total = 0.0
    for _ in range(epochs):
        for features, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(features), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / (epochs * len(loader))


# The quickstart: what a user has in client_app.py.
app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    client = int(context.node_config["partition-id"])
    loss = train_net(net, client, epochs=2, lr=0.05, server_round=int(message.content["config"]["server-round"]))
    metrics = MetricRecord({"train_loss": loss, "num-examples": SIZES[client]})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    net.eval()
    features, labels = examples(int(context.node_config["partition-id"]))
    with torch.no_grad():
        outputs = net(features)
    loss = nn.functional.cross_entropy(outputs, labels).item()
    accuracy = (outputs.argmax(1) == labels).float().mean().item()
    metrics = MetricRecord({"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(labels)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)


def scenario(*sets: str) -> Scenario:
    """Return a scenario of which only [algorithm], [evaluation], [convergence] and [run] matter here."""
    fixed = ["algorithm.cohort=", "evaluation.federated_every=2", "convergence.stop=never", "run.rounds=4"]
    return load_scenario("digits-iid", sets=[*fixed, "convergence.error_free=", "engine.threads=1", *sets])


def run_app(client_app: ClientApp, *sets: str, clients: int = CLIENTS, **given: object) -> Run:
    given.setdefault("record", False)
    return simulate(scenario(*sets), model=new_net(), data=population(clients), client_app=client_app, **given)  # type: ignore[arg-type]


def by_hand(rounds: int) -> dict[str, Tensor]:
    """Return federated averaging of the quickstart written out: a weighted mean of state dicts."""
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
def test_the_quickstart_is_averaged_as_by_hand(strategy: type[FedAvg] | None) -> None:
    """Batch normalisation's statistics too: the strategy averages every floating-point entry."""
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
        assert line["not_measured"] == (
            "client_drift and local_steps: the clients return only where they ended, not the path"
        )
        assert 0 < line["train_loss"] < 1.2
    each = range(1, 5) if strategy else (2, 4)  # Flower's FedAvg evaluates in every round
    for r in each:
        assert 0 < lines[r]["federated_loss"] < 1.2
        assert lines[r]["client_spread"]["clients"] == CLIENTS
    size = sum(t.numel() * t.element_size() for n, t in new_net().state_dict().items())
    assert lines[1]["bytes_down"] == CLIENTS * size


def test_the_record_says_who_trained(tmp_path: Path) -> None:
    run_app(app, "run.rounds=2", record=True, out=tmp_path / "run")
    said = read_json(tmp_path / "run" / "environment.json")["run"]
    assert (said["engine"], said["engine_reason"]) == ("ClientApp", "a user's ClientApp, one message a client")
    assert said["from_python"] == ["model", "data", "client_app"]
    first = read_rounds(tmp_path / "run" / "rounds.jsonl")[0][1]
    assert {w["client"] for w in first["worst"]["update_norm"]} <= set(range(CLIENTS))
    loaded = Net()
    loaded.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))


def read_json(path: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(path.read_text())
    return found


def changed(handler: Callable[[Message, Context], Message | None]) -> ClientApp:
    """Return the quickstart with another train handler."""
    other = ClientApp()
    other.train()(handler)  # type: ignore[arg-type]
    other.evaluate()(evaluate)
    return other


def client_of(context: Context) -> int:
    return int(context.node_config["partition-id"])


def test_a_client_that_fails_is_counted_and_the_round_goes_on(tmp_path: Path) -> None:
    def sometimes(message: Message, context: Context) -> Message:
        if client_of(context) == 2 and message.content["config"]["server-round"] == 2:
            raise RuntimeError("the disk is on fire")
        return train(message, context)

    run = run_app(changed(sometimes), record=True, out=tmp_path / "run")
    assert [line["failures"] for line in run.rounds.lines[1:]] == [0, 1, 0, 0]
    assert [line["respondents"] for line in run.rounds.lines[1:]] == [6, 5, 6, 6]
    assert run.rounds["bytes_up"][2] == run.rounds["bytes_up"][1] * 5 / 6
    events, _ = read_rounds(tmp_path / "run" / "events.jsonl")
    said = "1 of 6 clients failed; the first said: RuntimeError: the disk is on fire"
    assert [(e["round"], e["kind"], e["message"]) for e in events] == [(2, "clients_failed", said)]


@pytest.mark.parametrize("strategy", [None, FedAvg])
def test_all_clients_failing_is_an_error_with_the_reason(strategy: type[FedAvg] | None, tmp_path: Path) -> None:
    """Flower itself would call this a success, with an empty model."""

    def never(message: Message, context: Context) -> Message:
        if message.content["config"]["server-round"] == 2:
            raise RuntimeError("no data here")
        return train(message, context)

    given = {"record": True, "out": tmp_path / "run"}
    with pytest.raises(StrategyError) as error:
        run_app(changed(never), strategy=strategy() if strategy else None, **given)
    assert str(error.value).startswith(
        "clients: all 6 clients of the round failed; the first said: RuntimeError: no data here."
    )
    lines, _ = read_rounds(tmp_path / "run" / "rounds.jsonl")
    assert [line["round"] for line in lines] == [0, 1], "what was recorded is kept"


def test_a_handler_that_returns_nothing_or_is_missing_is_a_failure() -> None:
    with pytest.raises(StrategyError, match="said: TypeError: the ClientApp returned NoneType, not a Message"):
        run_app(changed(lambda message, context: None))
    with pytest.raises(StrategyError, match="No train function registered"):
        run_app(ClientApp())


def test_a_context_stays_with_its_node() -> None:
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
    assert len(seen) > 3, "a cohort of three is not drawn anew"


def returning(arrays: Callable[[dict[str, Tensor]], dict[str, Tensor]], **metrics: object) -> ClientApp:
    """Return an app whose clients return other arrays or metrics than the quickstart's."""

    def handler(message: Message, context: Context) -> Message:
        reply = train(message, context)
        state = arrays(reply.content["arrays"].to_torch_state_dict())
        merged = {**dict(reply.content["metrics"]), **metrics}
        kept = MetricRecord({k: v for k, v in merged.items() if v is not None})  # type: ignore[misc]
        return Message(RecordDict({"arrays": ArrayRecord(state), "metrics": kept}), reply_to=message)

    return changed(handler)


@pytest.mark.parametrize("strategy", [None, FedAvg])
def test_clients_without_examples_are_an_error(strategy: type[FedAvg] | None) -> None:
    with pytest.raises(StrategyError, match="all 6 respondents of the round say they have 0 examples"):
        run_app(returning(dict, **{"num-examples": 0}), strategy=strategy() if strategy else None)


def test_one_client_without_examples_has_no_weight() -> None:
    def handler(message: Message, context: Context) -> Message:
        reply = train(message, context)
        if client_of(context) == 0:
            wild = {k: v + 100 for k, v in reply.content["arrays"].to_torch_state_dict().items()}
            reply.content["arrays"] = ArrayRecord(wild)
            reply.content["metrics"]["num-examples"] = 0
        return reply

    run = run_app(changed(handler))
    assert float(run.params.abs().max()) < 10
    assert run.rounds["validation_accuracy"][-1] > 0.6


def test_a_client_that_returns_nan_diverges_the_run() -> None:
    def handler(message: Message, context: Context) -> Message:
        reply = train(message, context)
        if client_of(context) == 4 and message.content["config"]["server-round"] == 3:
            reply.content["arrays"] = ArrayRecord(
                {k: v * float("nan") for k, v in reply.content["arrays"].to_torch_state_dict().items()}
            )
        return reply

    for strategy in (None, FedAvg()):
        run = run_app(changed(handler), strategy=strategy)
        assert (run.verdict.outcome, run.verdict.round_index) == ("diverged", 3)
        assert run.outcome["last_finite_round"] == 2
        assert torch.isfinite(run.params).all(), "the model that is kept is the last finite one"
        line = run.rounds.lines[-1]
        assert line["round"] == 3
        assert np.isnan(line["update_dispersion"])
        assert line["worst"]["update_norm"][0]["client"] == 4, "the culprit is named"


def test_what_our_averaging_cannot_use_is_named() -> None:
    cases = [
        (returning(dict, **{"num-examples": None}), "client 0 returned no number as 'num-examples'"),
        (returning(lambda s: {k: v for k, v in s.items() if k != "head.bias"}), "array 'head.bias' is missing"),
        (
            returning(lambda s: {**s, "head.bias": torch.zeros(4)}),
            "array 'head.bias' is of shape (4,); (3,) was exp",
        ),
    ]
    for client_app, said in cases:
        with pytest.raises(StrategyError) as error:
            run_app(client_app)
        assert f"clients: returned what fedavg cannot use: {said}" in str(error.value)


def test_flowers_strategy_names_what_it_cannot_use() -> None:
    with pytest.raises(StrategyError, match=r"FedAvg.aggregate_train raised InconsistentMessageReplies"):
        run_app(returning(dict, **{"num-examples": None}), strategy=FedAvg())


def test_metrics_by_other_names_are_not_guessed_at() -> None:
    """A loss that is not there must not end a run as diverged."""

    other = returning(dict, train_loss=None)
    other._registered_funcs.pop("evaluate.default")
    other.evaluate()(lambda message, context: Message(
        RecordDict({"m": MetricRecord({"num-examples": 1, "f1": 0.5})}), reply_to=message))  # fmt: skip
    run = run_app(other, strategy=FedAvg())
    assert run.verdict.outcome == "stopped"
    assert "federated_loss" not in run.rounds
    assert run.rounds.lines[1]["train_loss"] is None


def test_one_client_in_all() -> None:
    with pytest.raises(StrategyError, match="min_available_nodes = 2 is more than the 1 clients: Flower would wait"):
        run_app(app, strategy=FedAvg(), clients=1)
    alone = run_app(app, clients=1)
    assert alone.rounds.lines[-1]["cohort"] == 1
    assert alone.rounds.lines[-1]["update_dispersion"] == pytest.approx(0, abs=1e-9)
    one = FedAvg(min_available_nodes=1, min_train_nodes=1, min_evaluate_nodes=1)
    same = run_app(app, strategy=one, clients=1)
    torch.testing.assert_close(same.params, alone.params)


def test_flowers_fedprox_tells_the_app_its_mu() -> None:
    seen = set()

    def handler(message: Message, context: Context) -> Message:
        seen.add(message.content["config"]["proximal-mu"])
        return train(message, context)

    run_app(changed(handler), strategy=FedProx(proximal_mu=0.3), record=False)
    assert seen == {0.3}


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["algorithm.kind=fedprox"], "algorithm.kind: is 'fedprox', which changes how clients train"),
        (["algorithm.kind=scaffold", "algorithm.weighting="], "is 'scaffold', which changes how clients train"),
        (["algorithm.kind=fednova"], "is 'fednova', which needs local steps"),
        (["algorithm.partial_work=drop"], "algorithm.partial_work: is 'drop', which needs local steps"),
        (["local.batch_size=full", "local.local_epochs=1", "algorithm.kind=fedsgd"], "is 'fedsgd', which changes"),
    ],
)
def test_rows_that_need_our_clients_are_refused(sets: list[str], said: str) -> None:
    with pytest.raises(StrategyError) as error:
        run_app(app, *sets)
    assert said in str(error.value)


def test_a_named_engine_is_not_quietly_left_out() -> None:
    with pytest.raises(EngineError, match=r"engine.kind: is 'plain', but your ClientApp trains. Leave it out."):
        run_app(app, "engine.kind=plain")


def test_server_momentum_works_on_a_users_clients() -> None:
    """Our rows whose clients train plainly play with any ClientApp: momentum 0 is averaging, 0.9 goes further."""
    still = run_app(app, "algorithm.kind=fedavgm", "algorithm.server_momentum=0.0")
    moving = run_app(app, "algorithm.kind=fedavgm", "algorithm.server_momentum=0.9")
    start = still.session.start.params
    torch.testing.assert_close(still.params, run_app(app).params)
    assert torch.linalg.vector_norm(moving.params - start) > 1.3 * torch.linalg.vector_norm(still.params - start)
