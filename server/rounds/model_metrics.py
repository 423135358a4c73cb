"""Metrics of the model after a round: size of the step, gradients, central validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64
from clients.core.examples import Examples
from clients.core.population import Population
from clients.core.user_code import naming
from clients.engines.evaluation import Evaluator
from clients.training.class_metrics import MOST_CLASSES, class_counts, class_metrics, recalls
from clients.training.losses import metrics
from server.algorithms.state import ServerState
from server.dispersion.measures import gradient_dissimilarity
from server.record.jsonlines import Line

PROBE_SIZE = 1000
Gradients = Callable[[int, Tensor, Tensor], tuple[Tensor, F64]]
"""(round, params, buffers) -> full-batch gradients of all clients (or a sample) [K, P], and their weights [K]."""


@dataclass(frozen=True)
class ModelMeasurement:
    """Measurements of a model.

    Attributes:
        line: for the record.
        predicted: predictions on the probe examples; None without central examples.
    """

    line: Line
    predicted: Tensor | None


class ModelMetrics:
    """Measures models.

    Args:
        population: has the central examples, or objectives, on which models are evaluated.
        evaluator: evaluates models; None where there is nothing to evaluate on.
        gradients: see `Gradients`; None where gradients cannot be computed.
        gradient_every: rounds between gradient passes; 0 for never.
    """

    def __init__(
        self,
        population: Population,
        evaluator: Evaluator | None = None,
        *,
        gradients: Gradients | None = None,
        gradient_every: int = 0,
    ) -> None:
        self._population, self._evaluator = population, evaluator
        self._gradients, self._every = gradients, gradient_every
        self._objectives = _objectives(population, evaluator)

    def measure(self, before: ServerState | None, now: ServerState) -> ModelMeasurement:
        """Measure a model; `before` is the state of the round before, None for the initial one."""
        line: Line = {}
        if before is not None:
            change = torch.linalg.vector_norm(now.params - before.params).item()
            size = torch.linalg.vector_norm(before.params).item()
            line |= {"step_norm": change, "relative_change": change / size if size else None}
        if self._gradients is not None and self._every and now.round_index % self._every == 0:
            with naming("model", f"fails when the clients' gradients are measured in round {now.round_index}"):
                rows, weights = self._gradients(now.round_index, now.params, now.buffers)
            found = gradient_dissimilarity(rows, weights)
            mean = torch.from_numpy(weights / weights.sum()).to(rows.dtype) @ rows
            line |= {
                "gradient_dissimilarity": found.gradient_dissimilarity,
                "gradient_dissimilarity_b_squared": found.b_squared,
                "gradient_norm": torch.linalg.vector_norm(mean).item(),
            }
        with naming("model", f"fails on the central validation examples in round {now.round_index}"):
            evaluated = self._evaluate(now)
        return ModelMeasurement(line | evaluated.line, evaluated.predicted)

    def _evaluate(self, now: ServerState) -> ModelMeasurement:
        """Measure central validation, classes, optimality gap and distance to the optimum."""
        population, task = self._population, self._population.task
        central, weights = self._objectives or (population.during(now.round_index).validation, None)
        if self._evaluator is None or central is None:
            return ModelMeasurement({}, None)
        self._evaluator.load(now.params, now.buffers)
        result = self._evaluator.central(central, weights)
        line: Line = dict(metrics("validation", result.loss, result.score, task))
        if task == "classification":
            counts = class_counts(result.predicted, central.targets, population.outputs)
            line |= class_metrics("validation", counts)
            if population.outputs <= MOST_CLASSES:
                line["class_accuracy"] = recalls(counts)
        if population.objective is not None:
            line["optimality_gap"] = result.loss - population.objective.optimal_value
            away = now.params.double() - population.objective.optimum.double()
            line["distance_to_optimum"] = torch.linalg.vector_norm(away).item()
        return ModelMeasurement(line, result.predicted[:PROBE_SIZE] if task != "objective" else None)


def _objectives(population: Population, evaluator: Evaluator | None) -> tuple[Examples, Tensor | None] | None:
    """Return the distinct examples of all clients and their weights, if central evaluation runs on objectives.

    The weights are float64 with sum 1; None where they are equal.
    """
    if evaluator is None or population.task != "objective":
        return None
    clients = np.arange(population.num_clients)
    data, sizes = population.cohort(clients), population.sizes.astype(np.int64)
    shares = population.federation.weights_of(clients, sizes) * (sizes > 0)
    each = np.repeat(shares / np.maximum(sizes, 1), sizes)
    distinct, where = np.unique(data.rows, return_inverse=True)
    weights = np.bincount(where, weights=each)
    rows = torch.from_numpy(distinct)
    examples = Examples(data.features[rows], data.targets[rows])
    return examples, None if (weights == weights[:1]).all() else torch.from_numpy(weights / weights.sum())
