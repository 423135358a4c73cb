"""The share of a small round that drawing batches and dropout masks takes. The aim is below 10%.

    python tests/benchmarks/generator_cost.py

A round has 100 clients with 20 local steps of 10 examples with 60 features, in the stacked engine. The models are
softmax regression and perceptrons with dropout. Run it on a quiet machine. Rows are medians of 30 rounds and name the
drawn numbers. The last line is the same as JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import clients.engines.stacked as stacked_module
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import MlpOptions, ModelOptions, SoftmaxOptions
from clients.sources.custom import custom_population
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork

CLIENTS, STEPS, BATCH, FEATURES, CLASSES, ROUNDS = 100, 20, 10, 60, 10, 30
ROWS: dict[str, ModelOptions] = {
    "softmax": SoftmaxOptions(),
    "perceptron, dropout 0.5": MlpOptions(hidden=(64,), dropout=0.5),
    "perceptron, dropout 0.1": MlpOptions(hidden=(64,), dropout=0.1),
}


def watch(name: str, spent: dict[str, float]) -> None:
    """Make a function of the stacked engine's module add its seconds to `spent`."""
    inner: Callable[..., Any] = getattr(stacked_module, name)

    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return inner(*arguments, **named)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - started

    setattr(stacked_module, name, timed)


def round_shares(model: ModelOptions, spent: dict[str, float]) -> tuple[float, dict[str, float]]:
    """Return the median seconds of a round and of each watched function."""

    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(k)
        return random.normal(size=(STEPS * BATCH, FEATURES)), random.integers(0, CLASSES, STEPS * BATCH)

    population = custom_population(client, [STEPS * BATCH] * CLIENTS, outputs=CLASSES)
    task = make_task(build_model(model, population, 0), population, LocalOptions(batch_size=BATCH), seed=0)
    params, buffers = task.initial()
    engine, rounds, parts = StackedEngine(task), [], []
    for t in range(1, ROUNDS + 4):
        spent.clear()
        started = time.perf_counter()
        engine.train(CohortWork(round_index=t, clients=np.arange(CLIENTS), params=params, buffers=buffers), {})
        rounds.append(time.perf_counter() - started)
        parts.append(dict(spent))
    warm = parts[3:]
    return statistics.median(rounds[3:]), {n: statistics.median(p[n] for p in warm) for n in warm[0]}


def main() -> None:
    """Print a row for each model and number of threads."""
    spent: dict[str, float] = {}
    rows: dict[str, str] = {}
    for name in ("plan_batches", "dropout_keys", "dropout_mask"):
        watch(name, spent)
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        for name, model in ROWS.items():
            whole, parts = round_shares(model, spent)
            shares = ", ".join(f"{n} {1e3 * s:.2f} ms" for n, s in parts.items())
            share = sum(parts.values()) / whole
            text = f"{1e3 * whole:6.2f} ms a round, drawing {share:5.1%} ({shares})"
            rows[f"{name}, {threads} threads"] = text.strip()
            print(f"{name:24} {threads} threads: {text}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
