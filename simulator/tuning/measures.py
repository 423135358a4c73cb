"""The measures that a tuning makes small or large, and the score of a trial: the median over its seeds.

A run that diverged counts as infinitely bad. A run that missed its target counts as its budget, which it needs at
least; where half of the runs or more missed it, the score is a lower bound, and trials with such a score tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from clients.core.errors import require, unknown_name
from dashboards.report.compared_measures import MEASURES, Measure
from dashboards.report.formats import is_number, number, share
from dashboards.report.run_data import RunData


def _of_validation(key: str, words: str, better: Literal["lower", "higher"]) -> Measure:
    """Return the measure of a score of the validation examples in the last round that has it."""

    def at_end(run: RunData) -> Any:
        return next((line[key] for line in reversed(run.lines) if line.get(key) is not None), None)

    return Measure(key=key, name=f"{words}, at the end", of=at_end, better=better,
                   shown=share if better == "higher" else number)  # fmt: skip


_OF_VALIDATION = (
    _of_validation("validation_accuracy", "validation accuracy", "higher"),
    _of_validation("validation_balanced_accuracy", "validation balanced accuracy", "higher"),
    _of_validation("validation_macro_f1", "validation macro-F1", "higher"),
    _of_validation("validation_error", "validation error", "lower"),
    _of_validation("validation_frechet_distance", "Fréchet distance of samples", "lower"),
    _of_validation("validation_sample_precision", "precision of samples", "higher"),
    _of_validation("validation_sample_coverage", "coverage by samples", "higher"),
)
"""Scores of the validation examples, for tuning; comparisons have the same ones of the test examples."""

TUNED: Mapping[str, Measure] = {
    measure.key: measure for measure in (*MEASURES, *_OF_VALIDATION) if measure.better is not None
}
"""The measures with a direction, by their keys."""

_IN_LINES = {
    "test_accuracy": "validation_accuracy",
    "test_balanced_accuracy": "validation_balanced_accuracy",
    "test_macro_f1": "validation_macro_f1",
    "test_error": "validation_error",
    "test_frechet_distance": "validation_frechet_distance",
    "test_sample_precision": "validation_sample_precision",
    "test_sample_coverage": "validation_sample_coverage",
    **{key: key for key in ("train_loss", "optimality_gap", "distance_to_optimum")},
    **{measure.key: measure.key for measure in _OF_VALIDATION},
}
"""The key of a round's line that shows how far a measure is; the validation loss where there is none."""


@dataclass(frozen=True)
class SeedResult:
    """The result of one run of a trial.

    Attributes:
        seed: the run's seed.
        run: its folder, as named in the folder of runs.
        value: the measure; infinitely bad where the run diverged.
        at_least: whether the run missed its target, so that the value is its budget.
        diverged: whether it diverged.
        rounds: the rounds that it played.
    """

    seed: int
    run: str
    value: float
    at_least: bool
    diverged: bool
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Score:
    """The score of a trial.

    Attributes:
        value: the median over its seeds.
        at_least: whether the median's run missed its target: the score is a lower bound.
    """

    value: float
    at_least: bool


def names() -> list[str]:
    """Return the keys of all measures that can be tuned."""
    return list(TUNED)


def measure_of(key: object) -> Measure:
    """Return a measure by its key.

    Raises:
        UserError: there is none, or neither direction of it is better.
    """
    neither = [measure.key for measure in MEASURES if measure.better is None]
    require(key not in neither, "measure", f"{key!r} is neither better small nor large", fix="Name another measure.")
    require(key in TUNED, "measure", unknown_name(key, names(), "a measure"))
    return TUNED[str(key)]


def looks_at_test(key: str) -> bool:
    """Return whether a measure is one of the test examples, which a tuned score should not have seen."""
    return key.startswith(("test_", "worst_client"))


def result_of(run: RunData, measure: Measure, seed: int) -> SeedResult:
    """Return the result of a finished run.

    Raises:
        UserError: the run has no such measure.
    """
    diverged = run.state == "diverged"
    value, bound = measure.of(run), measure.at_least(run)
    if diverged:
        found = worst(measure)
    elif is_number(value):
        found = float(value)
    else:
        fix = "Set convergence.target." if measure.key.endswith("_to_target") else "Name another measure."
        require(bound is not None, "measure", f"{measure.key!r} was not measured by the run", fix=fix)
        assert bound is not None
        found = float(bound)
    missed = not diverged and not is_number(value)
    return SeedResult(seed, run.name, found, missed, diverged, run.last_round)


def worst(measure: Measure) -> float:
    """Return the value of a run that diverged."""
    return math.inf if measure.better == "lower" else -math.inf


def score_of(results: Sequence[SeedResult]) -> Score:
    """Return the median of some results, and whether it is a lower bound.

    Example:
        >>> hits = [SeedResult(seed, "", value, False, False, 9) for seed, value in enumerate((20.0, 30.0))]
        >>> score_of([*hits, SeedResult(2, "", 50.0, True, False, 50)])
        Score(value=30.0, at_least=False)
    """
    ordered = sorted(results, key=lambda result: (result.value, result.at_least))
    upper, lower = ordered[len(ordered) // 2], ordered[(len(ordered) - 1) // 2]
    if math.isinf(upper.value) or math.isinf(lower.value):
        infinite = upper if math.isinf(upper.value) else lower
        return Score(infinite.value, False)
    return Score(median(result.value for result in results), upper.at_least or lower.at_least)


def progress_of(line: Mapping[str, Any], measure: Measure) -> float | None:
    """Return how far a run is after a round, in the measure's direction; None where the round did not measure it.

    Example:
        >>> progress_of({"validation_loss": 0.5}, measure_of("validation_loss"))
        0.5
        >>> progress_of({"validation_loss": 0.5}, measure_of("bytes_sent"))
        0.5
    """
    key = _IN_LINES.get(measure.key)
    found, sign = (line.get(key), 1.0) if key is not None else (None, 1.0)
    if found is None:
        found, sign = line.get("validation_loss"), 1.0 if measure.better == "lower" else -1.0
    if found is None:
        return None
    value = sign * float(found)
    return value if math.isfinite(value) else worst(measure)
