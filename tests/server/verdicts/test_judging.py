"""The final verdict: converged is never said of a run whose condition contradicts it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from server.convergence.condition import KINDS, Condition
from server.convergence.criteria_options import TargetOptions
from server.convergence.monitor import ConvergenceOptions
from server.convergence.verdict import Verdict
from server.verdicts.judging import contradicts, judged

T = np.arange(80)
FALL = 0.2 + 2.0 * 0.85**T
HELD = Verdict("converged", 79, ("a criterion held",), ("settled",))
NOTHING = ConvergenceOptions()


def lines(validation: Any, train: Any = FALL) -> list[dict[str, Any]]:
    return [{"round": r, "validation_loss": float(validation[r]), "train_loss": float(train[r])} for r in range(80)]


def test_run_at_rest_stays_converged() -> None:
    found = judged(HELD, lines(FALL), NOTHING)
    assert (found.outcome, found.reasons, found.criteria) == (HELD.outcome, HELD.reasons, HELD.criteria)
    assert found.condition is not None
    assert found.condition.kind == "converged"
    assert len(found.signs) == 3


@pytest.mark.parametrize("rise", [0.02, 0.1, 1.0])
def test_run_whose_validation_got_worse_by_more_than_its_noise_has_not_converged(rise: float) -> None:
    """The noise is a tenth of the rise. A plateau that calls such a rise small does not change that."""
    noise = 0.1 * rise * np.sin(1e3 * T**2)
    for train in (FALL, FALL + rise * (T > 40)):
        worse = FALL + rise * np.clip((T - 30.0) / 20.0, 0.0, 1.0) + noise
        found = judged(HELD, lines(worse, train), NOTHING)
        assert found.outcome == "stopped"
        assert found.condition is not None
        assert found.reasons == ("a criterion held", f"it has not converged: {found.condition.words}")


def test_run_that_a_rate_moves_towards_its_target_has_not_converged() -> None:
    values = 0.2 + 2.0 * 0.98**T
    options = ConvergenceOptions(target=TargetOptions(metric="validation_loss", at_most=0.4))
    found = judged(HELD, lines(values, values), options)
    assert found.outcome == "stopped"
    assert "more rounds" in found.reasons[-1]


def test_run_that_reached_its_target_and_still_improves_has_reached_its_target() -> None:
    """Of 2 x 0.98^r a fifth is left at round 79, which three times the rounds would bring."""
    values = 0.2 + 2.0 * 0.98**T
    options = ConvergenceOptions(target=TargetOptions(metric="validation_loss", at_most=0.7))
    by_target = replace(HELD, criteria=("target",))
    found = judged(by_target, lines(values, values), options)
    assert found.outcome == "stopped"
    assert found.headline == "Stopped on target at round 79"
    assert found.reasons[-1].startswith("it has not converged: validation loss 0.6")
    assert judged(replace(HELD, criteria=("target", "settled")), lines(values, values), options).headline.startswith(
        "Stopped at round"
    )
    assert judged(by_target, lines(FALL), options).headline == "Converged at round 79"


def test_slow_fall_that_hardly_matters_leaves_a_run_converged() -> None:
    slow = 1.0 + 0.5 * (1.0 + T) ** -0.5 + 0.6**T
    found = judged(HELD, lines(slow), NOTHING)
    assert (found.outcome, found.headline) == ("converged", "Converged at round 79")
    assert found.condition is not None
    assert found.condition.subkind == "slowly"
    assert "still improves slowly" in found.condition.words
    assert found.reasons == HELD.reasons


def test_few_rounds_do_not_say_whether_a_run_converged() -> None:
    found = judged(replace(HELD, round_index=5), lines(0.9**T)[:6], NOTHING)
    assert found.outcome == "stopped"
    assert found.reasons[-1].startswith("whether it converged cannot be said: 6 measured values")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_condition_of_a_converged_run_is_that_of_one_at_rest(kind: Any) -> None:
    at_rest = kind in ("converged", "plateaued", "noise_floor", "unclear")
    assert contradicts(Condition(kind, 9, "it did")) != at_rest


@pytest.mark.parametrize("outcome", ["diverged", "stopped", "interrupted"])
def test_other_outcomes_stay(outcome: Any) -> None:
    verdict = Verdict(outcome, 79, ("why",))
    for values in (FALL, FALL + 0.02 * T):
        found = judged(verdict, lines(values), NOTHING)
        assert (found.outcome, found.reasons) == (outcome, ("why",))


def test_verdict_is_read_back_from_the_outcome() -> None:
    for verdict in (HELD, judged(HELD, lines(FALL + 0.02 * T), NOTHING)):
        assert Verdict.from_outcome(verdict.to_outcome()) == verdict
