"""The built-in scenarios of one model each show what their comments say."""

from __future__ import annotations

import numpy as np
import pytest

from clients.federation.build import build_federation
from simulator.runs.building import federation_of
from simulator.runs.run import Run, simulate
from simulator.scenario.sections import load_scenario

PINNED = ["engine.kind=stacked", "engine.tile=10", "engine.threads=1", "engine.workers=1", "engine.compile=never"]


def played(name: str, *sets: str) -> Run:
    return simulate(load_scenario(name, sets=[*PINNED, *sets]), record=False)


def test_perceptron_stops_within_its_bound() -> None:
    run = played("points-perceptron")
    errors = np.asarray(run.rounds["train_errors"][1:])
    assert run.outcome["outcome"] == "converged"
    assert errors[-1] == 0 < errors[0]


def test_perceptron_on_xor_never_stops() -> None:
    run = played("points-xor")
    assert (np.asarray(run.rounds["train_errors"][1:]) > 50).all()
    assert float(run.params.norm()) < 10


def test_rings_need_more_than_a_plane() -> None:
    accuracy = played("points-rings").rounds["validation_accuracy"][-1]
    assert accuracy > 0.95
    assert played("points-rings", "model.kind=logistic", "rounds=10").rounds["validation_accuracy"].max() < 0.8


def test_svm_classifies_digits() -> None:
    assert played("digits-svm", "rounds=40").rounds["validation_accuracy"][-1] > 0.9


def test_logistic_regression_comes_close_to_the_bayes_error() -> None:
    sets = ["data.customers=1000", "rounds=30"]
    scenario = load_scenario("churn", sets=[*PINNED, *sets])
    record = build_federation(federation_of(scenario, scenario.data)).federation.record
    run = played("churn", *sets)
    assert run.rounds["validation_loss"][-1] == pytest.approx(record["bayes_loss"], abs=0.012)  # 4,000 customers
    assert run.rounds["validation_error"][-1] == pytest.approx(record["bayes_error"], abs=0.012)


def test_autoencoder_finds_damaged_bridges() -> None:
    found = played("city-bridge-anomalies", "rounds=40").outcome["anomalies"]
    assert found["relative_auc"] > 0.9 > 0.5 < found["auc"] < found["relative_auc"]
    assert 0 < found["anomalies"] < found["examples"]


def test_gan_draws_most_of_the_digits() -> None:
    run = played("digits-gan", "rounds=15")
    distance = run.rounds["validation_frechet_distance"]
    assert distance[-1] < 1.0 < 5.0 < distance[0]
    assert run.outcome["test_frechet_distance"] < 1.0
    assert min(run.rounds[f"validation_sample_{key}"][-1] for key in ("precision", "coverage")) > 0.35
    assert run.outcome["test_sample_classes"] >= 9


def test_transformer_learns_what_single_words_do_not_tell() -> None:
    attentive = played("reviews-transformer", "rounds=15")
    assert attentive.rounds["validation_accuracy"][-1] > 0.95
    words = played("reviews-transformer", "model.kind=softmax", "local.optimizer=sgd", "rounds=5")
    assert words.rounds["validation_accuracy"].max() < 0.65


@pytest.mark.parametrize("name", ["city-traffic-lstm", "city-traffic-transformer"])
def test_forecasts_of_other_models_improve(name: str) -> None:
    errors = played(name, "rounds=6", "data.clients=12", "algorithm.cohort=6").rounds["validation_error"]
    assert errors[-1] < 0.9 * errors[0]
