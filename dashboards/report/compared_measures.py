"""The numbers of a run that a comparison shows, and what a run that missed its target is counted at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.report.formats import data_size, is_number, number, share, simulated
from dashboards.report.run_data import RunData


@dataclass(frozen=True)
class Measure:
    """One number of a run that is compared.

    Attributes:
        name: its name for people.
        of: run -> the number; None where the run has none.
        shown: formats it.
        at_least: run -> what the number is at least where the run missed its target; None where it did not, or where
            the measure is none of a target.
    """

    name: str
    of: Callable[[RunData], Any]
    shown: Callable[[float], str] = number
    at_least: Callable[[RunData], float | None] = lambda run: None

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
    """Return the budget of rounds of a run that missed its target."""
    if not missed_target(run):
        return None
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


def _regression_error(run: RunData) -> Any:
    """Return the root mean squared error on the test examples, of a regression."""
    outcome = run.outcome or {}
    return outcome.get("test_error") if outcome.get("test_mae") is not None else None


MEASURES = (
    Measure("test accuracy", _outcome("test_accuracy"), share),
    Measure("test balanced accuracy", _outcome("test_balanced_accuracy"), share),
    Measure("test macro-F1", _outcome("test_macro_f1"), share),
    Measure("test error", _regression_error),
    Measure("test error, in the reading's unit", _outcome("forecast", "error_in_unit")),
    Measure("test error over that of persistence", _outcome("forecast", "ratio")),
    Measure("worst client", _outcome("client_spread", "worst")),
    Measure("validation loss, at the end", _last("validation_loss")),
    Measure("training loss, at the end", _last("train_loss")),
    Measure("optimality gap, at the end", _last("optimality_gap")),
    Measure("distance to the optimum, at the end", _last("distance_to_optimum")),
    Measure("rounds", lambda run: run.last_round),
    Measure("rounds to the target", _outcome("to_target", "rounds"), at_least=_budget),
    Measure("bytes to the target", _outcome("to_target", "bytes"), data_size, _total_at_budget("bytes_total")),
    Measure("simulated time to the target", _outcome("to_target", "simulated_seconds"), simulated,
            _total_at_budget("simulated_seconds_total")),
    Measure("rate a round", _outcome("rate", "factor"), share),
    Measure("client drift, last tenth", _late("client_drift", "mean")),
    Measure("cosine to the mean update, last tenth", _late("cosine", "mean")),
    Measure("bytes sent in all", _last("bytes_total"), data_size),
)  # fmt: skip
