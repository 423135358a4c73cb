"""What a scenario may say about when a run has converged, and the facts that may be named there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from clients.core.errors import require, unknown_name
from clients.core.options import STRICT

FACTS: Mapping[str, str] = {
    "train_loss": "mean training loss",
    "validation_loss": "mean loss on the central validation examples",
    "validation_accuracy": "share of validation examples predicted right",
    "validation_balanced_accuracy": "mean over classes of the share of a class's validation examples predicted right",
    "validation_macro_f1": "mean over classes of F1 on the validation examples",
    "validation_error": "share of validation examples predicted wrong, or the root mean squared error of a regression",
    "validation_mae": "mean absolute error of a regression on the validation examples",
    "federated_loss": "mean loss on the examples that clients hold out",
    "federated_accuracy": "share of the clients' held-out examples predicted right",
    "federated_balanced_accuracy": "mean over classes of the share of a class's examples on clients predicted right",
    "federated_macro_f1": "mean over classes of F1 on the clients' held-out examples together",
    "federated_error": "share of them predicted wrong, or the root mean squared error",
    "optimality_gap": "f(x) - f*, where f* is known",
    "relative_change": "norm of the round's change of the parameters over the norm before it",
    "pseudo_gradient_norm": "norm of the aggregated pseudo-gradient",
    "gradient_norm": "norm of the true gradient of the weighted training loss (costs a pass over all data)",
    "agreement": "share of predictions on the probe examples that are the same as a round before",
    "train_errors": "training examples predicted wrong",
    "largest_gradient_norm": "largest norm of a client's local gradient this round",
}
"""What criteria may look at, by name."""

METRICS: Mapping[str, bool] = {
    name: name.endswith(("_accuracy", "_f1"))
    for name in FACTS
    if name.startswith(("train_loss", "validation_", "federated_", "optimality_gap"))
}
"""Metrics a target or plateau may name -> whether better is up. Test metrics are missing on purpose."""


def check_metric(metric: str) -> None:
    """Raise `UserError` unless `metric` is one that may stop a run."""
    problem = unknown_name(metric, METRICS, "a metric that may stop a run")
    if metric.startswith("test_"):
        problem = f"{metric!r} may not stop a run: test examples are looked at once, at the end"
    require(metric in METRICS, "metric", problem, fix="Use a validation metric.")


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """Reached: the metric is at least, or at most, a value for `hold` measured rounds in a row."""

    __pydantic_config__: ClassVar[Any] = STRICT
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    hold: int = 1

    def __post_init__(self) -> None:
        check_metric(self.metric)
        use, other = ("at_least", "at_most") if METRICS[self.metric] else ("at_most", "at_least")
        why = f"{self.metric} is better {'higher' if use == 'at_least' else 'lower'}"
        require(getattr(self, other) is None, other, f"must be left out, got {getattr(self, other)}: {why}, use {use}")
        require(getattr(self, use) is not None, use, f"must be given for {self.metric}")
        require(math.isfinite(self.threshold), use, f"must be finite, got {self.threshold}")
        _check_count("hold", self.hold)

    @property
    def threshold(self) -> float:
        """The value to reach."""
        threshold = self.at_most if self.at_least is None else self.at_least
        assert threshold is not None
        return threshold


@dataclass(frozen=True, kw_only=True)
class PlateauOptions:
    """Stands still: in `patience` measured rounds the metric did not get better than its best by `min_delta`.

    A metric that only got worse than its first value does not stand still, however long it stays there.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    metric: str = "validation_loss"
    min_delta: float = 1e-3
    patience: int = 5

    def __post_init__(self) -> None:
        check_metric(self.metric)
        _check_positive("min_delta", self.min_delta, or_zero=True)
        _check_count("patience", self.patience)


@dataclass(frozen=True, kw_only=True)
class SettledOptions:
    """Parameters settled: their relative change is below a bound for `hold` rounds in a row."""

    __pydantic_config__: ClassVar[Any] = STRICT
    below: float = 1e-4
    hold: int = 3

    def __post_init__(self) -> None:
        _check_positive("below", self.below)
        _check_count("hold", self.hold)


@dataclass(frozen=True, kw_only=True)
class PseudoGradientOptions:
    """The norm of the aggregated pseudo-gradient is below a bound for `hold` rounds in a row."""

    __pydantic_config__: ClassVar[Any] = STRICT
    below: float
    hold: int = 3

    def __post_init__(self) -> None:
        _check_positive("below", self.below)
        _check_count("hold", self.hold)


@dataclass(frozen=True, kw_only=True)
class GradientOptions:
    """The norm of the true gradient is below a bound for `hold` measured rounds in a row (it costs a pass)."""

    __pydantic_config__: ClassVar[Any] = STRICT
    below: float
    hold: int = 1

    def __post_init__(self) -> None:
        _check_positive("below", self.below)
        _check_count("hold", self.hold)


@dataclass(frozen=True, kw_only=True)
class GapOptions:
    """Validation beside training: both losses stand still, and close together.

    Holds once, for `patience` measured rounds in a row, |validation_loss - train_loss| was below `below` and neither
    loss got better than its best by `min_delta`. Where the training loss still falls while the validation loss does
    not, it says overfitting.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    below: float
    min_delta: float = 1e-3
    patience: int = 5

    def __post_init__(self) -> None:
        _check_positive("below", self.below)
        _check_positive("min_delta", self.min_delta, or_zero=True)
        _check_count("patience", self.patience)


@dataclass(frozen=True, kw_only=True)
class AgreementOptions:
    """Outputs agree: the share of probe predictions unchanged since the round before is high for `hold` rounds."""

    __pydantic_config__: ClassVar[Any] = STRICT
    at_least: float = 0.995
    hold: int = 3

    def __post_init__(self) -> None:
        require(0.0 < self.at_least <= 1.0, "at_least", f"must be in (0, 1], got {self.at_least}")
        _check_count("hold", self.hold)


@dataclass(frozen=True, kw_only=True)
class ErrorFreeOptions:
    """No training example is predicted wrong, `hold` measured rounds in a row."""

    __pydantic_config__: ClassVar[Any] = STRICT
    hold: int = 3

    def __post_init__(self) -> None:
        _check_count("hold", self.hold)


def _check_count(field: str, value: int) -> None:
    require(value >= 1, field, f"must be at least 1, got {value}")


def _check_positive(field: str, value: float, *, or_zero: bool = False) -> None:
    allowed = math.isfinite(value) and (value > 0.0 or (or_zero and value == 0.0))
    require(allowed, field, f"must be {'>= 0' if or_zero else '> 0'} and finite, got {value}")
