"""The cost of a round is foreseen from the probes and a short timing, and says which keys reduce it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.core.examples import Examples
from clients.engines.evaluation import Evaluator
from clients.models.build import build_model
from clients.models.options import SoftmaxOptions
from clients.training.options import LocalOptions
from clients.training.task import LearningTask, make_task
from simulator.engines.cost import LONG, MANY_EVALUATED, RoundCost, cost_words, foresee
from simulator.engines.plan import EnginePlan
from simulator.runs.announcement import cost_of
from simulator.runs.building import Overrides
from simulator.runs.session import open_session
from simulator.scenario.sections import load_scenario

PLAN = EnginePlan("plain", None, False, "as configured", {"plain": 1.0})


@pytest.fixture
def task(population_of: Any) -> LearningTask:
    population = population_of([9, 4, 7], (6,), 3, "classification")
    model = build_model(SoftmaxOptions(), population, 0)
    return make_task(model, population, LocalOptions(batch_size=4, local_epochs=2), seed=2)


@pytest.mark.parametrize(
    ("plan", "seconds"),
    [
        (PLAN, 1.0),
        (EnginePlan("stacked", None, False, "", {"plain": 9.0, "stacked": 2.0, "stacked, tiles of 5": 3.0}), 2.0),
        (EnginePlan("stacked", 5, False, "", {"plain": 9.0, "stacked": 2.0, "stacked, tiles of 5": 3.0}), 3.0),
        (EnginePlan("stacked", 5, False, "", {"stacked": 2.0}), 2.0),  # a given tile, wider than the cohort
        (EnginePlan("stacked", None, True, "", {"stacked": 2.0, "compiled": 0.5}), 0.5),
        (EnginePlan("stacked", None, False, ""), None),
        (
            EnginePlan(
                "stacked",
                5,
                False,
                "",
                {"stacked, tiles of 5, 1 thread": 2.0, "stacked, tiles of 5, 2 threads": 1.0},
                threads=1,
            ),
            2.0,
        ),
        (
            EnginePlan(
                "plain", None, False, "", {"plain, 1 thread": 2.0, "plain, 2 workers": 1.2}, threads=1, workers=2
            ),
            1.2,
        ),
        (EnginePlan("stacked", 5, False, "", {"stacked, tiles of 5": 2.0}, threads=1, workers=2), 2.0),  # not tried
    ],
)
def test_seconds_of_a_round_are_those_of_the_chosen_engine(plan: EnginePlan, seconds: float | None) -> None:
    assert plan.round_seconds == seconds


class Evaluations(Evaluator):
    """Counts the examples that are evaluated."""

    seen = 0

    def _outputs(self, features: Tensor, chunk: int = 0) -> Tensor:
        self.seen += len(features)
        return super()._outputs(features, chunk)


def examples(count: int) -> Examples:
    return Examples(torch.zeros(count, 6), torch.zeros(count, dtype=torch.int64))


def test_small_federation_is_not_timed_again(task: LearningTask) -> None:
    evaluator = Evaluations(task)
    cost = foresee(PLAN, task, evaluator, cohort=2, evaluated=MANY_EVALUATED - 1, examples=examples(100))
    assert cost is not None
    assert evaluator.seen == 0
    assert (cost.training, cost.evaluation, cost.clients, cost.batch) == (1.0, 0.0, 2, 4)
    assert cost.batches == (2 * 3 + 2 * 2) / 2  # 9 and 7 examples in batches of 4, two epochs


@pytest.mark.parametrize(("seconds", "evaluated"), [(LONG, 10), (0.1, MANY_EVALUATED)])
def test_evaluation_is_timed_on_a_few_examples_where_a_round_is_long(
    task: LearningTask, seconds: float, evaluated: float
) -> None:
    evaluator = Evaluations(task)
    plan = replace(PLAN, probes={"plain": seconds})
    before = torch.get_rng_state()
    cost = foresee(plan, task, evaluator, cohort=3, evaluated=evaluated, examples=examples(50_000))
    assert cost is not None
    assert 0 < evaluator.seen <= 4096
    assert cost.evaluation > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_engine_without_a_probe_has_no_cost(task: LearningTask) -> None:
    plan = replace(PLAN, probes={})
    assert foresee(plan, task, Evaluator(task), cohort=3, evaluated=0, examples=None) is None


COST = RoundCost(48.0, 4.0, 12, 1664.0, 128, 25_000)


def test_words_state_the_work_and_values_that_bring_a_round_to_seconds() -> None:
    words = cost_words(COST, rounds=60, stride=1, window=24, federated=0.0)
    assert words.startswith("one round is about 52 s: 12 clients x 1,664 batches of 128, then 25,000 examples")
    assert "60 rounds take up to 52 min" in words
    assert words.endswith("Reduce it with data.stride = 11, local.local_steps = 151 or algorithm.cohort = 1")


def test_words_name_only_keys_that_apply() -> None:
    whole = RoundCost(20.0, 0.0, 1, 1.0, "full", 0)
    assert cost_words(whole, rounds=1, stride=None, window=1, federated=0.0) == (
        "one round is about 20 s: 1 client x 1 full batch"
    )
    wide = cost_words(COST, rounds=60, stride=24, window=24, federated=0.0)
    assert "stride" not in wide
    evaluating = RoundCost(1.0, 50.0, 12, 10.0, 16, 90_000)
    assert "evaluation.federated_every" in cost_words(evaluating, rounds=9, stride=None, window=1, federated=0.9)


def test_round_of_a_few_seconds_has_no_words() -> None:
    assert cost_words(RoundCost(LONG - 0.1, 0.0, 9, 9.0, 9, 0), rounds=9, stride=1, window=9, federated=0.0) == ""


def test_long_round_is_announced_in_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [
        "world.days=14",
        "data.clients=6",
        "algorithm.cohort=3",
        "engine.kind=plain",
        "engine.threads=1",
        "engine.workers=1",
    ]
    session = open_session(load_scenario("city-traffic", sets=sets), Overrides())
    cost, words = cost_of(session)
    assert cost is not None
    assert words == ""
    validation = session.population.validation
    assert validation is not None
    held_out = session.population.clients.held_out
    assert held_out is not None
    assert session.plan is not None
    assert cost.evaluated == len(validation) + 6 * int(held_out(np.zeros(1, np.int64)).sizes[0]) / 10
    slow = replace(session, plan=replace(session.plan, probes={"plain": 60.0}))
    assert cost_of(slow)[1].startswith("one round is about 60 s: 3 clients x ")
    assert "data.stride = 12" in cost_of(slow)[1]  # as wide as the window at most


class Drawing(nn.Module):
    """A module whose forward pass draws from torch's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.inner(features + torch.rand(()))
        return out


def test_module_that_draws_numbers_does_not_move_them(population_of: Any) -> None:
    task = make_task(Drawing(), population_of([9, 4, 7], (6,), 3, "classification"), LocalOptions(), seed=2)
    before = torch.get_rng_state()
    plan = replace(PLAN, probes={"plain": 60.0})
    assert foresee(plan, task, Evaluator(task), cohort=3, evaluated=9, examples=examples(300)) is not None
    assert torch.equal(torch.get_rng_state(), before)
