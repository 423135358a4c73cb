"""The parts from Python in the cases of `same_records`: files, clients, a module, Flower's strategies, a ClientApp."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedTrimmedAvg,
    Krum,
)
from torch import nn

import fedscape as fs

CLIENTS, FEATURES, CLASSES = 6, 5, 3


def write_files(folder: Path) -> None:
    """Write wide.csv, long.csv, labelled.csv and images.npz to a folder; their content never changes."""
    random = np.random.default_rng(11)
    hours, sites = 160, 6
    levels = 20 + 5 * np.sin(np.arange(hours)[:, None] / 4 + np.arange(sites)) + random.normal(size=(hours, sites))
    times = np.datetime64("2026-01-05T00:00") + np.arange(hours) * np.timedelta64(1, "h")
    rows = [f"{t}," + ",".join(f"{v:.4f}" for v in row) for t, row in zip(times, levels, strict=True)]
    (folder / "wide.csv").write_text("time," + ",".join(f"s{k}" for k in range(sites)) + "\n" + "\n".join(rows) + "\n")
    lines = [
        f"{t},s{k},{'' if (i + k) % 37 == 0 else f'{levels[i, k]:.4f}'},{levels[i, (k + 1) % sites]:.4f}"
        for k in range(sites)
        for i, t in enumerate(times)
    ]
    (folder / "long.csv").write_text("time,site,level,warmth\n" + "\n".join(lines) + "\n")
    labels = np.arange(150) % 10
    images = (random.random((150, 28, 28)) * 120 + 13 * labels[:, None, None]).astype(np.uint8)
    states = [
        f"s{i % sites},{'' if i % 29 == 0 else f'{v:.4f}'},{'abc'[i % 3]},{'high' if v + i % 3 > 21 else 'low'}"
        for i, v in enumerate(levels.ravel())
    ]
    (folder / "labelled.csv").write_text("site,level,sort,state\n" + "\n".join(states) + "\n")
    np.savez(folder / "images.npz", x=images, y=labels, site=np.arange(150) % 4)


class Net(nn.Module):
    """A user's module, with batch normalisation and an integer buffer in it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def _net() -> Net:
    net = Net()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(torch.sin(torch.arange(p.numel(), dtype=p.dtype) + i).view_as(p) / 2)
    return net


def _examples(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, FEATURES)).astype(np.float32)
    return x, np.argmax(x[:, :CLASSES] + 0.3 * seed % 2, axis=1)


def _population() -> Any:
    sizes = [24 + 8 * k for k in range(CLIENTS)]
    return fs.custom_population(
        lambda k: _examples(k, sizes[k]), sizes, outputs=CLASSES, validation=_examples(90, 50), test=_examples(91, 50),
        client_test=lambda k: _examples(50 + k, 10), client_test_sizes=[10] * CLIENTS,
    )  # fmt: skip


def _custom() -> dict[str, Any]:
    return {"model": _net(), "data": _population()}


def _arrays() -> dict[str, Any]:
    x, y = _examples(7, 400)
    keys = {"house": np.arange(400) % CLIENTS}
    return {"model": Net, "data": fs.arrays(x, y, keys=keys, test=_examples(91, 50), client_test_fraction=0.1)}


def _client_app() -> dict[str, Any]:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        net = Net()
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        x, y = (torch.as_tensor(a) for a in _examples(int(context.node_config["partition-id"]), 32))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
        metrics = MetricRecord({"num-examples": len(y), "train_loss": float(loss)})
        return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        net = Net().eval()
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        x, y = (torch.as_tensor(a) for a in _examples(50 + int(context.node_config["partition-id"]), 10))
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(net(x), y))
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 10, "eval_loss": loss})}), reply_to=message)

    return {**_custom(), "client_app": app}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "": dict,
    "custom": _custom,
    "arrays": _arrays,
    "flower_fedavg": lambda: {"strategy": FedAvg(fraction_train=0.5, fraction_evaluate=0.5)},
    "flower_fedadam": lambda: {"strategy": FedAdam(fraction_train=0.5, fraction_evaluate=0.5, eta=0.03)},
    "flower_krum": lambda: {"strategy": Krum(fraction_train=1.0, num_malicious_nodes=2)},
    "flower_trimmed_mean": lambda: {"strategy": FedTrimmedAvg(fraction_train=1.0, beta=0.2)},
    "flower_clipping": lambda: {
        "strategy": lambda ours: DifferentialPrivacyServerSideFixedClipping(
            ours, noise_multiplier=0.1, clipping_norm=0.5, num_sampled_clients=5
        )
    },
    "client_app": _client_app,
}
"""Functions that make arguments of `fs.simulate` for each run, because strategies keep state."""
