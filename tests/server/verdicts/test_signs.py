"""The three signs of convergence: yes, no or not measured, each with its number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from server.convergence.condition import Sign
from server.convergence.criteria_options import AgreementOptions, SettledOptions
from server.convergence.monitor import ConvergenceOptions
from server.verdicts.signs import signs_of

T = np.arange(60)
FALL = 0.2 + 2.0 * 0.8**T
SLOW = 0.2 + 2.0 * 0.99**T


def lines(**series: Any) -> list[dict[str, Any]]:
    return [{"round": r} | {name: float(values[r]) for name, values in series.items()} for r in range(60)]


def sign(name: str, record: list[dict[str, Any]], **criteria: Any) -> Sign:
    return next(one for one in signs_of(record, ConvergenceOptions(**criteria)) if one.name == name)


@pytest.mark.parametrize(("change", "says"), [(1e-5, "yes"), (9e-4, "yes"), (2e-3, "no")])
def test_parameters_settle_by_their_relative_change(change: float, says: str) -> None:
    found = sign("parameters_settle", lines(relative_change=np.full(60, change)))
    assert (found.says, found.number) == (says, change)


def test_parameters_settle_where_steps_became_short() -> None:
    record = lines(relative_change=np.full(60, 0.01), step_norm=0.9**T)
    assert sign("parameters_settle", record).says == "yes"
    assert sign("parameters_settle", lines(relative_change=np.full(60, 0.01), step_norm=0.99**T)).says == "no"


def test_bound_of_the_scenario_replaces_the_default() -> None:
    record = lines(relative_change=np.full(60, 1e-4), agreement=np.full(60, 0.99))
    assert sign("parameters_settle", record, settled=SettledOptions(below=1e-6)).says == "no"
    assert sign("outputs_agree", record, agreement=AgreementOptions(at_least=0.999)).says == "no"
    assert sign("outputs_agree", record).says == "yes"


def test_outputs_agree_by_the_median_of_the_newest_rounds() -> None:
    shares = np.full(60, 0.99)
    shares[-1] = 0.0
    found = sign("outputs_agree", lines(agreement=shares))
    assert (found.says, found.number) == ("yes", 0.99)


@pytest.mark.parametrize(
    ("validation", "train", "says", "words"),
    [
        (FALL, FALL, "yes", "neither validation nor training loss clearly moves"),
        (FALL, SLOW, "no", "training loss still falls"),
        (SLOW, SLOW, "no", "validation loss still falls and training loss still falls"),
        (FALL + 0.01 * T, SLOW, "no", "validation loss still rises and training loss still falls"),
    ],
)
def test_validation_plateaus_only_beside_training(validation: Any, train: Any, says: str, words: str) -> None:
    found = sign("validation_plateaus", lines(validation_loss=validation, train_loss=train))
    assert found.says == says
    assert words in found.words


def test_what_was_not_measured_has_no_number() -> None:
    assert [(one.says, one.number) for one in signs_of([])] == [("not_measured", None)] * 3
    assert sign("validation_plateaus", lines(validation_loss=FALL)).says == "not_measured"
