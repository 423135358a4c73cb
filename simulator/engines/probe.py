"""Predicts the seconds of a round on an engine from a few local steps of real clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.numbers.spacing import evenly_spaced
from clients.engines.base import Engine
from clients.engines.plain import PlainEngine
from clients.training.local import count_steps
from clients.training.optimizers import stacked_optimizer
from clients.training.second_order.steps import kept_vectors
from clients.training.task import LearningTask
from clients.training.work import CohortWork

Build = Callable[[LearningTask], Engine]


@dataclass(frozen=True)
class Cost:
    """Seconds of one `train` call: `setup` once, and `step` for each local step of all its clients together."""

    setup: float
    step: float


@dataclass(frozen=True)
class Sample:
    """A typical cohort.

    Attributes:
        task: the model and the clients' data.
        clients: evenly spaced clients that hold examples, int64 (K,).
        steps: their local steps in round 1, decreasing, int64 (K,).
    """

    task: LearningTask
    clients: I64
    steps: I64

    @property
    def longest(self) -> int:
        """The largest number of local steps."""
        return int(self.steps[0])


def make_sample(task: LearningTask, cohort: int) -> Sample:
    """Choose `cohort` clients (fewer if fewer hold examples) evenly over the population."""
    holding = np.flatnonzero(task.population.sizes).astype(np.int64)
    clients = holding[evenly_spaced(len(holding), max(1, cohort))]
    sizes = task.population.sizes[clients].astype(np.int64)
    steps = count_steps(task.local, sizes, clients, seed=task.seed, round_index=1)
    return Sample(task, clients, -np.sort(-steps))


def plain_round(sample: Sample, cost: Cost, width: int) -> float:
    """Predict a round's seconds on the plain engine from the cost of `width` clients."""
    return (cost.setup * len(sample.steps) + cost.step * float(sample.steps.sum())) / width


def stacked_round(sample: Sample, cost: Cost, width: int, alone: Cost) -> float:
    """Predict a round's seconds on the stacked engine in tiles of `width` clients: the sum over its tiles."""
    return float(tile_seconds(sample, cost, width, alone).sum())


def tile_seconds(sample: Sample, cost: Cost, width: int, alone: Cost) -> F64:
    """Predict the seconds of each tile of at most `width` clients on the stacked engine.

    The cost of a step of fewer clients than `width` is interpolated between one client (`alone`) and all.
    """
    base = min(alone.step, cost.step)
    parts = np.array_split(sample.steps, -(-len(sample.steps) // width))
    each = [base * int(part[0]) + (cost.step - base) * float(part.sum()) / width for part in parts]
    return cost.setup + np.array(each)


def tile_widths(cohort: int, largest: int) -> list[int]:
    """List the tiles worth timing, increasing: the cohort (or the largest that fits), halves and quarters of it.

    Example:
        >>> tile_widths(100, 1000), tile_widths(100, 30)
        ([1, 2, 7, 25, 50, 100], [1, 2, 8, 15, 30])
    """
    top = max(1, min(cohort, largest))
    divisors = [2] + [4**i for i in range(16)]
    return sorted({-(-top // d) for d in divisors})


def largest_tile(sample: Sample, memory_bytes: int) -> int:
    """Return how many clients' parameters, gradients, optimiser states and batch plans fit in `memory_bytes`."""
    task = sample.task
    states = stacked_optimizer(task.local).num_states + kept_vectors(task.local, task.parameters.size)
    parameters = task.parameters.size * task.dtype.itemsize * (3 + states)
    largest = int(task.population.sizes[sample.clients].max(initial=1))
    batch = largest if task.local.batch_size == "full" else min(task.local.batch_size, largest)
    return max(1, memory_bytes // (parameters + 32 * sample.longest * batch))


def disagreement(build: Build, sample: Sample) -> float:
    """Compare an engine with the plain one after two SGD steps of the smallest and the largest client.

    Returns:
        The distance of their updates (parameters and buffers) over the plain one's norm; 0 if one is not finite.
    """
    task = shortened(sample.task, 2)
    sgd = replace(task.local, optimizer="sgd", l1=0.0, clip_norm=None, clip_value=None, gradient_noise=0.0)
    task = replace(task, local=replace(sgd, local_lr=min(sgd.local_lr, 0.01)))
    sizes = task.population.sizes[sample.clients]
    clients = np.unique(sample.clients[[int(sizes.argmin()), int(sizes.argmax())]])
    work = work_of(task, clients)
    start = torch.cat((work.params, work.buffers))

    def moved(engine: Engine) -> Tensor:
        update, _ = engine.train(work, {})
        return torch.cat((update.params, update.buffers), 1).double() - start

    ours, theirs = moved(PlainEngine(task)), moved(build(task))
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return 0.0
    return float((ours - theirs).norm() / (ours.norm() + 1e-5 * start.double().norm()).clamp_min(1e-30))


def seconds_text(seconds: float) -> str:
    """Return a duration in words.

    Example:
        >>> seconds_text(0.00412), seconds_text(0.1234), seconds_text(3.21)
        ('4.1 ms', '123 ms', '3.2 s')
    """
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1e3 * seconds:.0f} ms" if seconds >= 0.00995 else f"{1e3 * seconds:.2g} ms"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, at most 140 characters."""
    line = next((part.strip() for part in str(error).splitlines() if part.strip()), type(error).__name__)
    return line if len(line) <= 140 else line[:139] + "…"


def shortened(task: LearningTask, steps: int) -> LearningTask:
    """Return a task whose clients take so many local steps."""
    return replace(task, local=replace(task.local, local_steps=steps, local_epochs=None, partial_work=0.0))


def work_of(task: LearningTask, clients: I64) -> CohortWork:
    """Return the work of some clients in round 1, from the initial model."""
    params, buffers = task.initial()
    return CohortWork(round_index=1, clients=clients, params=params, buffers=buffers)
