"""The facts of a round that convergence is judged by: their names for people, what they mean, which way is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clients.core.errors import require, unknown_name


@dataclass(frozen=True)
class Fact:
    """One measured quantity.

    Attributes:
        label: its name for people, as it appears inside a sentence.
        meaning: what it is, in one line.
        better: which way a metric improves; None for a fact that `target` and `plateau` may not name.
        range: its least and largest possible value.
        range_of_task: the range for a task where it is another.
    """

    label: str
    meaning: str
    better: Literal["low", "high"] | None = None
    range: tuple[float, float] = (0.0, math.inf)
    range_of_task: Mapping[str, tuple[float, float]] = field(default_factory=dict)


SHARE = (0.0, 1.0)
_OF_AN_OBJECTIVE = {"objective": (-math.inf, math.inf)}
"""The objective of a quadratic with linear terms has no known bound."""
_OF_CLASSES = {"classification": SHARE}


FACTS: Mapping[str, Fact] = {
    "train_loss": Fact("training loss", "mean training loss", "low", range_of_task=_OF_AN_OBJECTIVE),
    "validation_loss": Fact(
        "validation loss", "mean loss on the central validation examples", "low", range_of_task=_OF_AN_OBJECTIVE
    ),
    "validation_accuracy": Fact(
        "validation accuracy", "share of the validation examples that are predicted right", "high", range=SHARE
    ),
    "validation_balanced_accuracy": Fact(
        "balanced validation accuracy",
        "share of a class's validation examples that are predicted right, mean over classes",
        "high",
        range=SHARE,
    ),
    "validation_macro_f1": Fact(
        "validation macro-F1", "F1 on the validation examples, mean over classes", "high", range=SHARE
    ),
    "validation_error": Fact(
        "validation error",
        "share of the validation examples that are predicted wrong; root mean squared error of a regression",
        "low",
        range_of_task=_OF_CLASSES,
    ),
    "validation_mae": Fact(
        "mean absolute validation error", "mean absolute error of a regression on the validation examples", "low"
    ),
    "validation_frechet_distance": Fact(
        "Fréchet distance of samples",
        "squared Fréchet distance between Gaussians of the model's samples and of the validation examples",
        "low",
    ),
    "validation_sample_precision": Fact(
        "precision of samples",
        "share of the model's samples that lie among the validation examples",
        "high",
        range=SHARE,
    ),
    "validation_sample_coverage": Fact(
        "coverage by samples", "share of the validation examples that have a sample nearby", "high", range=SHARE
    ),
    "validation_sample_classes": Fact(
        "classes among samples", "number of classes that the model's samples have", "high"
    ),
    "objective": Fact(
        "global objective",
        "sum p_k F_k over all clients' training data, with penalties (needs evaluation.objective_every)",
        "low",
        range_of_task=_OF_AN_OBJECTIVE,
    ),
    "federated_loss": Fact(
        "loss on the clients", "mean loss on the examples that clients hold out", "low", range_of_task=_OF_AN_OBJECTIVE
    ),
    "federated_accuracy": Fact(
        "accuracy on the clients",
        "share of the clients' held-out examples that are predicted right",
        "high",
        range=SHARE,
    ),
    "federated_balanced_accuracy": Fact(
        "balanced accuracy on the clients",
        "share of a class's held-out examples on clients that are predicted right, mean over classes",
        "high",
        range=SHARE,
    ),
    "federated_macro_f1": Fact(
        "macro-F1 on the clients", "F1 on the held-out examples of all clients, mean over classes", "high", range=SHARE
    ),
    "federated_error": Fact(
        "error on the clients",
        "share of the clients' held-out examples that are predicted wrong; root mean squared error of a regression",
        "low",
        range_of_task=_OF_CLASSES,
    ),
    "adapted_loss": Fact(
        "loss after adaptation", "mean loss on clients' held-out examples, each after local steps", "low"
    ),
    "adapted_accuracy": Fact(
        "accuracy after adaptation",
        "share of the clients' held-out examples that are predicted right, each after local steps",
        "high",
        range=SHARE,
    ),
    "adapted_error": Fact(
        "error after adaptation",
        "share of clients' held-out examples predicted wrong, each after local steps; root mean squared error of a "
        "regression",
        "low",
        range_of_task=_OF_CLASSES,
    ),
    "adapted_mae": Fact(
        "mean absolute error after adaptation",
        "mean absolute error on clients' held-out examples after local steps",
        "low",
    ),
    "optimality_gap": Fact("optimality gap", "f(x) - f*, where f* is known; f = sum p_k F_k of the data", "low"),
    "distance_to_optimum": Fact("distance to the optimum", "|x - x*|, where x* is known", "low"),
    "relative_change": Fact(
        "relative change of the parameters", "norm of the round's change of the parameters over their norm before it"
    ),
    "step_norm": Fact("length of the server's step", "norm of the round's change of the parameters"),
    "pseudo_gradient_norm": Fact("norm of the pseudo-gradient", "norm of the aggregated pseudo-gradient"),
    "gradient_norm": Fact(
        "norm of the true gradient",
        "norm of the full gradient of the objective that the run minimises (costs a pass over all data)",
    ),
    "agreement": Fact(
        "share of unchanged predictions",
        "share of the probe examples with the same prediction as a round before",
        range=SHARE,
    ),
    "train_errors": Fact("training errors", "number of training examples that are predicted wrong"),
    "largest_gradient_norm": Fact(
        "largest norm of a local gradient", "largest norm of a client's local gradient this round"
    ),
}
"""Every fact by its key in the record. Test metrics are missing: they decide nothing in a run."""

METRICS: Mapping[str, bool] = {name: fact.better == "high" for name, fact in FACTS.items() if fact.better}
"""The facts that a target or a plateau may name -> whether higher is better."""


NO_AGGREGATE = "no_aggregate"
"""Key of a line whose round had no aggregate: no cohort, or every update left out."""


def facts_of(line: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the facts that a line of the record gives; none where its round had no aggregate.

    The model of such a round is that of the round before. What is measured on it is true and no news: it is evidence
    neither of standing still nor of staying at a target.
    """
    return {} if line.get(NO_AGGREGATE) else {name: line.get(name) for name in FACTS}


def range_of(name: str, task: str | None = None) -> tuple[float, float]:
    """Return the least and the largest possible value of a fact.

    Args:
        name: a key of `FACTS`.
        task: "classification", "regression" or "objective"; None for the range over all tasks.

    Example:
        >>> range_of("validation_error", "classification"), range_of("validation_error")
        ((0.0, 1.0), (0.0, inf))
    """
    fact = FACTS[name]
    if task is not None:
        return fact.range_of_task.get(task, fact.range)
    ranges = [fact.range, *fact.range_of_task.values()]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def check_possible(name: str, field: str, value: float, task: str | None = None) -> None:
    """Raise `UserError` where a fact can never have a value that a criterion compares it with."""
    low, high = range_of(name, task)
    limits = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
    fix = of_percentage(value) if high == 1.0 else ""
    require(low <= value <= high, field, f"must be {limits}, as {name} is, got {value:g}", fix=fix)


def of_percentage(value: float) -> str:
    """Return what to write instead of a percentage where a share is meant; empty where none is likely.

    Example:
        >>> of_percentage(95.0), of_percentage(0.95)
        ('95 is a percentage: write 0.95.', '')
    """
    return f"{value:g} is a percentage: write {value / 100:g}." if 1.0 < value <= 100.0 else ""


def shown(value: float) -> str:
    """Return a value with four significant digits.

    Example:
        >>> [shown(value) for value in (0.96661, 32470.3, 1.068e-7, float("nan"))]
        ['0.9666', '32,470', '1.068e-07', 'nan']
    """
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"


def label_of(name: str) -> str:
    """Return what people call a measured quantity.

    Example:
        >>> label_of("validation_loss"), label_of("update_dispersion"), label_of("client_drift.mean")
        ('validation loss', 'update dispersion', 'client drift (mean)')
    """
    if name in FACTS:
        return FACTS[name].label
    quantity, _, level = name.partition(".")
    return quantity.replace("_", " ") + (f" ({level})" if level else "")


def check_metric(metric: str) -> None:
    """Raise `UserError` unless `metric` may end a run."""
    problem = unknown_name(metric, METRICS, "a metric that may stop a run")
    if metric.startswith("test_"):
        problem = f"{metric!r} may not stop a run: test examples decide nothing"
    require(metric in METRICS, "metric", problem, fix="Use a validation metric.")
