"""Targets that a metric can never reach are refused, with what was probably meant."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from clients.core.errors import UserError
from server.convergence.criteria_options import AgreementOptions, PlateauOptions, TargetOptions
from server.convergence.facts import FACTS, METRICS, range_of
from server.convergence.monitor import ConvergenceOptions, require_measured


@pytest.mark.parametrize("metric", [m for m in METRICS if range_of(m) == (0.0, 1.0)])
def test_percentage_is_refused_with_the_share(metric: str) -> None:
    words = f"at_least: must be from 0 to 1, as {metric} is, got 95. 95 is a percentage: write 0.95."
    with pytest.raises(UserError, match=re.escape(words)):
        TargetOptions(metric=metric, at_least=95)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TargetOptions(metric="validation_accuracy", at_least=-0.1), "at_least: must be from 0 to 1"),
        (lambda: TargetOptions(metric="validation_accuracy", at_least=1000), "as validation_accuracy is, got 1000."),
        (lambda: TargetOptions(metric="validation_error", at_most=-0.1), "at_most: must be at least 0"),
        (lambda: TargetOptions(metric="optimality_gap", at_most=-1e-9), "at_most: must be at least 0"),
        (lambda: PlateauOptions(metric="validation_accuracy", min_delta=5), "5 is a percentage: write 0.05."),
        (lambda: AgreementOptions(at_least=99.5), "99.5 is a percentage: write 0.995."),
    ],
)
def test_value_that_a_metric_never_has_is_refused(make: Any, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        make()


@pytest.mark.parametrize(
    ("metric", "at_most", "task", "words"),
    [
        (
            "validation_loss",
            -1.0,
            "classification",
            "target.at_most: must be at least 0, as validation_loss is, got -1",
        ),
        ("train_loss", -1.0, "regression", "target.at_most: must be at least 0"),
        ("train_loss", -1.0, "objective", ""),
        ("validation_error", 5.0, "classification", "5 is a percentage: write 0.05."),
        ("validation_error", 5.0, "regression", ""),
    ],
)
def test_range_depends_on_the_task(metric: str, at_most: float, task: str, words: str) -> None:
    criteria: Any = {"target": TargetOptions(metric=metric, at_most=at_most)}
    options = ConvergenceOptions(**criteria)
    if not words:
        require_measured(options, set(FACTS), task)
        return
    with pytest.raises(UserError, match=re.escape(words)):
        require_measured(options, set(FACTS), task)


def test_every_fact_has_a_range() -> None:
    for name in FACTS:
        for task in (None, "classification", "regression", "objective"):
            low, high = range_of(name, task)
            assert low < high
            assert low in (0.0, -math.inf)
            assert high in (1.0, math.inf)
