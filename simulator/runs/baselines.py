"""The baselines of a federation: training on pooled data, and every client training alone.

Where data change over rounds (scheduled faults, concept drift), the baselines train in each round on the federation's
data of that round. They are tested on the test examples of the last round.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64
from clients.core.examples import CohortData, Examples, Task
from clients.core.population import Population
from clients.engines.base import Engine
from clients.engines.evaluation import Evaluation, Evaluator
from clients.engines.plain import PlainEngine
from clients.engines.progress import Progress
from clients.training.local import count_steps
from clients.training.task import LearningTask
from clients.training.work import CohortWork

MOST_EXAMPLES = 2_000_000
MOST_ALONE = 200


def baselines(task: LearningTask, engine: Engine, params: Tensor, *, rounds: int, cohort: int) -> dict[str, Any]:
    """Train the baselines of a finished federation and compare them with it.

    Args:
        task: the federation's task.
        engine: trains the clients that train alone.
        params: the federation's final parameters [P].
        rounds: the federation's rounds.
        cohort: clients of a round.

    Returns:
        `pooled_accuracy` (of a regression `pooled_error`, root mean squared) and `weight_divergence` (Zhao et al. 2018:
        |w - w_pooled| / |w_pooled|) at equal work; `local_only_mean` and `local_only_worst`, the same of clients that
        train alone, all on the central test examples; or `not_measured` and why.
    """
    population = task.population
    if population.federation.shares is not None:
        return {"not_measured": "pooled training weighs clients by their examples, and these data have real weights"}
    if population.num_examples > MOST_EXAMPLES:
        most = f"at most {MOST_EXAMPLES:,} examples are pooled"
        return {"not_measured": f"{most}, and there are {population.num_examples:,}"}
    pooled, buffers = train_pooled(task, rounds=rounds, cohort=cohort, progress=engine.progress)
    found: dict[str, Any] = {"weight_divergence": weight_divergence(params, pooled)}
    test = population.during(rounds).test
    if test is None or population.task == "objective":
        return found
    name = "accuracy" if population.task == "classification" else "error"
    evaluator = Evaluator(task)
    evaluator.load(pooled, buffers)
    found[f"pooled_{name}"] = _score(evaluator.central(test), population.task)
    scores = train_alone(task, engine, evaluator, test, rounds=rounds, cohort=cohort)
    worst = scores.min() if population.task == "classification" else scores.max()
    return found | {"local_only_mean": float(scores.mean()), "local_only_worst": float(worst)}


def _score(found: Evaluation, task: Task) -> float:
    """Return accuracy, or the root mean squared error of a regression: the score of a run's own test."""
    return found.score if task == "classification" else found.loss**0.5


def weight_divergence(params: Tensor, pooled: Tensor) -> float:
    """Return |w - w_pooled| / |w_pooled|."""
    return float(torch.linalg.vector_norm(params - pooled) / torch.linalg.vector_norm(pooled))


def train_pooled(
    task: LearningTask, *, rounds: int, cohort: int, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """Train one model on the data of all clients, at equal work.

    Each round takes the cohort's mean number of local steps, on batches as large as the cohort's batches together,
    with the same optimiser and learning rates. With one full-batch local step and everyone taking part it is FedAvg.

    Returns:
        Parameters [P] and buffers [Q].
    """
    everyone = np.flatnonzero(task.population.sizes).astype(np.int64)
    sizes = task.population.sizes[everyone].astype(np.int64)
    count = int(sizes.sum())
    steps = count_steps(replace(task.local, partial_work=0.0), sizes, everyone, seed=task.seed, round_index=1)
    batch = task.local.batch_size
    local = replace(
        task.local,
        local_epochs=None,
        local_steps=max(1, round(float(steps.mean()))),
        batch_size="full" if batch == "full" else min(count, batch * cohort),
        drop_last=True,
        partial_work=0.0,
        buffers="average",
    )
    engine = PlainEngine(replace(task, population=_pooled(task.population, everyone), local=local))
    params, buffers = task.initial()
    if progress is not None:
        progress.begin("training on pooled data", rounds, "rounds")
    for round_index in range(1, rounds + 1):
        work = CohortWork(round_index=round_index, clients=np.zeros(1, np.int64), params=params, buffers=buffers)
        update, _ = engine.train(work, {})
        params, buffers = update.params[0], update.buffers[0]
        if progress is not None:
            progress.add(1)
    return params, buffers


def _pooled(population: Population, clients: I64) -> Population:
    """Return a population of one client that has the examples of `clients`; in each round, those of that round."""
    count = np.array([population.sizes[clients].sum(dtype=np.int64)])

    def of(now: Population) -> Population:
        data = now.cohort(clients)
        pool = CohortData(data.features, data.targets, data.rows, np.array([0, count[0]]))
        return replace(
            now,
            federation=replace(now.federation, sizes=count.astype(np.int32)),
            clients=replace(now.clients, cohort=lambda _: pool, held_out=None),
            history=replace(now.history, schedule=None),
        )

    start = of(population.during(0))
    if population.history.schedule is None:
        return start
    return replace(start, history=replace(start.history, schedule=lambda r: of(population.during(r))))


def train_alone(
    task: LearningTask, engine: Engine, evaluator: Evaluator, test: Examples, *, rounds: int, cohort: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Train up to `MOST_ALONE` clients each alone, for its share of the federation's rounds; return test scores.

    Where data change over rounds, a client trains in rounds spread evenly over the run, including the last.
    """
    population: Population = task.population
    busy = np.flatnonzero(population.sizes).astype(np.int64)
    clients = busy[np.linspace(0, len(busy) - 1, min(len(busy), MOST_ALONE)).astype(np.int64)]
    times = max(1, round(rounds * cohort / len(busy)))
    in_rounds = (
        np.ceil(np.arange(1, times + 1) * rounds / times).astype(np.int64)
        if population.history.schedule
        else np.ones(1)
    )
    times = times if population.history.schedule is None else 1
    local = task.local
    if local.local_steps is None:
        local = replace(local, local_epochs=(local.local_epochs or 1) * times)
    elif isinstance(local.local_steps, int):
        local = replace(local, local_steps=local.local_steps * times)
    else:
        local = replace(local, local_steps=tuple(s * times for s in local.local_steps))
    alone = replace(task, local=replace(local, partial_work=0.0, buffers="average"))
    trainer = engine.with_task(alone)
    params, buffers = (start.expand(len(clients), -1) for start in task.initial())
    trainer.progress = engine.progress
    if engine.progress is not None:
        sizes = population.sizes[clients].astype(np.int64)
        steps = count_steps(alone.local, sizes, clients, seed=task.seed, round_index=1).sum()
        engine.progress.begin("training alone", int(steps) * len(in_rounds), "batches")
    together = [slice(0, len(clients))] if len(in_rounds) == 1 else [slice(k, k + 1) for k in range(len(clients))]
    for round_index in in_rounds.tolist():
        ended = [trainer.train(CohortWork(round_index=int(round_index), clients=clients[part],
                                          params=params[part][0], buffers=buffers[part][0]), {})[0]
                 for part in together]  # fmt: skip
        params, buffers = torch.cat([u.params for u in ended]), torch.cat([u.buffers for u in ended])
    scores = []
    for k in range(len(clients)):
        evaluator.load(params[k], buffers[k])
        scores.append(_score(evaluator.central(test), population.task))
    return np.array(scores)
