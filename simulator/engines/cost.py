"""Foresees the seconds of a round before the first one, and names the keys that reduce them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from clients.core.errors import any_of
from clients.core.examples import Examples
from clients.engines.evaluation import Evaluator
from clients.training.task import LearningTask
from simulator.engines.plan import EnginePlan
from simulator.engines.probe import make_sample

LONG = 5.0
"""Seconds of a round from which on its cost is announced."""
MANY_EVALUATED = 20_000
"""From this many examples a round on, evaluation is timed before the first round."""
_FEW, _SOME = 128, 2048
_FAST = 0.02  # seconds: where the few take less, some more examples are timed


@dataclass(frozen=True)
class RoundCost:
    """The work of a round and its foreseen seconds.

    Attributes:
        training: seconds of local training.
        evaluation: seconds of evaluation, the mean over rounds.
        clients: clients of a round.
        batches: local steps of a client, the mean.
        batch: examples in a batch; "full" for all of a client's.
        evaluated: examples that are evaluated a round, the mean over rounds.
    """

    training: float
    evaluation: float
    clients: int
    batches: float
    batch: int | str
    evaluated: float

    @property
    def seconds(self) -> float:
        """All seconds of a round."""
        return self.training + self.evaluation

    def facts(self) -> dict[str, float]:
        """Return the foreseen seconds for the record."""
        return {"round": self.seconds, "training": self.training, "evaluation": self.evaluation}


def foresee(
    plan: EnginePlan,
    task: LearningTask,
    evaluator: Evaluator,
    *,
    cohort: int,
    evaluated: float,
    examples: Examples | None,
) -> RoundCost | None:
    """Return the cost of a round; None where the engine was not timed.

    A small federation costs nothing here: only what is expected to take long is timed.

    Args:
        plan: the engine, with the probes that chose it.
        task: the model and the clients' data.
        evaluator: evaluates the model.
        cohort: clients of a round.
        evaluated: examples that are evaluated a round.
        examples: some of those examples; None for none.
    """
    training = plan.round_seconds
    if training is None:
        return None
    sample = make_sample(task, cohort)
    timed = examples is not None and (training >= LONG or evaluated >= MANY_EVALUATED)
    evaluation = evaluated * _seconds_each(evaluator, examples) if timed and examples is not None else 0.0
    return RoundCost(
        training=training,
        evaluation=evaluation,
        clients=len(sample.clients),
        batches=float(sample.steps.mean()),
        batch=task.local.batch_size,
        evaluated=evaluated,
    )


def _seconds_each(evaluator: Evaluator, examples: Examples) -> float:
    """Return the seconds of evaluating one example, out of many; torch's generator is left as it is."""
    with torch.random.fork_rng(devices=[]):
        seconds = _timed(evaluator, examples, _FEW)
        count = min(len(examples), _FEW)
        if seconds < _FAST and len(examples) > count:
            count = min(len(examples), _SOME)
            seconds = _timed(evaluator, examples, _SOME)
    return seconds / max(count, 1)


def _timed(evaluator: Evaluator, examples: Examples, count: int) -> float:
    started = time.perf_counter()
    evaluator.central(Examples(examples.features[:count], examples.targets[:count]))
    return time.perf_counter() - started


def cost_words(
    cost: RoundCost, *, rounds: int, stride: int | None, window: int, federated: float, objective: float = 0.0
) -> str:
    """Return what a round costs and which keys reduce it; empty where it takes only seconds.

    Args:
        cost: of a round.
        rounds: the run's rounds at most.
        stride: `data.stride` of windows; None for other data.
        window: steps of a window.
        federated: share of the evaluated examples that the clients evaluate.
        objective: share of them that the global objective needs.

    Example:
        >>> cost = RoundCost(48.0, 4.0, 12, 1664.0, 128, 25_000)
        >>> print(cost_words(cost, rounds=60, stride=1, window=24, federated=0.0))
        one round is about 52 s: 12 clients x 1,664 batches of 128, then 25,000 examples to evaluate (about 4 s); \
60 rounds take up to 52 min. Reduce it with data.stride = 11, local.local_steps = 151 or algorithm.cohort = 1
    """
    if cost.seconds < LONG:
        return ""
    several = "" if round(cost.batches) == 1 else "es"
    size = f"full batch{several}" if cost.batch == "full" else f"batch{several} of {cost.batch:,}"
    clients = f"{cost.clients:,} client{'' if cost.clients == 1 else 's'}"
    words = f"one round is about {duration(cost.seconds)}: {clients} x {cost.batches:,.0f} {size}"
    if cost.evaluation >= 0.05 * cost.seconds:
        words += f", then {cost.evaluated:,.0f} examples to evaluate (about {duration(cost.evaluation)})"
    words += f"; {rounds:,} rounds take up to {duration(rounds * cost.seconds)}" if rounds > 1 else ""
    keys = _keys(cost, stride, window, federated, objective)
    return words + (f". Reduce it with {any_of(keys)}" if keys else "")


def _keys(cost: RoundCost, stride: int | None, window: int, federated: float, objective: float) -> list[str]:
    """Return the keys that reduce a round's cost, each with a value that brings it to a few seconds."""
    factor = int(np.ceil(cost.seconds / LONG))
    keys = []
    if federated > 0.5 and cost.evaluation > 0.5 * cost.seconds:
        keys.append("a larger evaluation.federated_every")
    if objective > 0.5 and cost.evaluation > 0.5 * cost.seconds:
        keys.append("a larger evaluation.objective_every")
    if stride is not None and stride < window:
        keys.append(f"data.stride = {min(stride * factor, window)}")
    if cost.batches >= 2:
        keys.append(f"local.local_steps = {max(1, round(cost.batches / factor))}")
    if cost.clients > 1:
        keys.append(f"algorithm.cohort = {max(1, cost.clients // factor)}")
    return keys


def duration(seconds: float) -> str:
    """Return a rough duration.

    Example:
        >>> duration(6.24), duration(52.3), duration(3120), duration(3 * 3600), duration(4 * 86400)
        ('6.2 s', '52 s', '52 min', '3 h', '96 h')
    """
    for size, unit in ((1.0, "s"), (60.0, "min")):
        if seconds < 120 * size or (unit == "min" and seconds < 5400):
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.2g} h" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"
