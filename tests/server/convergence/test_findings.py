"""A verdict has one clause for each finding beside its criteria, and none where there is no finding."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clients.core.streams import generator
from server.convergence.findings import findings


def lines(**series):
    """Lines of rounds 0, 1, ...; nan stands for what a round did not measure."""
    return [
        {"round": r} | {name: value for name, value in zip(series, values, strict=True) if not math.isnan(value)}
        for r, values in enumerate(zip(*series.values(), strict=True))
    ]


def noise(scale, count=60):
    return scale * generator(7, "findings").standard_normal(count)


FALL = 0.2 + 2.1 * 0.8 ** np.arange(60)
RISE = np.where(np.arange(60) < 20, FALL, FALL[19] + 0.01 * (np.arange(60) - 19.0))


def test_validation_loss_that_rises_while_training_loss_falls_overfits():
    (found,) = findings(lines(train_loss=FALL - 0.2, validation_loss=RISE + noise(0.002)))
    assert found.startswith("validation loss rose for ")
    assert found.endswith("while training loss fell: it overfits")
    assert " in round 1" in found or " in round 2" in found


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (FALL, FALL + noise(0.01)),  # both at rest
        (RISE, RISE),  # both rise
        (FALL, FALL),
    ],
)
def test_losses_that_rest_or_move_together_do_not_overfit(train, validation):
    assert not any("overfits" in found for found in findings(lines(train_loss=train, validation_loss=validation)))


def test_rounding_of_a_known_objective_is_no_overfitting():
    """A quadratic's validation loss reaches its least value 3.2 and moves by a rounding error; then one without f*."""
    rests = np.r_[3.2 + 0.5 ** np.arange(40), np.full(20, 3.2 + 4.4e-16)]
    rests[39] = 3.2
    falls = 1.0 + 0.9 ** np.arange(60)
    assert findings(lines(validation_loss=rests, train_loss=falls)) == ()
    assert findings(lines(validation_loss=RISE, train_loss=FALL, optimality_gap=FALL)) == ()


def test_model_whose_accuracy_or_training_loss_improved_has_learnt_although_its_validation_loss_rose():
    """As city-activity-clipped-normalised: the loss rises from 10 to 43 by sure mistakes, the accuracy to 0.76."""
    loss = 10.3 + 0.6 * np.arange(60) + noise(3.0)
    accuracy = 0.76 - 0.6 * 0.9 ** np.arange(60)
    assert not any("nothing" in one for one in findings(lines(validation_loss=loss, validation_accuracy=accuracy)))
    assert not any("nothing" in one for one in findings(lines(validation_loss=loss, train_loss=FALL)))


@pytest.mark.parametrize("growth", [1.5, 4.0, 9.0])
def test_loss_that_explodes_after_a_fall_did_not_learn_nothing(growth):
    """Gradient descent above 2/L: the gap falls along the slow direction to a tenth of its start, and then explodes."""
    gap = 0.05 * 0.6 ** np.arange(60) + 1e-9 * growth ** np.arange(60)
    assert gap.min() < 0.1 * gap[0]
    assert findings(lines(optimality_gap=gap)) == ()


@pytest.mark.parametrize("values", [2.3 + noise(0.01), np.full(60, 2.3), 2.3 + np.maximum(noise(1.0), -0.01)])
def test_loss_that_never_leaves_its_start_learnt_nothing(values):
    values[0] = 2.3
    (found,) = findings(lines(validation_loss=values))
    assert found == "validation loss never fell below its start 2.3 by more than its noise: nothing was learnt"


def test_loss_that_falls_within_its_first_round_has_learnt():
    assert findings(lines(validation_loss=np.r_[2.3, 1.0 + noise(0.01, 59)])) == ()
    assert findings(lines(validation_loss=FALL)) == ()
    assert findings(lines(validation_loss=2.3 - 1e-4 * np.arange(60))) == ()


def test_iterates_that_contract_while_the_gap_rises_are_biased():
    path = 1.0 - 0.9 ** np.arange(60)
    steps = np.r_[math.nan, np.diff(path)]
    (found,) = findings(lines(optimality_gap=path**2, step_norm=steps))
    assert found == (
        "optimality gap rises to a floor while the steps shrink by the factor 0.9 a round: it converges to a biased "
        "point"
    )
    grows = 1.1 ** np.arange(60)
    assert findings(lines(optimality_gap=grows, step_norm=np.r_[math.nan, np.diff(grows)])) == ()


def test_rounds_without_an_aggregate_are_no_finding():
    idle = [{"round": r, "validation_loss": 2.3, "no_aggregate": True} for r in range(1, 60)]
    assert findings([{"round": 0, "validation_loss": 2.3}, *idle]) == ()


def test_short_records_have_no_finding():
    for count in range(5):
        assert findings(lines(validation_loss=[1.0] * count)) == ()
