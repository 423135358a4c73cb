"""fedscape on the workloads: as a user runs it, and in turn with bare rounds.

python ours.py user WORKLOAD ROUNDS         with record, criteria, drift and central validation: seconds a round
python ours.py observing WORKLOAD ROUNDS    each round followed by a bare one of the same state: the cost of observing
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord
from workloads import LOCAL_LR, OUTPUTS, WORKLOADS, Workload, examples

import fedscape as fs
from simulator.runs.building import Overrides
from simulator.runs.session import Session, open_session

SETTLE = 3
"""Rounds left out at the start, which make data and warm up."""
VALIDATION = 500
MODELS = {"logreg": "softmax", "2nn": "2nn", "cnn": "cnn"}
SCENARIO = """
[model]
kind = "{model}"

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
target = {{ metric = "validation_accuracy", at_least = 0.9, hold = 3 }}
plateau = {{ metric = "validation_loss", min_delta = 1e-3, patience = 10 }}
settled = {{ below = 1e-4 }}
agreement = {{ at_least = 0.985, hold = 5 }}

[run]
rounds = {rounds}
seed = 7
"""


def scenario(w: Workload, rounds: int, *sets: str) -> fs.Scenario:
    """Return a workload's scenario; its data come from Python."""
    text = SCENARIO.format(
        model=MODELS[w.name], local_lr=LOCAL_LR, batch=w.batch, cohort=min(w.cohort, w.clients), rounds=rounds
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{w.name}.toml"
        path.write_text(text)
        return fs.load_scenario(path, sets=list(sets))


def population(w: Workload, sizes: np.ndarray[Any, Any] | None = None) -> fs.Population:
    """Return a workload's population, and 500 central examples for validation."""
    own = np.full(w.clients, w.examples) if sizes is None else sizes
    return fs.custom_population(
        lambda k: examples(w, k, int(own[k])),
        own,
        outputs=OUTPUTS,
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


def as_a_user(w: Workload, rounds: int, data: fs.Population | None = None, *sets: str) -> dict[str, Any]:
    """Time rounds with everything on."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        run = fs.simulate(scenario(w, rounds + SETTLE, *sets), data=data or population(w), out=folder, stop_asked=watch)
    assert run.session.plan is not None
    return {"seconds": watch.seconds[SETTLE:], "engine": run.session.plan.reason}


def bare_rounds(session: Session) -> Callable[[], None]:
    """Return a function that runs one bare round a call: sampling, local training and aggregation."""
    arrays, number = session.start.arrays, 0

    def play() -> None:
        nonlocal arrays, number
        number += 1
        strategy, grid = session.played.strategy, session.grid
        sent = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        new, _ = strategy.aggregate_train(number, grid.send_and_receive(sent))
        assert new is not None
        arrays = new

    return play


def observing(w: Workload, rounds: int) -> dict[str, Any]:
    """Time rounds with everything on, in turn with bare rounds."""
    data, bare = population(w), list[float]()
    session = open_session(scenario(w, rounds + SETTLE), Overrides(population=data))
    play = bare_rounds(session)

    def between() -> None:
        started = time.perf_counter()
        play()
        bare.append(time.perf_counter() - started)

    watch = Stopwatch(between)
    with tempfile.TemporaryDirectory() as folder:
        fs.simulate(scenario(w, rounds + SETTLE), data=data, out=folder, stop_asked=watch)
    return {"observed": watch.seconds[SETTLE:], "bare": bare[SETTLE:]}


if __name__ == "__main__":
    what, chosen, count = sys.argv[1], WORKLOADS[sys.argv[2]], int(sys.argv[3])
    print(json.dumps(as_a_user(chosen, count) if what == "user" else observing(chosen, count)))
