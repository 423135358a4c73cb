"""FedAvg as a user would write it: one model, one process, one client after another.

python plain_loop.py WORKLOAD ROUNDS THREADS
"""

from __future__ import annotations

import json
import sys
import time

import torch
from workloads import LOCAL_LR, WORKLOADS, client, loss, model


def seconds_a_round(name: str, rounds: int) -> list[float]:
    """Run `rounds` rounds after a warm-up round."""
    w = WORKLOADS[name]
    net, of = model(w), loss(w)
    optimizer = torch.optim.SGD(net.parameters(), lr=LOCAL_LR)
    shards = [client(name, k) for k in range(w.cohort)]
    server = {n: v.clone() for n, v in net.state_dict().items()}
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        mean = {n: torch.zeros_like(v) for n, v in server.items()}
        for features, targets in shards:
            net.load_state_dict(server)
            for first in range(0, w.examples, w.batch):
                batch = slice(first, first + w.batch)
                optimizer.zero_grad()
                of(net(features[batch]), targets[batch]).backward()
                optimizer.step()
            for n, v in net.state_dict().items():
                mean[n].add_(v, alpha=1 / w.cohort)
        server = mean
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps({"seconds": seconds_a_round(sys.argv[1], int(sys.argv[2]))}))
