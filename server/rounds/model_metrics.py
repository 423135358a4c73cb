"""Metrics of the model after a round: size of the step, gradients, central validation, and curves every few rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64
from clients.core.examples import Examples
from clients.core.numbers.norms import norm
from clients.core.population import Population
from clients.core.user_code import naming
from clients.engines.evaluation import Evaluation, Evaluator
from clients.engines.objective import global_objective
from clients.engines.samples.held_out import sample_meter
from clients.training.class_metrics import MOST_CLASSES, ClassCounts, class_counts, class_metrics, recalls
from clients.training.losses import metrics
from clients.training.optimizers import penalties
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


@dataclass(frozen=True)
class Curve:
    """A measurement of the model that only some rounds have: every few rounds, round 0 and the last round.

    Attributes:
        every: rounds between measurements, at least 1.
        measure: state -> the entries of the line.
    """

    every: int
    measure: Callable[[ServerState], Line]


class ModelMetrics:
    """Measures models.

    Args:
        population: has the central examples, or objectives, on which models are evaluated.
        evaluator: evaluates models; None where there is nothing to evaluate on.
        gradients: see `Gradients`; None where gradients cannot be computed.
        gradient_every: rounds between gradient passes; 0 for never.
        curves: what only some rounds measure.
    """

    def __init__(
        self,
        population: Population,
        evaluator: Evaluator | None = None,
        *,
        gradients: Gradients | None = None,
        gradient_every: int = 0,
        curves: Sequence[Curve] = (),
    ) -> None:
        self._population, self._evaluator = population, evaluator
        self._gradients, self._every = gradients, gradient_every
        self._curves = tuple(curves)
        self._objectives = _objectives(population, evaluator)
        self._samples = sample_meter(evaluator, population) if population.validation is not None else None

    def measure(self, before: ServerState | None, now: ServerState) -> ModelMeasurement:
        """Measure a model; `before` is the state of the round before, None for the initial one."""
        line: Line = {}
        if before is not None:
            change = norm(now.params - before.params)
            size = norm(before.params)
            line |= {"step_norm": change, "relative_change": change / size if size else None}
        if self._gradients is not None and self._every and now.round_index % self._every == 0:
            with naming("model", f"fails when the clients' gradients are measured in round {now.round_index}"):
                rows, weights = self._gradients(now.round_index, now.params, now.buffers)
            found = gradient_dissimilarity(rows, weights)
            mean = torch.from_numpy(weights / weights.sum()).to(rows.dtype) @ rows
            line |= {
                "gradient_dissimilarity": found.gradient_dissimilarity,
                "gradient_dissimilarity_b_squared": found.b_squared,
                "gradient_norm": norm(mean),
            }
        with naming("model", f"fails on the central validation examples in round {now.round_index}"):
            evaluated = self._evaluate(now)
        return ModelMeasurement(line | evaluated.line, evaluated.predicted)

    def curves(self, now: ServerState, *, is_last: bool = False) -> Line:
        """Return the entries of the curves that are due in this round; `is_last` makes all of them due."""
        due = [curve for curve in self._curves if is_last or now.round_index % curve.every == 0]
        return {key: value for curve in due for key, value in curve.measure(now).items()}

    def curves_at_end(self, now: ServerState) -> Line:
        """Return the entries of the curves that are due in this round only because it is the last."""
        due = [curve for curve in self._curves if now.round_index % curve.every]
        return {key: value for curve in due for key, value in curve.measure(now).items()}

    def _evaluate(self, now: ServerState) -> ModelMeasurement:
        """Measure central validation, classes, samples, optimality gap and distance to the optimum."""
        population, task = self._population, self._population.task
        central, weights = self._objectives or (population.during(now.round_index).validation, None)
        if self._evaluator is None or central is None:
            return ModelMeasurement({}, None)
        self._evaluator.load(now.params, now.buffers)
        if self._objectives is not None:
            result = self._evaluator.central(central, weights)
        else:
            result = self._evaluator.on_central("validation", now.round_index)
        line, counts = _scores("validation", result, central, population)
        if counts is not None and population.outputs <= MOST_CLASSES:
            line["class_accuracy"] = recalls(counts)
        if self._samples is not None:
            line |= self._samples.measure("validation")
        if population.objective is not None:
            line["optimality_gap"] = result.loss - population.objective.optimal_value
            away = now.params.double() - population.objective.optimum.double()
            line["distance_to_optimum"] = min(norm(one) for one in away.reshape(-1, len(now.params)))
        return ModelMeasurement(line, result.predicted[:PROBE_SIZE] if task != "objective" else None)


def curve_of_objective(evaluator: Evaluator, weights: F64, every: int) -> Curve:
    """Return the curve of the global objective; `weights` are p_k, float64 (N,)."""
    has_penalty = any(penalties(evaluator.task.local))

    def measure(now: ServerState) -> Line:
        with naming("model", f"fails when the global objective is measured in round {now.round_index}"):
            found = global_objective(evaluator, now.params, now.buffers, weights=weights, round_index=now.round_index)
        line: Line = {"objective": found.value}
        return line | ({"objective_penalty": found.penalty} if has_penalty else {})

    return Curve(every, measure)


def curve_on_test(evaluator: Evaluator, population: Population, every: int) -> Curve:
    """Return the curve of the scores on the central test examples, which the population must have."""
    samples = sample_meter(evaluator, population)

    def measure(now: ServerState) -> Line:
        examples = population.during(now.round_index).central_examples("test")
        with naming("model", f"fails on the central test examples in round {now.round_index}"):
            evaluator.load(now.params, now.buffers)
            result = evaluator.on_central("test", now.round_index)
            drawn = samples.measure("test") if samples is not None else {}
        return _scores("test", result, examples, population)[0] | drawn

    return Curve(every, measure)


def _scores(
    prefix: str, result: Evaluation, examples: Examples, population: Population
) -> tuple[Line, ClassCounts | None]:
    """Return loss and scores on central examples by the names of the record, and the counts by class."""
    line: Line = dict(metrics(prefix, result.loss, result.score, population.task))
    if population.task != "classification":
        return line, None
    counts = class_counts(result.predicted, examples.targets, population.outputs)
    return line | class_metrics(prefix, counts), counts


def _objectives(population: Population, evaluator: Evaluator | None) -> tuple[Examples, Tensor | None] | None:
    """Return the distinct examples of all clients and their weights, if central evaluation runs on objectives.

    It does not where the server holds validation examples, as for games that draw examples.

    The weights are float64 with sum 1; None where they are equal.
    """
    if evaluator is None or population.task != "objective" or population.validation is not None:
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
