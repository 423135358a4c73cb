"""The cost of unequal clients: log-normal sizes compared with equal sizes of the same total work, in turn.

python ragged.py WORKLOAD ROUNDS SIGMA
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
from ours import SETTLE, bare_rounds, population, scenario
from workloads import WORKLOADS, Workload

from simulator.runs.building import Overrides
from simulator.runs.session import open_session


def log_normal(w: Workload, sigma: float) -> np.ndarray[Any, Any]:
    """Return log-normal sizes in whole batches, with the total of equal clients."""
    z = np.random.default_rng(0).normal(size=w.clients)
    share = np.exp(sigma * z) / np.exp(sigma * z).sum()
    steps = np.maximum(1, np.floor(share * w.local_steps * w.clients)).astype(np.int64)
    order = np.argsort(-share)
    short = w.local_steps * w.clients - int(steps.sum())
    steps[order[: abs(short)]] += np.sign(short)
    assert steps.sum() == w.local_steps * w.clients
    assert steps.min() >= 1
    return steps * w.batch


def compare(w: Workload, rounds: int, sigma: float) -> dict[str, Any]:
    """Time rounds of both populations in turn; every client trains."""
    w = replace(w, clients=w.cohort)
    sizes = log_normal(w, sigma)
    players = {}
    for name, data in (("equal", population(w)), ("ragged", population(w, sizes))):
        session = open_session(scenario(w, rounds), Overrides(population=data))
        players[name] = bare_rounds(session), list[float](), session
    for _ in range(rounds + SETTLE):
        for play, seconds, _ in players.values():
            started = time.perf_counter()
            play()
            seconds.append(time.perf_counter() - started)
    times = {name: seconds[SETTLE:] for name, (_, seconds, _) in players.items()}
    engines = {f"{name}_engine": s.plan.reason for name, (_, _, s) in players.items() if s.plan}
    steps = sizes // w.batch
    return {**times, **engines, "longest": int(steps.max()), "shortest": int(steps.min()), "mean": float(steps.mean())}


if __name__ == "__main__":
    print(json.dumps(compare(WORKLOADS[sys.argv[1]], int(sys.argv[2]), float(sys.argv[3]))))
