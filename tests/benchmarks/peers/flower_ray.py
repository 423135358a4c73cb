"""The same rounds with Flower's own simulation (Ray), written like its PyTorch quickstart.

python flower_ray.py WORKLOAD ROUNDS ACTORS     (in an environment with flwr[simulation])

Each actor is a process with one thread, as Flower sets one processor a client.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from workloads import LOCAL_LR, WORKLOADS, Workload, client, loss, model


def client_app(w: Workload) -> ClientApp:
    """Return the app of a client."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        net, of = model(w), loss(w)
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        features, targets = client(w.name, int(context.node_config["partition-id"]))
        optimizer = torch.optim.SGD(net.parameters(), lr=LOCAL_LR)
        for first in range(0, w.examples, w.batch):
            batch = slice(first, first + w.batch)
            optimizer.zero_grad()
            of(net(features[batch]), targets[batch]).backward()
            optimizer.step()
        metrics = MetricRecord({"num-examples": w.examples})
        content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
        return Message(content=content, reply_to=message)

    return app


def server_app(w: Workload, rounds: int, ended: list[float]) -> ServerApp:
    """Return the app of the server; it records when each round ends."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            fraction_train=w.cohort / w.clients,
            fraction_evaluate=0.0,
            min_train_nodes=w.cohort,
            min_evaluate_nodes=0,
            min_available_nodes=w.clients,
        )
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model(w).state_dict()),
            num_rounds=rounds + 1,
            evaluate_fn=lambda round_index, arrays: ended.append(time.perf_counter()),
        )

    return app


def seconds_a_round(name: str, rounds: int, actors: int) -> list[float]:
    """Run `rounds` rounds after a warm-up round, on `actors` processes with one processor each."""
    w, ended = WORKLOADS[name], list[float]()
    resources = {"num_cpus": 1, "num_gpus": 0.0}
    run_simulation(
        server_app(w, rounds, ended),
        client_app(w),
        num_supernodes=w.clients,
        backend_config={"client_resources": resources, "init_args": {"num_cpus": actors}},
    )
    return [after - before for before, after in itertools.pairwise(ended[1:])]


if __name__ == "__main__":
    print(json.dumps({"seconds": seconds_a_round(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))}))
