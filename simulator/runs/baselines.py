"""The baselines of a federation: training on pooled data, and every client training alone.

Where data change over rounds (scheduled faults, concept drift), the baselines train in each round on the federation's
data of that round. They are tested on the test examples of the last round. Pooled training is one model, so it is the
job of one worker; the others train clients alone beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.examples import CohortData, Task
from clients.core.numbers.norms import square_sums
from clients.core.population import Population
from clients.engines.base import Engine
from clients.engines.evaluation import Evaluation, Evaluator
from clients.engines.plain import PlainEngine
from clients.engines.progress import Progress
from clients.processes.wire import Message
from clients.training.local import count_steps
from clients.training.options import LocalOptions
from clients.training.task import LearningTask
from clients.training.work import CohortWork
from simulator.workers.engine import WorkersEngine
from simulator.workers.workplace import Workplace

MOST_EXAMPLES = 2_000_000
MOST_ALONE = 200
ALONE_TOGETHER = 16
"""Clients that train alone and are dealt to a worker together: enough for a stack, few enough to level out."""
BASELINES = "baselines"


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
    trained = _on_workers if isinstance(engine, WorkersEngine) else _in_process
    pooled, scores = trained(task, engine, _Plan(task, rounds=rounds, cohort=cohort))
    found: dict[str, Any] = {"weight_divergence": weight_divergence(params, pooled.params)}
    if pooled.score is None:
        return found
    name = "accuracy" if population.task == "classification" else "error"
    worst = scores.min() if population.task == "classification" else scores.max()
    return found | {
        f"pooled_{name}": pooled.score,
        "local_only_mean": float(scores.mean()),
        "local_only_worst": float(worst),
    }


@dataclass(frozen=True)
class _Pooled:
    """A model trained on the data of all clients, and its score on the central test examples; None without them."""

    params: Tensor
    buffers: Tensor
    score: float | None


class _Plan:
    """What the baselines train. It follows from its arguments, so a worker makes the same.

    Attributes:
        busy: clients that have data.
        clients: those that train alone, int64 (K,), at most `MOST_ALONE`, spread over all.
        alone: their task: a federation's local training, as many times as a client takes part in its rounds.
        in_rounds: the rounds whose data they train on, one after another. Where data change over rounds they are spread
            evenly over the run, and the last is one of them.
        test: the central test examples of the last round; None where nothing is tested, and no client trains alone.
    """

    def __init__(self, task: LearningTask, *, rounds: int, cohort: int) -> None:
        self.rounds, self.cohort = rounds, cohort
        population, changes = task.population, task.population.history.schedule is not None
        test = None if population.task == "objective" else population.during(rounds).test
        busy = np.flatnonzero(population.sizes).astype(np.int64)
        some = busy[np.linspace(0, len(busy) - 1, min(len(busy), MOST_ALONE)).astype(np.int64)]
        times = max(1, round(rounds * cohort / len(busy)))
        spread = np.ceil(np.arange(1, times + 1) * rounds / times).astype(np.int64)
        self.busy, self.test, self.clients = len(busy), test, some if test is not None else some[:0]
        self.in_rounds: list[int] = spread.tolist() if changes else [1]
        self.alone = replace(task, local=_repeated(task.local, 1 if changes else times))

    @property
    def steps(self) -> I64:
        """Local steps that each client takes alone, (K,)."""
        sizes = self.alone.population.sizes[self.clients].astype(np.int64)
        each = count_steps(self.alone.local, sizes, self.clients, seed=self.alone.seed, round_index=1)
        return each * len(self.in_rounds)


def _repeated(local: LocalOptions, times: int) -> LocalOptions:
    """Return options with so many times the local steps, all of which every client takes."""
    local = replace(local, partial_work=0.0, buffers="average")
    if local.local_steps is None:
        return replace(local, local_epochs=(local.local_epochs or 1) * times)
    if isinstance(local.local_steps, int):
        return replace(local, local_steps=local.local_steps * times)
    return replace(local, local_steps=tuple(s * times for s in local.local_steps))


def _in_process(task: LearningTask, engine: Engine, plan: _Plan) -> tuple[_Pooled, F64]:
    """Train the baselines in this process; return the pooled model, and the score of each client that trains alone."""
    pooled = _pooled_model(task, plan, engine.progress)
    if engine.progress is not None:
        engine.progress.begin("training alone", int(plan.steps.sum()) + len(plan.clients), "batches and tests")
    return pooled, _alone(_trainer(engine, plan), plan, plan.clients)


def _on_workers(task: LearningTask, engine: Engine, plan: _Plan) -> tuple[_Pooled, F64]:
    """Train the baselines on workers: job 0 is the pooled model, the others are a few clients each."""
    assert isinstance(engine, WorkersEngine), "the engine has workers"
    steps = plan.steps
    order = np.argsort(-steps, kind="stable")  # clients of about equal steps train together
    blocks = np.split(order, range(ALONE_TOGETHER, len(order), ALONE_TOGETHER)) if len(order) else []
    if engine.progress is not None:
        work = plan.rounds + int(steps.sum()) + len(steps)
        engine.progress.begin("training the baselines", work, "rounds, batches and tests")

    def make(numbers: list[int], rank: int) -> Message:
        chosen = [blocks[n - 1] for n in numbers if n]
        head = {"job": BASELINES, "rounds": plan.rounds, "cohort": plan.cohort, "pooled": 0 in numbers,
                "blocks": [len(block) for block in chosen]}  # fmt: skip
        clients = plan.clients[np.concatenate([*chosen, order[:0]])]
        return Message(head, {"clients": torch.from_numpy(clients)})

    costs = [plan.busy * float(steps.mean()) if len(steps) else 1.0, *(float(steps[block].sum()) for block in blocks)]
    pooled, scores = None, np.zeros(len(steps))
    for _, numbers, answer in engine.pool.run(np.array(costs), make):
        if 0 in numbers:
            pooled = _Pooled(answer.tensors["params"], answer.tensors["buffers"], answer.head["score"])
        if places := [blocks[n - 1] for n in numbers if n]:
            scores[np.concatenate(places)] = answer.tensors["scores"].numpy()
    assert pooled is not None, "job 0 is done"
    return pooled, scores


def _job(place: Workplace, job: Message) -> Message:
    """Train some of the baselines in a worker."""
    plan, progress = _Plan(place.task, rounds=job.head["rounds"], cohort=job.head["cohort"]), place.engine.progress
    head: dict[str, Any] = {"job": BASELINES}
    tensors: dict[str, Tensor] = {}
    if job.head["pooled"]:
        pooled = _pooled_model(place.task, plan, progress)
        head["score"], tensors = pooled.score, {"params": pooled.params, "buffers": pooled.buffers}
    clients, ends = job.tensors["clients"].numpy(), np.cumsum(job.head["blocks"])
    parts = np.split(clients, ends[:-1]) if len(clients) else []
    trainer = _trainer(place.engine, plan)
    scores = [_alone(trainer, plan, part) for part in parts]
    return Message(head, tensors | {"scores": torch.from_numpy(np.concatenate([*scores, np.zeros(0)]))})


JOBS = {BASELINES: _job}
"""What a worker does for the baselines."""


def _pooled_model(task: LearningTask, plan: _Plan, progress: Progress | None) -> _Pooled:
    """Train one model on the data of all clients, and test it."""
    params, buffers = train_pooled(task, rounds=plan.rounds, cohort=plan.cohort, progress=progress)
    score = None
    if plan.test is not None:
        evaluator = Evaluator(task)
        evaluator.load(params, buffers)
        score = _score(evaluator.central(plan.test), task.population.task)
    return _Pooled(params, buffers, score)


def _trainer(engine: Engine, plan: _Plan) -> Engine:
    """Return an engine that trains clients alone."""
    trainer = engine.with_task(plan.alone)
    trainer.progress = engine.progress
    return trainer


def _alone(trainer: Engine, plan: _Plan, clients: I64) -> F64:
    """Train some clients each alone, all together; return their scores on the central test examples, (K,)."""
    if plan.test is None or not len(clients):
        return np.zeros(0)
    task, evaluator = plan.alone, Evaluator(plan.alone)
    params, buffers = (start.expand(len(clients), -1) for start in task.initial())
    once = len(plan.in_rounds) == 1  # later on, each client starts from a model of its own
    together = [slice(0, len(clients))] if once else [slice(k, k + 1) for k in range(len(clients))]
    for round_index in plan.in_rounds:
        ended = [trainer.train(CohortWork(round_index=round_index, clients=clients[part],
                                          params=params[part][0], buffers=buffers[part][0]), {})[0]
                 for part in together]  # fmt: skip
        params, buffers = torch.cat([u.params for u in ended]), torch.cat([u.buffers for u in ended])
    scores = np.zeros(len(clients))
    for k in range(len(clients)):
        evaluator.load(params[k], buffers[k])
        scores[k] = _score(evaluator.central(plan.test), task.population.task)
        if trainer.progress is not None:
            trainer.progress.add(1)
    return scores


def _score(found: Evaluation, task: Task) -> float:
    """Return accuracy, or the root mean squared error of a regression: the score of a run's own test."""
    return found.score if task == "classification" else found.loss**0.5


def weight_divergence(params: Tensor, pooled: Tensor) -> float:
    """Return |w - w_pooled| / |w_pooled|."""
    return float((square_sums((params - pooled)[None]) / square_sums(pooled[None])).sqrt())


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
