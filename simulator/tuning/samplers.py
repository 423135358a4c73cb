"""Optuna's samplers and pruners by name.

Every trial gets a sampler of its own, seeded by the tuning's seed and the trial's place in the order. So a tuning that
was killed goes on with the proposals that an uninterrupted one would have had, and repeats none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from clients.core.errors import require
from simulator.tuning.parameters import Parameter, Value

Sampler = Literal["tpe", "random", "gp", "qmc", "grid"]
Pruner = Literal["none", "median", "halving", "hyperband"]
STARTUP = 5
"""Finished trials before the median pruner ends one."""
MOST_POINTS = 10_000
REDUCTION = 3
"""Halving and Hyperband keep one trial in three at each rung."""


def sampler_of(name: str, seed: int, place: int) -> BaseSampler:
    """Return the sampler of one trial.

    Args:
        name: a name of `Sampler`. A grid's points are queued, so its sampler proposes nothing.
        seed: the tuning's.
        place: the trial's place among all that were proposed, from 0.
    """
    own = int(np.random.SeedSequence((seed, place)).generate_state(1)[0])
    if name in ("random", "grid"):
        return RandomSampler(seed=own)
    if name == "gp":
        return GPSampler(seed=own, warn_independent_sampling=False)
    if name == "qmc":  # one sequence for all trials: the study counts its points
        return QMCSampler(scramble=True, seed=seed, warn_asynchronous_seeding=False, warn_independent_sampling=False)
    return TPESampler(seed=own)


def grid_of(parameters: Sequence[Parameter]) -> list[dict[str, Value]]:
    """Return the points of a grid: every combination of the choices and steps of the parameters, in their order.

    Raises:
        UserError: a parameter has neither choices nor a step and is no whole number, or there are too many points.
    """
    axes: list[list[Value]] = []
    for parameter in parameters:
        if parameter.low is None or parameter.high is None:
            axes.append(list(parameter.choices))
            continue
        step = parameter.step or (1 if parameter.is_whole and not parameter.is_log else None)
        fix = f"Such as --param {parameter.key}=0.02,0.05,0.1, or another sampler."
        require(step is not None, parameter.key, "has neither choices nor a step, so the grid has no end", fix=fix)
        assert step is not None
        count = int((parameter.high - parameter.low) / step * (1 + 1e-12)) + 1
        axes.append([parameter.number(parameter.low + number * step) for number in range(count)])
    points = math.prod(map(len, axes))
    require(points <= MOST_POINTS, "sampler", f"'grid' has {points:,} points, and at most {MOST_POINTS:,} are allowed",
            fix="Name fewer values.")  # fmt: skip
    keys = [parameter.key for parameter in parameters]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*axes)]


def pruner_of(name: str, rounds: int, every: int, seeds: int) -> BasePruner:
    """Return a pruner.

    Args:
        name: a name of `Pruner`.
        rounds: the budget of one run.
        every: rounds between the values that a trial reports.
        seeds: runs of a trial, which are played one after another.
    """
    if name == "median":
        return MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=rounds // 5)
    if name == "halving":
        return SuccessiveHalvingPruner(min_resource=max(every, rounds // 9), reduction_factor=REDUCTION)
    if name == "hyperband":
        resources = {"min_resource": max(every, rounds // 9), "max_resource": rounds * seeds}
        return HyperbandPruner(**resources, reduction_factor=REDUCTION)
    return NopPruner()
