"""Running statistics of batch normalisation are averaged with the weights of the clients' parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from federations import Federation, engine_options

from clients.core.arrays import F64
from clients.models.options import MlpOptions
from clients.sources.custom import custom_population
from clients.training.options import LocalOptions
from server.algorithms import options as kinds
from server.algorithms.aggregation import Aggregation, ClientFacts, convex
from server.algorithms.algorithm import Algorithm
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = np.array([12, 4, 8, 6])
P, UNIFORM = SIZES / SIZES.sum(), np.full(4, 0.25)
BY_ROW = {
    "examples": (kinds.FedAvgOptions(), P),
    "uniform": (kinds.FedAvgOptions(weighting="uniform"), UNIFORM),
    "unbiased": (kinds.FedAvgOptions(weighting="unbiased"), P),
    "scaffold": (kinds.ScaffoldOptions(), UNIFORM),
    "feddyn": (kinds.FedDynOptions(), UNIFORM),
    "fednova": (kinds.FedNovaOptions(), P),
    "reptile": (kinds.ReptileOptions(), UNIFORM),
    "fomaml": (kinds.FomamlOptions(weighting="examples"), P),
    "fednova, uniform": (kinds.FedNovaOptions(weighting="uniform"), UNIFORM),
}


def federation(options: kinds.AlgorithmOptions, *, keep_bytes: int = 1 << 30, **more: Any) -> Federation:
    def examples(k: int) -> tuple[Any, Any]:
        random = np.random.default_rng((3, k))
        return random.normal(size=(SIZES[k], 4)) * (1 + k) + k, random.integers(0, 3, SIZES[k])

    data = custom_population(examples, SIZES.tolist(), outputs=3, dtype=torch.float64)
    local = LocalOptions(local_lr=0.1, batch_size=4, local_epochs=3, partial_work=more.pop("partial_work", 0.0))
    scenario = Scenario(model=MlpOptions(hidden=(5,), norm="batch"), local=local, algorithm=options,
                        engine=engine_options(tile=2, keep_bytes=keep_bytes),
                        evaluation=EvaluationOptions(federated_every=0), run=RunOptions(dtype="float64"))  # fmt: skip
    return Federation(scenario, data=data, **more)


def mean(made: Federation, weights: F64) -> torch.Tensor:
    return torch.from_numpy(np.asarray(weights, np.float64)) @ made.update.buffers


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", BY_ROW)
def test_buffers_follow_the_weighting(name: str) -> None:
    options, weights = BY_ROW[name]
    kept, streamed = federation(options), federation(options, keep_bytes=0)
    kept.step()
    streamed.step()
    assert_close(kept.state.buffers, mean(kept, weights))
    torch.testing.assert_close(streamed.state.buffers, kept.state.buffers, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(mean(kept, P), mean(kept, UNIFORM), rtol=1e-2)


def test_unbiased_weights_of_a_cohort_are_scaled_to_one() -> None:
    """Their sum is not 1, and a running variance must not leave the range of the clients' variances."""
    made = federation(kinds.FedAvgOptions(weighting="unbiased", cohort=2))
    made.step()
    p = P[made.update.clients]
    assert made.total.weights.sum() != pytest.approx(1.0, abs=0.05)
    assert_close(made.state.buffers, mean(made, p / p.sum()))


def test_client_drawn_twice_counts_twice() -> None:
    made = federation(kinds.FedAvgOptions(sampling="by_examples", weighting="uniform", cohort=9))
    draws = made.strategy.federation.sampler.draw(1).draws
    made.step()
    assert draws.max() > 1
    assert_close(made.state.buffers, mean(made, draws / 9))


def test_dropped_clients_do_not_count() -> None:
    made = federation(kinds.FedAvgOptions(weighting="uniform", partial_work="drop"), partial_work=0.5)
    while True:
        made.step()
        counted = made.total.weights > 0
        if 0 < counted.sum() < 4:
            break
    assert_close(made.state.buffers, mean(made, counted / counted.sum()))


def test_buffers_stay_where_every_client_is_dropped() -> None:
    made = federation(kinds.FedAvgOptions(partial_work="drop"), partial_work=1.0)
    before = made.state.buffers.clone()
    made.step()
    assert not (made.total.weights > 0).any()
    assert torch.equal(made.state.buffers, before)


def test_buffers_follow_weights_of_your_own() -> None:
    """The coefficients sum to 4: they are scaled, so that a running variance stays between the clients'."""

    def weights(facts: ClientFacts) -> F64:
        return np.array([2.0, 1.5, 0.0, 0.5])

    made = federation(kinds.FedAvgOptions(), algorithm=Algorithm("own", aggregation=Aggregation("own", weights)))
    made.step()
    assert_close(made.state.buffers, mean(made, [0.5, 0.375, 0.0, 0.125]))


@pytest.mark.parametrize(("weights", "expected"), [
    ([0.2, 0.8], [0.2, 0.8]), ([1.0, 3.0], [0.25, 0.75]), ([0.0, 0.0], [0.0, 0.0]),
])  # fmt: skip
def test_convex_weights_sum_to_one(weights: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(convex(np.array(weights)), expected, rtol=1e-15)


def test_respondents_without_examples_do_not_count() -> None:
    """A user's client that reports no example returns the model it got: it has no weight, and its buffers neither."""
    made = federation(kinds.FedAvgOptions(weighting="uniform"))
    start = made.params

    def emptied(update: Any) -> Any:
        return replace(update, num_examples=np.array([12, 0, 8, 6]))

    made.tampered(start, emptied)
    np.testing.assert_allclose(made.total.weights, np.array([1, 0, 1, 1]) / 3)
