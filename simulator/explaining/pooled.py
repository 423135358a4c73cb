"""What a model reaches on the pooled sample, where nothing of the federation is in its way.

A run that falls short has a model that is too small, or something else in its way: few rounds, small steps, unequal
clients. The curve does not tell which. A short training of the run's own model by a good optimiser does: from the run's
last state, on the pooled sample. A model that is too small falls short there too, of the reference or of the same
model, four times as wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.core import streams
from clients.core.parameters import write_vector
from clients.engines.evaluation import CHUNK
from clients.models.build import build_model
from clients.models.options import ModelOptions
from clients.training.losses import example_losses, example_scores, predictions
from clients.training.optimizers import stacked_optimizer
from clients.training.options import LocalOptions
from clients.training.task import LearningTask, cast_features, cast_targets, working_copy

STEPS, BATCH, RATE = 200, 64, 0.01
"""Steps of Adam (Kingma and Ba 2015) of so many examples, and its first rate, which falls to 0 along a cosine."""
LARGEST = 0.01
"""Share of the examples whose losses are the largest."""
WIDER, MOST_PARAMETERS = 4, 200_000
"""Times the width of the wider model, and the most parameters of a model that is made wider."""


def pooled_losses(
    task: LearningTask, module: nn.Module, features: Tensor, targets: Tensor, round_index: int
) -> tuple[float, float] | None:
    """Return the validation loss and the training loss of a model after a short training on the pooled sample.

    Args:
        task: the run's learning task: its data, loss and type of numbers.
        module: the model, from whose values training begins; it is copied, and its buffers and dropout are left out.
        features: of the pooled sample [n, ...].
        targets: its targets.
        round_index: whose validation examples count.

    Returns:
        The mean losses; None without validation examples, or where training left the finite numbers. A small sample
        is learnt by heart: then the training loss is far below the other one.
    """
    validation = task.population.during(round_index).validation
    if validation is None or task.population.task == "objective" or len(features) < 2:
        return None
    trained = working_copy(module).to(task.dtype).eval().to(task.device)
    _train(task, trained, features, targets)
    parts = ((validation.features, validation.targets), (features, targets))
    reached, fitted = (float(_each_loss(task, trained, x, y).mean()) for x, y in parts)
    return (reached, fitted) if math.isfinite(reached) and math.isfinite(fitted) else None


def largest_share(task: LearningTask, module: nn.Module, features: Tensor, targets: Tensor) -> float | None:
    """Return the share of the pooled sample's loss that its largest `LARGEST` make; None but for numbers.

    Normal errors have 0.085 of their squares there.
    """
    if task.population.task != "regression" or len(features) < 1 / LARGEST:
        return None
    found = _each_loss(task, working_copy(module).to(task.dtype).eval().to(task.device), features, targets)
    total, most = float(found.sum()), round(LARGEST * len(found))
    return float(found.topk(most).values.sum()) / total if 0 < total < math.inf else None


def accuracies(task: LearningTask, module: nn.Module, features: Tensor, targets: Tensor) -> dict[str, float] | None:
    """Return the shares of the pooled sample and of the validation examples that a model classifies as labelled.

    With the number of the validation `examples`. None but for classes, and without validation examples.
    """
    validation = task.population.validation
    if task.population.task != "classification" or validation is None or not len(features):
        return None
    module = working_copy(module).to(task.dtype).eval().to(task.device)
    parts = {"training": (features, targets), "validation": (validation.features, validation.targets)}
    found = {name: _accuracy(task, module, x, y) for name, (x, y) in parts.items()}
    return found | {"examples": float(len(validation.features))}


def _accuracy(task: LearningTask, module: nn.Module, features: Tensor, targets: Tensor) -> float:
    with torch.no_grad():
        outputs = (module(cast_features(x, task.dtype).to(task.device)) for x in torch.split(features, CHUNK))
        found = torch.cat([predictions(one, "classification") for one in outputs]).cpu()
    return float(example_scores(found, targets, "classification").mean())


def _each_loss(task: LearningTask, module: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each example, float64 (n,)."""
    with torch.no_grad():
        parts = zip(torch.split(features, CHUNK), torch.split(targets, CHUNK), strict=True)
        return torch.cat([_losses(task, module, x, y) for x, y in parts]).double()


def _train(task: LearningTask, module: nn.Module, features: Tensor, targets: Tensor) -> None:
    """Train a module in place, by the engine's Adam: torch's own optimisers import its compiler for a second."""
    places = [p for p in module.parameters() if p.requires_grad]
    optimizer = stacked_optimizer(LocalOptions(optimizer="adam", local_lr=RATE))
    moments = [[torch.zeros_like(place) for _ in range(optimizer.num_states)] for place in places]
    random, size = np.random.default_rng(task.seed), min(BATCH, len(features))
    for step in range(1, STEPS + 1):
        rows = torch.from_numpy(random.choice(len(features), size, replace=False))
        loss = _losses(task, module, features[rows], targets[rows]).mean()
        gradients = torch.autograd.grad(loss, places, allow_unused=True)
        rate = RATE * (1 + math.cos(math.pi * (step - 1) / STEPS)) / 2
        with torch.no_grad():
            for place, gradient, state in zip(places, gradients, moments, strict=True):
                if gradient is not None:
                    optimizer.step(place, gradient, state, step, rate)


def _losses(task: LearningTask, module: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
    outputs = module(cast_features(features, task.dtype).to(task.device))
    wanted = cast_targets(targets, task.dtype).to(task.device)
    return example_losses(outputs, wanted, task.population.task, task.local.loss)


def module_at(task: LearningTask, params: Tensor, buffers: Tensor) -> nn.Module:
    """Return a copy of the task's module with these parameters [P] and buffers [Q]."""
    module = working_copy(task.module)
    write_vector(module, task.parameters, params)
    if task.buffers.names:
        write_vector(module, task.buffers, buffers)
    return module


def wider_model(options: ModelOptions | None, task: LearningTask) -> Callable[[], nn.Module] | None:
    """Return what builds the run's model four times as wide; None for a model without widths, or a large one.

    Args:
        options: of the scenario's model; None for a model from Python.
        task: the run's learning task.
    """
    known = {field.name for field in fields(options)} if options is not None else set()
    name = next((key for key in ("hidden", "channels") if key in known), None)
    width: Any = getattr(options, name) if name is not None else None
    if options is None or not width or task.parameters.size > MOST_PARAMETERS:
        return None
    changed: Any = {name: tuple(WIDER * w for w in width) if isinstance(width, tuple) else WIDER * width}
    wider, seed = replace(options, **changed), int(streams.keys(task.seed, "model") >> np.uint64(2))
    return lambda: build_model(wider, task.population, seed)
