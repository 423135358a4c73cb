"""A user's Flower ClientApp like that of the PyTorch quickstart, its data, and variations that fail."""

from __future__ import annotations

from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from clients.core.population import Population
from clients.sources.custom import custom_population
from simulator.runs.run import Run, simulate
from simulator.scenario.sections import Scenario, load_scenario

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
    """Train as without a federation; return the mean loss."""
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
    return load_scenario(
        "digits-iid", sets=[*fixed, "convergence.error_free=", "engine.threads=1", "engine.workers=1", *sets]
    )


def run_app(client_app: ClientApp, *sets: str, clients: int = CLIENTS, **given: object) -> Run:
    given.setdefault("record", False)
    return simulate(scenario(*sets), model=new_net(), data=population(clients), client_app=client_app, **given)  # type: ignore[arg-type]


def changed(handler: Callable[[Message, Context], Message | None]) -> ClientApp:
    """Return the quickstart with another train handler."""
    other = ClientApp()
    other.train()(handler)  # type: ignore[arg-type]
    other.evaluate()(evaluate)
    return other


def client_of(context: Context) -> int:
    return int(context.node_config["partition-id"])


def returning(arrays: Callable[[dict[str, Tensor]], dict[str, Tensor]], **metrics: object) -> ClientApp:
    """Return an app whose clients return other arrays or metrics than the quickstart's."""

    def handler(message: Message, context: Context) -> Message:
        reply = train(message, context)
        state = arrays(reply.content["arrays"].to_torch_state_dict())
        merged = {**dict(reply.content["metrics"]), **metrics}
        kept = MetricRecord({k: v for k, v in merged.items() if v is not None})  # type: ignore[misc]
        return Message(RecordDict({"arrays": ArrayRecord(state), "metrics": kept}), reply_to=message)

    return changed(handler)
