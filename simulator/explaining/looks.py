"""Looks at a run's data and at its first and last model: what a diagnosis needs beside the record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.core.examples import CohortData
from clients.engines.base import Engine
from clients.engines.evaluation import Evaluator
from clients.training.task import LearningTask
from clients.training.work import CohortWork
from simulator.explaining.pooled import accuracies, largest_share, module_at, pooled_losses
from simulator.explaining.reference import reference_loss
from simulator.explaining.trials import State, Trials, as_table

SHORT = 0.03
"""Share of the way from the first validation loss to the reference's beyond which models are trained on the sample."""
CLEARLY = 0.1
"""The same share by which a model that does better than the reference is clearly not too small."""
_CONSTANT = 1e-9
"""A feature whose deviation is below this share of the largest is constant."""


def look(
    task: LearningTask,
    engine: Engine,
    evaluator: Evaluator,
    states: Sequence[State],
    *,
    cohort: int,
    wider: Callable[[], nn.Module] | None = None,
    larger_cohort: bool = True,
) -> dict[str, Any]:
    """Look at the data of a sample of clients, at the model in each state, and play the trials from it.

    Args:
        task: the run's learning task.
        engine: trains in this process.
        evaluator: evaluates in this process.
        states: the run's first and last state, of which some may not be finite.
        cohort: clients in a round.
        wider: builds the run's model with more width; None where there is none.
        larger_cohort: whether a round with a larger cohort is tried.

    Returns:
        JSON values; `server.diagnosis.evidence.Evidence.looks` says which.
    """
    trials = Trials(task, engine, evaluator, cohort)
    population = task.population.during(states[-1].round_index)
    data = population.cohort(trials.sample)
    rows = _rows(data)
    features, targets = data.features[rows], data.targets[rows]
    reference = reference_loss(population, features, targets, seed=task.seed)
    table: dict[str, Any] = {
        "clients": trials.sample.tolist(),
        "sizes": data.sizes.tolist(),
        "features": _features(features),
        "targets": _targets(targets, task),
        "parameters": int(task.parameters.size),
        "reference_loss": reference,
    }
    for state in states:
        if not bool(torch.isfinite(state.params).all()):
            continue
        losses, repeats = trials.losses(state), trials.repeats if state.place == "end" else 1
        table[state.place] = {
            "round": state.round_index,
            "losses": losses.tolist(),
            "trials": as_table(trials.play(state, repeats=repeats, larger_cohort=larger_cohort)),
        }
        if state.place == "end":
            module = module_at(task, state.params, state.buffers)
            table["end"]["tail"] = largest_share(task, module, features, targets)
            table["end"]["accuracy"] = accuracies(task, module, features, targets)
        if state.place == "start":
            table["start"]["gradients"] = _gradients(task, engine, trials, state)
    last = states[-1]
    if "end" in table and reference is not None and _shortfall(evaluator, states, reference) > SHORT:
        own = module_at(task, last.params, last.buffers)
        found = pooled_losses(task, own, features, targets, last.round_index)
        first = _validation_loss(evaluator, states[0], last.round_index)
        if found is not None:
            table["pooled_loss"], table["pooled_training_loss"] = found
        if wider is not None and found is not None and found[0] > reference - CLEARLY * (first - reference):
            table["wider_loss"], _ = pooled_losses(task, wider(), features, targets, last.round_index) or (None, None)
    return table


def _shortfall(evaluator: Evaluator, states: Sequence[State], reference: float) -> float:
    """Return the share of the way from the first validation loss to the reference's that is left."""
    first, end = (_validation_loss(evaluator, state, states[-1].round_index) for state in (states[0], states[-1]))
    return (end - reference) / (first - reference) if first > reference else 0.0


def _validation_loss(evaluator: Evaluator, state: State, round_index: int) -> float:
    evaluator.load(state.params, state.buffers)
    return evaluator.on_central("validation", round_index).loss


def _rows(data: CohortData) -> Tensor:
    return torch.from_numpy(np.unique(data.rows))


def _features(x: Tensor) -> dict[str, float] | None:
    """Return how unequal the scales of features are; None where features are ids of tokens.

    The last axis of windows and of images of one channel is not a feature: steps of a window share a channel's scale.
    """
    if not x.dtype.is_floating_point or not len(x):
        return None
    columns = x.double().reshape(-1, x.shape[-1]) if x.dim() == 3 else x.double().flatten(1)
    deviation, mean = columns.std(0, correction=0).numpy(), columns.mean(0).numpy()
    live = deviation > _CONSTANT * max(float(deviation.max()), 1e-300)
    if not live.any():
        return None
    low, middle, high = np.quantile(deviation[live], [0.05, 0.5, 0.95])
    return {
        "number": int(live.sum()),
        "low": float(low),
        "middle": float(middle),
        "high": float(high),
        "offset": float(np.median(np.abs(mean[live]) / deviation[live])),
    }


def _targets(y: Tensor, task: LearningTask) -> dict[str, Any]:
    """Return facts on targets: the loss of the best constant prediction, class counts, or tails."""
    kind = task.population.task
    if kind == "classification":
        counts = np.bincount(y.numpy().ravel(), minlength=task.population.outputs)
        shares = counts[counts > 0] / counts.sum()
        return {"constant_loss": float(-(shares * np.log(shares)).sum()), "counts": counts.tolist()}
    if kind == "regression":
        values = y.double().flatten(1)
        away = (values - values.mean(0)).flatten().numpy()
        spread = float(np.sqrt(np.mean(away**2)))
        quarters = np.quantile(away, [0.25, 0.75])
        return {"constant_loss": spread**2, "deviation": spread, "quartiles": float(quarters[1] - quarters[0])}
    return {}


def _gradients(task: LearningTask, engine: Engine, trials: Trials, state: State) -> dict[str, Any]:
    """Return the norm of the sampled clients' mean gradient, in all and by layer, and the norms of the weights."""
    work = CohortWork(round_index=state.round_index, clients=trials.sample, params=state.params, buffers=state.buffers)
    rows = engine.gradients(work).double().cpu()
    sizes = torch.from_numpy(task.population.sizes[trials.sample].astype(np.float64))
    weights = sizes / sizes.sum()
    mean = weights @ rows
    layers = {name: float(mean[part].norm()) for name, part in _parts(task).items()}
    weight_norms = {name: float(state.params[part].double().norm()) for name, part in _parts(task).items()}
    return {"mean_norm": float(mean.norm()), "layers": layers, "weights": weight_norms}


def _parts(task: LearningTask) -> dict[str, slice]:
    """Return the place of each weight matrix in the vector of parameters, by name; biases and scales left out."""
    layout = task.parameters
    ends = (*layout.starts[1:], layout.size)
    found = zip(layout.names, layout.shapes, layout.starts, ends, strict=True)
    return {name: slice(start, end) for name, shape, start, end in found if len(shape) > 1}
