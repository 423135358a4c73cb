"""The options of the convergence criteria, as a scenario sets them in `[convergence]`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clients.core.errors import require
from clients.core.numbers.bounds import Level, Rounds
from server.convergence.facts import METRICS, check_metric, check_possible, of_percentage


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """The metric is at least, or at most, a given value for `hold` measured rounds in a row.

    Attributes:
        metric: which metric; test metrics are refused.
        at_least: value to reach, of a metric that is better higher.
        at_most: value to reach, of a metric that is better lower.
        hold: measured rounds in a row, at least 1.
    """

    metric: str
    at_least: Level | None = None
    at_most: Level | None = None
    hold: Rounds = 1

    def __post_init__(self) -> None:
        check_metric(self.metric)
        use, other = ("at_least", "at_most") if METRICS[self.metric] else ("at_most", "at_least")
        why = f"{self.metric} is better {'higher' if use == 'at_least' else 'lower'}"
        require(getattr(self, other) is None, other, f"must be left out, got {getattr(self, other)}: {why}, use {use}")
        require(getattr(self, use) is not None, use, f"must be given for {self.metric}")
        require(math.isfinite(self.threshold), use, f"must be finite, got {self.threshold}")
        check_possible(self.metric, use, self.threshold)
        _check_count("hold", self.hold)

    @property
    def threshold(self) -> float:
        """The value to reach."""
        threshold = self.at_most if self.at_least is None else self.at_least
        assert threshold is not None
        return threshold


@dataclass(frozen=True, kw_only=True)
class PlateauOptions:
    """The metric did not beat its best by `min_delta` for `patience` measured rounds in a row.

    A metric that only got worse than its first value never meets this. It counts anew after a rise and a recovery. Away
    from its best by more than its noise it ends a run as stopped, not as converged.

    Attributes:
        metric: which metric; test metrics are refused.
        min_delta: smallest gain over the best value that counts as better, >= 0.
        patience: measured rounds in a row, at least 1.
    """

    metric: str = "validation_loss"
    min_delta: Level = 1e-3
    patience: Rounds = 5

    def __post_init__(self) -> None:
        check_metric(self.metric)
        _check_positive("min_delta", self.min_delta, or_zero=True)
        check_possible(self.metric, "min_delta", self.min_delta)
        _check_count("patience", self.patience)


@dataclass(frozen=True, kw_only=True)
class BelowOptions:
    """A number is below a bound for `hold` measured rounds in a row.

    Attributes:
        below: the bound, > 0.
        hold: measured rounds in a row, at least 1.
    """

    below: Level
    hold: Rounds = 3

    def __post_init__(self) -> None:
        _check_positive("below", self.below)
        _check_count("hold", self.hold)


@dataclass(frozen=True, kw_only=True)
class SettledOptions(BelowOptions):
    """The relative change of the parameters is below a bound for `hold` rounds in a row."""

    below: Level = 1e-4


@dataclass(frozen=True, kw_only=True)
class PseudoGradientOptions(BelowOptions):
    """The norm of the aggregated pseudo-gradient is below a bound for `hold` rounds in a row."""


@dataclass(frozen=True, kw_only=True)
class GradientOptions(BelowOptions):
    """The norm of the true gradient is below a bound for `hold` measured rounds in a row.

    Each measurement costs a pass over all training data.
    """

    hold: Rounds = 1


@dataclass(frozen=True, kw_only=True)
class GapOptions:
    """Validation loss and training loss have stopped improving and lie close together.

    For `patience` measured rounds in a row, |validation_loss - train_loss| is below `below` and neither loss beats its
    best by `min_delta`. Reports overfitting where the training loss still falls and the validation loss rises.

    Attributes:
        below: largest distance of the two losses, > 0.
        min_delta: smallest gain over the best value that counts as better, >= 0.
        patience: measured rounds in a row, at least 1.
    """

    below: Level
    min_delta: Level = 1e-3
    patience: Rounds = 5

    def __post_init__(self) -> None:
        _check_positive("below", self.below)
        _check_positive("min_delta", self.min_delta, or_zero=True)
        _check_count("patience", self.patience)


@dataclass(frozen=True, kw_only=True)
class AgreementOptions:
    """The share of probe predictions that did not change since the round before is high for `hold` rounds in a row.

    Attributes:
        at_least: share of probe predictions that must be unchanged, above 0 and at most 1.
        hold: rounds in a row, at least 1.
    """

    at_least: float = 0.995
    hold: Rounds = 3

    def __post_init__(self) -> None:
        fits, fix = 0.0 < self.at_least <= 1.0, of_percentage(self.at_least)
        require(fits, "at_least", f"must be in (0, 1], got {self.at_least}", fix=fix)
        _check_count("hold", self.hold)


@dataclass(frozen=True, kw_only=True)
class ErrorFreeOptions:
    """No training example is predicted wrong for `hold` measured rounds in a row.

    Attributes:
        hold: measured rounds in a row, at least 1.
    """

    hold: Rounds = 3

    def __post_init__(self) -> None:
        _check_count("hold", self.hold)


def _check_count(field: str, value: int) -> None:
    require(value >= 1, field, f"must be at least 1, got {value}")


def _check_positive(field: str, value: float, *, or_zero: bool = False) -> None:
    allowed = math.isfinite(value) and (value > 0.0 or (or_zero and value == 0.0))
    require(allowed, field, f"must be {'>= 0' if or_zero else '> 0'} and finite, got {value}")
