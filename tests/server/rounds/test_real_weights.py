"""Real weights p_k of the data are the weights of aggregation, sampling and every mean over clients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

import fedscape as fs
from fedscape.testing import Stepper
from server.algorithms.options import FedAvgOptions
from server.rounds.sampling import CohortSampler
from simulator.scenario.sections import Scenario

SHARES = np.array([0.2, 0.5, 0.3])
CURVATURES, CENTRES = np.array([1.0, 4.0, 2.0]), np.array([-1.0, 3.0, 0.5])


def scenario(*sets: str) -> Scenario:
    return fs.load_scenario("quadratic-two-clients", sets=["algorithm.weighting=examples", "model.start=2.0", *sets])


def stepper(weights: Any = SHARES, *sets: str) -> Stepper:
    return Stepper(scenario(*sets), data=fs.quadratics(CURVATURES, CENTRES, weights=weights))


@pytest.mark.parametrize("factor", [1.0, 7.3], ids=["sum 1", "any sum"])
def test_round_is_the_weighted_mean_of_the_clients(factor: float) -> None:
    played = stepper(SHARES * factor, "local.local_steps=3", "local.local_lr=0.1")
    own = CENTRES + (1 - 0.1 * CURVATURES) ** 3 * (2.0 - CENTRES)
    assert played.step(1).item() == pytest.approx(SHARES @ own, rel=1e-14)
    assert played.result is not None
    line = played.result.line
    w, optimum = SHARES @ own, (SHARES * CURVATURES) @ CENTRES / (SHARES @ CURVATURES)

    def objective(x: float) -> float:
        return float(SHARES @ (CURVATURES * (x - CENTRES) ** 2) / 2)

    assert line["validation_loss"] == pytest.approx(objective(w), rel=1e-14)
    assert line["optimality_gap"] == pytest.approx(objective(w) - objective(optimum), rel=1e-12)
    assert line["distance_to_optimum"] == pytest.approx(abs(w - optimum), rel=1e-14)
    before = [CURVATURES * ((1 - 0.1 * CURVATURES) ** s * (2.0 - CENTRES)) ** 2 / 2 for s in range(3)]
    assert line["train_loss"] == pytest.approx(SHARES @ np.mean(before, axis=0), rel=1e-14)


def test_whole_weights_give_the_same_round() -> None:
    real, whole = stepper(), stepper([2, 5, 3])
    assert real.step(5).numpy() == pytest.approx(whole.step(5).numpy(), rel=1e-13)


def test_cohorts_by_examples_are_drawn_by_weight() -> None:
    sampler = CohortSampler(FedAvgOptions(cohort=20_000, sampling="by_examples", weighting="uniform"),
                            np.ones(3, np.int32), 1, shares=SHARES)  # fmt: skip
    cohort = sampler.draw(1)
    assert cohort.draws.sum() == 20_000
    np.testing.assert_allclose(cohort.draws / 20_000, SHARES, atol=0.02)


def test_a_strategy_that_weighs_by_examples_is_refused() -> None:
    data = fs.quadratics(CURVATURES, CENTRES, weights=SHARES)
    with pytest.raises(fs.UserError, match=r"FedAvg weighs clients by their examples, and data.weights are real"):
        fs.simulate(scenario(), data=data, strategy=FedAvg(), record=False)


def test_baselines_are_not_measured() -> None:
    data = fs.quadratics(CURVATURES, CENTRES, weights=SHARES)
    run = fs.simulate(scenario("evaluation.baselines=true", "run.rounds=2"), data=data, record=False)
    assert run.outcome["baselines"] == {
        "not_measured": "pooled training weighs clients by their examples, and these data have real weights"
    }


def test_federated_evaluation_is_weighted() -> None:
    quick = replace(scenario().evaluation, federated_every=1)
    played = Stepper(replace(scenario(), evaluation=quick), data=fs.quadratics(CURVATURES, CENTRES, weights=SHARES))
    played.step(1)
    assert played.result is not None
    assert played.result.line["federated_loss"] == pytest.approx(played.result.line["validation_loss"], rel=1e-13)
