"""Metrics of a federated evaluation: means by examples, scores over classes, the spread over clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from flwr.app import Message

from clients.core.arrays import F64, Array
from clients.core.population import Population
from clients.engines.evaluation import CohortEvaluation
from clients.flower.decoding import decode_evaluation
from clients.flower.messages import EvaluationReplies
from clients.training.class_metrics import balanced_accuracy, class_metrics
from clients.training.losses import SCORE_NAMES, metrics
from server.dispersion.summary import named, quantiles, worst
from server.record.jsonlines import Line


def evaluation_of(
    replies: Sequence[Message] | EvaluationReplies, population: Population, client_of: Callable[[int], int]
) -> CohortEvaluation | None:
    """Return the result of a federated evaluation; `client_of` maps a node's id to its client."""
    if isinstance(replies, EvaluationReplies):
        return replies.result
    return decode_evaluation(replies, client_of, SCORE_NAMES[population.task])


def score_columns(found: CohortEvaluation | None, population: Population) -> dict[str, Array]:
    """Return a row for each client that had an example: `client`, `num_examples`, `loss`, its score by name.

    The score is `accuracy`, `mae` or `objective`; of classes also `balanced_accuracy`. Empty where no client had one.
    """
    if found is None or not (found.num_examples > 0).any():
        return {}
    columns: dict[str, Array] = {"client": found.clients, "num_examples": found.num_examples, "loss": found.loss}
    columns[SCORE_NAMES[population.task]] = found.score
    if found.classes is not None:
        columns["balanced_accuracy"] = balanced_accuracy(found.classes)
    return {name: values[found.num_examples > 0] for name, values in columns.items()}


def measure_evaluation(found: CohortEvaluation | None, population: Population) -> Line:
    """Measure a federated evaluation; an empty line where no client had an example."""
    task = population.task
    if found is None or not (found.num_examples > 0).any():
        return {}
    known = found.num_examples > 0
    clients = found.clients[known]
    sizes = population.federation.weights_of(clients, found.num_examples[known])
    losses, scores = found.loss[known], found.score[known]
    loss, score = np.average(losses, weights=sizes), np.average(scores, weights=sizes)
    shown = np.sqrt(losses) if task == "regression" else scores  # root mean squared error, as federated_error
    spread: Line = {
        "evaluated_on": found.evaluated_on,
        "clients": len(sizes),
        "variance": _variance(shown),
        "score": _with_tenths(shown),
        "loss": quantiles(losses),
        "worst": named(worst(clients, shown, lowest=task == "classification"), population.federation.client_name),
    }
    line: Line = dict(metrics("federated", float(loss), float(score), task))
    if found.classes is not None:
        spread["balanced_accuracy"] = _with_tenths(balanced_accuracy(found.classes)[known])
        line |= class_metrics("federated", found.classes.total())
    return line | {"client_spread": spread}


def measure_adapted(found: CohortEvaluation, population: Population) -> Line:
    """Measure an evaluation of models that clients adapted; an empty line where no client had an example."""
    known = found.num_examples > 0
    if not known.any():
        return {}
    weights = population.federation.weights_of(found.clients[known], found.num_examples[known])
    loss, score = (float(np.average(values[known], weights=weights)) for values in (found.loss, found.score))
    return dict(metrics("adapted", loss, score, population.task))


def _with_tenths(values: F64) -> dict[str, float]:
    """Return the quantiles of one value for each client, and the first and last decile."""
    with np.errstate(invalid="ignore"):  # scores of a diverged model may be infinite
        tenths = np.quantile(values, (0.1, 0.9)).tolist()
    return quantiles(values) | dict(zip(("p10", "p90"), tenths, strict=True))


def _variance(values: F64) -> float:
    with np.errstate(invalid="ignore"):  # nan where one is infinite
        return float(values.var())
