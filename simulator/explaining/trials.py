"""Trials: one round from a state of a run with one thing changed, against the same round without the change.

A trial trains a cohort from the state with the run's engine and averages its models by examples. What the algorithm
adds to local steps (control variates, proximal terms) and the server's memory are left out of the changed round and of
the unchanged one alike, so the difference is that of the change alone. Random numbers are addressed: a trial is a pure
function of the run's seed and the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.engines.base import Engine
from clients.engines.evaluation import Evaluator
from clients.training.local import count_steps
from clients.training.options import LocalOptions
from clients.training.schedule_options import ScheduleOptions
from clients.training.task import LearningTask
from clients.training.work import CohortWork

Place = Literal["start", "end"]
MOST_CLIENTS, MOST_EXAMPLES = 50, 8192
"""Clients, and about as many of their examples, on which a trial's loss is measured."""
FEWEST, MOST, CLIENTS = 3, 8, 30
"""Cohorts over which a small gain is measured: as many as have so many clients, within these bounds."""
OWN = "own"
"""The trial without a change."""


@dataclass(frozen=True)
class Trial:
    """The loss after one round from a state, over the training examples of a sample of clients.

    Attributes:
        change: the loss after the round minus that of the state.
        gain: how much lower it is than without the change; 0 for `OWN`. Not finite where the trial diverged.
        error: standard error of the gain, over clients, and over cohorts where there are several.
    """

    change: float
    gain: float
    error: float


@dataclass(frozen=True)
class Variation:
    """One change of a round.

    Attributes:
        name: its key.
        places: the states from which it is tried.
        local: (options, the round, local steps of each client of the cohort) -> changed options.
        cohort: how many times the cohort.
        applies: whether there is anything to change.
        small: whether its gain may be smaller than what the choice of the cohort makes of it.
    """

    name: str
    places: tuple[Place, ...]
    local: Callable[[LocalOptions, int, int], LocalOptions] = lambda local, round_index, steps: local
    cohort: int = 1
    applies: Callable[[LocalOptions], bool] = lambda local: True
    small: bool = False


def _rate(factor: float) -> Callable[[LocalOptions, int, int], LocalOptions]:
    return lambda local, round_index, steps: replace(local, local_lr=local.local_lr * factor)


def _full_batch(local: LocalOptions, round_index: int, steps: int) -> LocalOptions:
    return replace(local, batch_size="full", local_epochs=None, local_steps=max(1, steps))


def _noiseless(local: LocalOptions, round_index: int, steps: int) -> LocalOptions:
    return replace(local, gradient_noise=0.0)


def _unclipped(local: LocalOptions, round_index: int, steps: int) -> LocalOptions:
    return replace(local, clip_norm=None, clip_value=None)


def _undecayed(local: LocalOptions, round_index: int, steps: int) -> LocalOptions:
    return replace(local, schedule=ScheduleOptions())


VARIATIONS: tuple[Variation, ...] = (
    Variation(OWN, ("start", "end"), small=True),
    Variation("eighth_rate", ("start",), _rate(1 / 8)),
    Variation("half_rate", ("end",), _rate(0.5), small=True),
    Variation("fourfold_rate", ("end",), _rate(4.0)),
    Variation("eightfold_rate", ("start",), _rate(8.0)),
    Variation("full_batch", ("end",), _full_batch, applies=lambda o: o.batch_size != "full", small=True),
    Variation("noiseless", ("start", "end"), _noiseless, applies=lambda o: o.gradient_noise > 0, small=True),
    Variation("larger_cohort", ("end",), cohort=4, small=True),
    Variation(
        "unclipped", ("start", "end"), _unclipped, applies=lambda o: o.clip_norm is not None or o.clip_value is not None
    ),
    Variation("undecayed", ("end",), _undecayed, applies=lambda o: o.schedule.kind != "constant"),
)
"""Every trial; the one without a change first."""


@dataclass(frozen=True)
class State:
    """A state of a run from which trials begin.

    Attributes:
        place: "start" or "end".
        round_index: its round; a trial is of the round after it.
        params: [P].
        buffers: [Q].
    """

    place: Place
    round_index: int
    params: Tensor
    buffers: Tensor


class Trials:
    """Plays trials of a run.

    Args:
        task: the run's learning task.
        engine: trains; an engine in this process.
        evaluator: evaluates.
        cohort: clients in a round of the run.
    """

    def __init__(self, task: LearningTask, engine: Engine, evaluator: Evaluator, cohort: int) -> None:
        self._task, self._engine, self._evaluator = task, engine, evaluator
        sizes = task.population.sizes
        self._busy = np.flatnonzero(sizes).astype(np.int64)
        self._cohort = min(cohort, len(self._busy))
        self.sample = sample_of(task)

    def losses(self, state: State) -> F64:
        """Return F_k of the sampled clients at a state, float64 (K,): mean training loss of each."""
        self._evaluator.load(state.params, state.buffers)
        found: F64 = next(iter(self._evaluator.training_losses([self.sample], state.round_index)))
        return found

    @property
    def repeats(self) -> int:
        """How many cohorts measure a small gain."""
        return min(MOST, max(FEWEST, CLIENTS // max(1, self._cohort)))

    def play(self, state: State, *, repeats: int = 1, larger_cohort: bool = True) -> dict[str, Trial]:
        """Return the trials from a state, by name; none where the state is not finite.

        Args:
            state: from which they begin.
            repeats: cohorts over which small gains are measured; the others take one.
            larger_cohort: whether to try a larger cohort, which costs as much as all other trials.
        """
        if not bool(torch.isfinite(state.params).all()):
            return {}
        local, weights = self._task.local, self._weights()
        before = self.losses(state)
        known = [v for v in VARIATIONS if larger_cohort or v.cohort == 1]
        chosen = [v for v in known if state.place in v.places and v.applies(local)]
        after = {v.name: [self._after(state, v, n) for n in range(repeats if v.small else 1)] for v in chosen}
        seen = len(self.sample) / len(self._busy)
        return {name: _trial(before, losses, after[OWN], weights, seen) for name, losses in after.items()}

    def _weights(self) -> F64:
        sizes: F64 = self._task.population.sizes[self.sample].astype(np.float64)
        return np.asarray(sizes / sizes.sum(), np.float64)

    def _after(self, state: State, variation: Variation, repeat: int) -> F64:
        """Return F_k of the sampled clients after the changed round."""
        round_index = state.round_index + 1 + repeat
        clients = self._clients(round_index, variation.cohort)
        task = self._task
        sizes = task.population.sizes[clients].astype(np.int64)
        steps = count_steps(task.local, sizes, clients, seed=task.seed, round_index=round_index)
        local = variation.local(task.local, round_index, round(float(steps.mean())) if len(steps) else 1)
        engine = self._engine if local == task.local else self._engine.with_task(replace(task, local=local))
        params, buffers = _averaged(engine, CohortWork(
            round_index=round_index, clients=clients, params=state.params, buffers=state.buffers
        ))  # fmt: skip
        return self.losses(replace(state, params=params, buffers=buffers))

    def _clients(self, round_index: int, times: int) -> I64:
        """Return a cohort of the round; a larger one contains the smaller."""
        order = np.argsort(streams.keys(self._task.seed, "trial", round_index, self._busy), kind="stable")
        chosen: I64 = np.sort(self._busy[order[: min(times * self._cohort, len(self._busy))]])
        return chosen


def sample_of(task: LearningTask) -> I64:
    """Return the clients on whose training examples trials are measured, spread over all, int64 (K,), increasing."""
    sizes = task.population.sizes
    busy = np.flatnonzero(sizes).astype(np.int64)
    order = busy[np.argsort(streams.keys(task.seed, "trial_sample", 0, busy), kind="stable")]
    fits = int(np.searchsorted(np.cumsum(sizes[order], dtype=np.int64), MOST_EXAMPLES, side="right"))
    sample: I64 = np.sort(order[: min(max(2, fits), MOST_CLIENTS)])
    return sample


def _averaged(engine: Engine, work: CohortWork) -> tuple[Tensor, Tensor]:
    """Train a cohort and return the mean of its parameters and buffers, weighted by examples."""
    params, buffers = (
        torch.zeros_like(work.params, dtype=torch.float64),
        torch.zeros_like(work.buffers, dtype=torch.float64),
    )
    total = 0.0
    for tile in engine.tiles(work):
        update, _ = engine.train(replace(work, clients=work.clients[tile]), {})
        weights = torch.from_numpy(update.num_examples.astype(np.float64))
        params += weights @ update.params.double()
        if buffers.numel():
            buffers += weights @ update.buffers.double()
        total += float(weights.sum())
    return (params / total).to(work.params.dtype), (buffers / total).to(work.buffers.dtype)


def _trial(before: F64, after: Sequence[F64], own: Sequence[F64], weights: F64, seen: float) -> Trial:
    """Return a trial from F_k before the round, after it, and after it without the change, one array a cohort.

    The error over clients is that of a sample without replacement, of which the share `seen` of all clients is known.
    """
    gains = [unchanged - changed for unchanged, changed in zip(own[: len(after)], after, strict=True)]
    change = float(np.mean([weights @ (losses - before) for losses in after]))
    means = [float(weights @ gain) for gain in gains]
    gain = float(np.mean(means))
    if not math.isfinite(gain):
        return Trial(change, gain, math.nan)
    over_clients = (1.0 - seen) * np.mean([_error_of_mean(g, weights) ** 2 for g in gains])
    over_cohorts = float(np.var(means, ddof=1)) / len(means) if len(means) > 1 else 0.0
    return Trial(change, gain, math.sqrt(over_clients + over_cohorts))


def _error_of_mean(values: F64, weights: F64) -> float:
    """Return the standard error of a weighted mean over clients."""
    away = weights * (values - weights @ values)
    return float(np.sqrt((away**2).sum() * len(values) / max(1, len(values) - 1)))


def as_table(trials: Mapping[str, Trial]) -> dict[str, dict[str, float]]:
    """Return trials as JSON values."""
    return {name: {"change": t.change, "gain": t.gain, "error": t.error} for name, t in trials.items()}
