"""Losses of many models at once equal those of one model alone, for every kind of model and loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fedscape as fs
from clients.core.errors import UserError
from clients.engines.evaluation import Evaluator
from clients.engines.many.examples import ExampleSet, objective_examples, validation_examples
from clients.engines.many.losses import ManyModels
from clients.engines.objective import global_objective
from clients.training.task import LearningTask
from simulator.runs.building import Overrides, make_task_of

CASES: dict[str, tuple[str, list[str], str]] = {
    "mlp": ("digits-label-skew", ["local.l2=0.1", "local.l1=0.01"], "vmap"),
    "cnn": ("digits-label-skew", ["model={kind='small_cnn',channels=[3,4]}"], "vmap"),
    "norm": (
        "digits-label-skew",
        ["model.norm=batch", "partition.min_size=14", "partition.clients=20", "local.drop_last=true"],
        "vmap",
    ),
    "weights": ("digits-label-skew", ["local.class_weights=inverse", "local.focal_gamma=2"], "vmap"),
    "gru": ("city-traffic", ["data.clients=4", "model.hidden=5"], "gru"),
}


class Lstm(nn.Module):
    """Reads rows of pixels one after another; vmap has no rule for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.readout = nn.LSTM(8, 3, batch_first=True), nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.lstm(x.reshape(len(x), 8, 8))[0][:, -1])
        return out


def task_of(scenario: str, sets: list[str], model: nn.Module | None = None, dtype: str = "float64") -> LearningTask:
    return make_task_of(fs.load_scenario(scenario, sets=[*sets, f"run.dtype={dtype}"]), Overrides(model))


def models_of(task: LearningTask, count: int) -> tuple[Tensor, Tensor]:
    """Return models around the initial one; buffers stay positive, as variances are."""
    rng = torch.Generator().manual_seed(1)
    params, buffers = task.initial()
    near = params + 0.1 * torch.randn(count, len(params), generator=rng, dtype=params.dtype)
    return near, buffers * (1 + torch.rand(count, len(buffers), generator=rng, dtype=params.dtype))


def losses(many: ManyModels, models: tuple[Tensor, Tensor], examples: ExampleSet) -> np.ndarray:
    params, buffers = models
    return many.losses(len(params), lambda start, end: (params[start:end], buffers[start:end]), examples).numpy()


def shares_of(task: LearningTask) -> np.ndarray:
    sizes = task.population.sizes.astype(float)
    return sizes / sizes.sum()


@pytest.mark.parametrize("name", CASES)
def test_losses_equal_the_global_objective_and_the_validation_loss(name: str) -> None:
    scenario, sets, program = CASES[name]
    task = task_of(scenario, sets)
    many, evaluator, shares = ManyModels(task), Evaluator(task), shares_of(task)
    assert (many.program, many.reason) == (program, "")
    params, buffers = models_of(task, 3)
    found = losses(many, (params, buffers), objective_examples(task, shares, 1))
    expected = [global_objective(evaluator, p, b, weights=shares, round_index=1).value
                for p, b in zip(params, buffers, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert len(set(found)) == 3
    central = losses(many, (params, buffers), validation_examples(task, 1))
    for loss, p, b in zip(central, params, buffers, strict=True):
        evaluator.load(p, b)
        assert loss == pytest.approx(evaluator.on_central("validation", 1).loss, rel=1e-11)


def test_model_without_a_rule_for_stacks_is_measured_alone() -> None:
    task = task_of("digits-label-skew", [], Lstm(), "float32")
    many, shares = ManyModels(task), shares_of(task)
    assert many.program == "one by one"
    assert many.reason
    params, buffers = models_of(task, 2)
    found = losses(many, (params, buffers), objective_examples(task, shares, 1))
    expected = [global_objective(Evaluator(task), p, b, weights=shares, round_index=1).value
                for p, b in zip(params, buffers, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-5)


class Noisy(nn.Module):
    """Adds noise to its outputs, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.flatten(1))
        return out + 0.1 * torch.randn_like(out)


def test_model_that_draws_is_measured_alone_with_the_same_numbers() -> None:
    task = task_of("digits-label-skew", [], Noisy())
    many = ManyModels(task)
    assert many.program == "one by one"
    assert "draws" in many.reason
    params, buffers = models_of(task, 1)
    pair = losses(many, (params.expand(2, -1), buffers.expand(2, -1)), validation_examples(task, 1))
    assert pair[0] == pytest.approx(pair[1], rel=1e-12)  # sums differ in their last bit with where memory begins


def test_blocks_and_clients_do_not_change_losses() -> None:
    task = task_of("digits-label-skew", [])
    models, examples = models_of(task, 7), objective_examples(task, shares_of(task), 1)
    whole, small = ManyModels(task), ManyModels(task, block_bytes=2**21)
    assert small.block() < 7 < whole.block()
    np.testing.assert_allclose(losses(whole, models, examples), losses(small, models, examples), rtol=1e-12)
    assert ManyModels(task, block_bytes=1).block() == 1


def test_examples_that_are_drawn_are_the_same_for_all_models_and_weigh_one() -> None:
    task = task_of("digits-label-skew", [])
    shares = shares_of(task)
    drawn = objective_examples(task, shares, 1, most=100)
    assert (drawn.used, len(drawn)) == (100, task.population.num_examples)
    weights = torch.cat([part.weights for part in drawn])
    assert len(weights) == 100
    assert float(weights.sum()) == pytest.approx(1.0)
    again = objective_examples(task, shares, 1, most=100)
    assert (again.chosen == drawn.chosen).all()
    other = objective_examples(replace(task, seed=task.seed + 1), shares, 1, most=100)
    assert (other.chosen != drawn.chosen).any()
    models = models_of(task, 2)
    near = losses(ManyModels(task), models, objective_examples(task, shares, 1, most=1000))
    np.testing.assert_allclose(near, losses(ManyModels(task), models, objective_examples(task, shares, 1)), rtol=0.1)
    assert validation_examples(task, 1, most=10).used == 10


def test_clients_weigh_by_their_shares() -> None:
    task = task_of("digits-label-skew", [])
    shares = np.zeros(task.population.num_clients)
    shares[[2, 5]] = 0.25, 0.75
    parts: list[Any] = []
    params, buffers = models_of(task, 1)
    for client in (2, 5):
        alone = np.zeros(len(shares))
        alone[client] = 1.0
        parts.append(losses(ManyModels(task), (params, buffers), objective_examples(task, alone, 1))[0])
    found = losses(ManyModels(task), (params, buffers), objective_examples(task, shares, 1))[0]
    assert found == pytest.approx(0.25 * parts[0] + 0.75 * parts[1], rel=1e-12)


def test_validation_without_examples_is_refused() -> None:
    task = task_of("quadratic-two-clients", [])
    with pytest.raises(UserError, match="of: is 'validation', and the data have no central validation examples"):
        validation_examples(task, 1)
