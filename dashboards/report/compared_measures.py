"""The numbers of a run that a comparison shows, and what a run that missed its target is counted at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboards.report.formats import data_size, is_number, number, share, simulated
from dashboards.statistics.quantity import Better, Quantity

if TYPE_CHECKING:  # reading runs imports torch, and a study's process needs the names of measures alone
    from dashboards.report.run_data import RunData


@dataclass(frozen=True)
class Measure(Quantity):
    """One number of a run that is compared.

    Attributes:
        of: run -> the number; None where the run has none.
        shown: formats it.
        at_least: run -> what the number is at least where the run missed its target; None where it did not, or where
            the measure is none of a target.
    """

    of: Callable[[RunData], Any]
    shown: Callable[[float], str] = field(default=number, kw_only=True)
    at_least: Callable[[RunData], float | None] = field(default=lambda run: None, kw_only=True)

    def text(self, run: RunData) -> str:
        """Return the number of a run as text."""
        if is_number(value := self.of(run)):
            return self.shown(value)
        return "–" if self.at_least(run) is None else "missed"


def _outcome(*path: str) -> Callable[[RunData], Any]:
    """Return a function that reads a number from the outcome."""

    def take(run: RunData) -> Any:
        value: Any = run.outcome or {}
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    return take


def missed_target(run: RunData) -> bool:
    """Return whether a run ended without reaching its target."""
    target = (run.outcome or {}).get("to_target")
    return isinstance(target, Mapping) and not is_number(target.get("rounds"))


def _budget(run: RunData) -> float | None:
    """Return the rounds in which a run missed its target: its budget, but of an interrupted run the last one.

    A run that diverged, or stopped because nothing moved, does not reach its target in the rest of its budget either.
    """
    if not missed_target(run):
        return None
    if run.state == "interrupted":
        return float(run.last_round)
    budget = run.facts.get("rounds")
    return float(max(budget, run.last_round)) if is_number(budget) else float(run.last_round)


def _total_at_budget(name: str) -> Callable[[RunData], float | None]:
    """Return a function that takes a total of a run that missed its target to its budget of rounds."""

    def take(run: RunData) -> float | None:
        budget, total = _budget(run), _last(name)(run)
        return total * budget / run.last_round if budget and run.last_round and is_number(total) else None

    return take


def _last(*path: str) -> Callable[[RunData], Any]:
    """Return a function that reads a number from the last line that has it."""

    def take(run: RunData) -> Any:
        return next((line[path[0]] for line in reversed(run.lines) if line.get(path[0]) is not None), None)

    return take


def _late(name: str, level: str) -> Callable[[RunData], Any]:
    """Return a function that averages a quantity over the last tenth of the rounds that measured it."""

    def take(run: RunData) -> float | None:
        found = [line[name][level] for line in run.lines if level in (line.get(name) or {})]
        late = found[-max(1, len(found) // 10) :]
        return float(np.mean(late)) if late else None

    return take


def _worst_client(beside: str) -> Callable[[RunData], Any]:
    """Return a function that reads the score of the worst client, of the task whose outcome has `beside` with it."""

    def take(run: RunData) -> Any:
        spread = (run.outcome or {}).get("client_spread")
        return spread.get("worst") if isinstance(spread, Mapping) and beside in spread else None

    return take


def _regression_error(run: RunData) -> Any:
    """Return the root mean squared error on the test examples, of a regression."""
    outcome = run.outcome or {}
    return outcome.get("test_error") if outcome.get("test_mae") is not None else None


def _score(key: str, name: str, of: Callable[[RunData], Any], better: Better = "higher") -> Measure:
    """Return a measure that is a share: differences say more than ratios."""
    return Measure(key, name, better, of, shown=share, relative=False)


MEASURES = (
    _score("test_accuracy", "test accuracy", _outcome("test_accuracy")),
    _score("test_balanced_accuracy", "test balanced accuracy", _outcome("test_balanced_accuracy")),
    _score("test_macro_f1", "test macro-F1", _outcome("test_macro_f1")),
    Measure("test_error", "test error", "lower", _regression_error),
    Measure("test_error_in_unit", "test error, in the reading's unit", "lower", _outcome("forecast", "error_in_unit")),
    Measure("test_error_ratio", "test error over that of persistence", "lower", _outcome("forecast", "ratio")),
    _score("worst_client_accuracy", "accuracy of the worst client", _worst_client("lowest_tenth")),
    Measure("worst_client_error", "error of the worst client", "lower", _worst_client("highest_tenth")),
    Measure("test_frechet_distance", "Fréchet distance of samples from test examples", "lower",
            _outcome("test_frechet_distance")),
    _score("test_sample_precision", "precision of samples", _outcome("test_sample_precision")),
    _score("test_sample_coverage", "coverage of test examples by samples", _outcome("test_sample_coverage")),
    Measure("validation_loss", "validation loss, at the end", "lower", _last("validation_loss")),
    Measure("train_loss", "training loss, at the end", "lower", _last("train_loss")),
    Measure("optimality_gap", "optimality gap, at the end", "lower", _last("optimality_gap")),
    Measure("distance_to_optimum", "distance to the optimum, at the end", "lower", _last("distance_to_optimum")),
    Measure("rounds_played", "rounds", None, lambda run: run.last_round, verb="plays", less="fewer", more="more"),
    Measure("rounds_to_target", "rounds to the target", "lower", _outcome("to_target", "rounds"),
            verb="needs", less="fewer", more="more", at_least=_budget),
    Measure("bytes_to_target", "bytes to the target", "lower", _outcome("to_target", "bytes"), shown=data_size,
            noun="data to the target", verb="needs", less="less", more="more",
            at_least=_total_at_budget("bytes_total")),
    Measure("simulated_seconds_to_target", "simulated time to the target", "lower",
            _outcome("to_target", "simulated_seconds"), shown=simulated, noun="time to the target", verb="needs",
            less="less", more="more", at_least=_total_at_budget("simulated_seconds_total")),
    _score("rate", "rate a round", _outcome("rate", "factor"), "lower"),
    Measure("client_drift", "client drift, last tenth", None, _late("client_drift", "mean")),
    _score("cosine", "cosine to the mean update, last tenth", _late("cosine", "mean"), None),
    Measure("bytes_sent", "bytes sent in all", "lower", _last("bytes_total"), shown=data_size, noun="data",
            verb="sends", less="less", more="more"),
)  # fmt: skip
"""What is compared, in the order of the tables. A bound `at_least` exists for the measures of a target alone."""
