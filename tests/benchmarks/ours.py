"""fedscape on the workloads: as a user runs it, and in turn with bare rounds.

python ours.py user WORKLOAD ROUNDS [SIGMA] [SECTION.KEY=VALUE ...]    record, criteria, drift and validation are on
python ours.py observing WORKLOAD ROUNDS [SECTION.KEY=VALUE ...]       each round followed by a bare one of its state

With SIGMA all clients of the population train, and their sizes are log-normal of the same total work (0: equal).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from workloads import HIDDEN, LOCAL_LR, WORKLOADS, Workload, examples

import fedscape as fs

SETTLE = 3
"""Rounds left out at the start, which make data and warm up."""
VALIDATION = 500
MODELS = {
    "logreg": 'kind = "softmax"',
    "mlp": 'kind = "mlp"\nhidden = [64]',
    "gru": f'kind = "gru"\nhidden = {HIDDEN}',
    "2nn": 'kind = "2nn"',
    "cnn": 'kind = "cnn"',
}
SCENARIO = """
[model]
{model}

[local]
optimizer = "sgd"
local_lr = {local_lr}
batch_size = {batch}
local_epochs = 1

[algorithm]
kind = "fedavg"
cohort = {cohort}

[evaluation]
federated_every = 0

[convergence]
stop = "never"
{target}
plateau = {{ metric = "validation_loss", min_delta = 1e-3, patience = 10 }}
settled = {{ below = 1e-4 }}
agreement = {{ at_least = 0.985, hold = 5 }}

[run]
rounds = {rounds}
seed = 7
"""
TARGET = 'target = { metric = "validation_accuracy", at_least = 0.99, hold = 3 }'
REGRESSION = 'target = { metric = "validation_loss", at_most = 1e-6, hold = 3 }'


def scenario(w: Workload, rounds: int, *sets: str) -> fs.Scenario:
    """Return a workload's scenario; its data come from Python."""
    text = SCENARIO.format(
        model=MODELS[w.name], local_lr=LOCAL_LR, batch=w.batch, cohort=w.cohort, rounds=rounds,
        target=REGRESSION if w.outputs == 1 else TARGET,
    )  # fmt: skip
    if w.outputs == 1:
        text = text.replace("agreement", "# agreement")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{w.name}.toml"
        path.write_text(text)
        return fs.load_scenario(path, sets=list(sets))


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


def population(w: Workload, sizes: np.ndarray[Any, Any] | None = None) -> fs.Population:
    """Return a workload's population, and 500 central examples for validation."""
    own = np.full(w.clients, w.examples) if sizes is None else sizes
    return fs.custom_population(
        lambda k: examples(w, k, int(own[k])),
        own,
        outputs=w.outputs,
        task="regression" if w.outputs == 1 else "classification",
        feature_shape=w.shape,
        validation=examples(w, 10**6, VALIDATION),
    )


class Stopwatch:
    """Called between rounds, it records the seconds since its last return: one whole round."""

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        self.seconds: list[float] = []
        self._between, self._returned = between, time.perf_counter()

    def __call__(self) -> bool:
        """Record a round; return False, so that the run continues."""
        self.seconds.append(time.perf_counter() - self._returned)
        self._between()
        self._returned = time.perf_counter()
        return False


def as_a_user(w: Workload, rounds: int, sets: list[str], sigma: float | None = None) -> dict[str, Any]:
    """Time rounds with everything on."""
    sizes = None
    if sigma is not None:
        w = replace(w, clients=w.cohort)
        sizes = log_normal(w, sigma)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        run = fs.simulate(scenario(w, rounds + SETTLE, *sets), data=population(w, sizes), out=folder, stop_asked=watch)
    assert run.session.plan is not None
    longest = {} if sizes is None else {"longest": int(sizes.max() // w.batch), "mean": w.local_steps}
    return {"seconds": watch.seconds[SETTLE:], "engine": run.session.plan.reason, **longest}


def observing(w: Workload, rounds: int, sets: list[str]) -> dict[str, Any]:
    """Time rounds with everything on, in turn with bare rounds: sampling, local training and aggregation alone."""
    from flwr.app import ConfigRecord

    from simulator.runs.building import Overrides
    from simulator.runs.session import open_session

    data, bare = population(w), list[float]()
    session = open_session(scenario(w, rounds + SETTLE, *sets), Overrides(population=data))
    strategy, grid = session.played.strategy, session.grid
    arrays = strategy.federation.codec.encode(session.start.params, session.start.buffers)

    def between() -> None:
        nonlocal arrays
        started = time.perf_counter()
        sent = strategy.configure_train(len(bare) + 1, arrays, ConfigRecord(), grid)
        new, _ = strategy.aggregate_train(len(bare) + 1, grid.send_and_receive(sent))
        assert new is not None
        arrays = new
        bare.append(time.perf_counter() - started)

    watch = Stopwatch(between)
    with tempfile.TemporaryDirectory() as folder:
        fs.simulate(scenario(w, rounds + SETTLE, *sets), data=data, out=folder, stop_asked=watch)
    return {"observed": watch.seconds[SETTLE:], "bare": bare[SETTLE:]}


def main(arguments: list[str]) -> dict[str, Any]:
    """Run what the arguments name."""
    what, name, rounds, *rest = arguments
    sets = [a for a in rest if "=" in a]
    sigma = next((float(a) for a in rest if "=" not in a), None)
    if what == "observing":
        return observing(WORKLOADS[name], int(rounds), sets)
    return as_a_user(WORKLOADS[name], int(rounds), sets, sigma)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
