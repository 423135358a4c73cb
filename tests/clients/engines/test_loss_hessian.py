"""The Hessian of a loss over examples: products equal differences of the loss, of each client and of all together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fedscape as fs
from clients.core.arrays import F64
from clients.engines.many.examples import ExampleSet, objective_examples, validation_examples
from clients.engines.many.hessian import LossHessian
from clients.engines.many.losses import ManyModels
from clients.training.task import LearningTask
from simulator.runs.building import Overrides, make_task_of

CASES = {
    "penalties": ["local.l2=0.1", "model.activation=tanh"],
    "batch statistics": ["model.norm=batch", "model.activation=tanh", "partition.min_size=14", "local.drop_last=true"],
    "remedies": ["local.class_weights=inverse", "local.focal_gamma=2", "model.activation=tanh"],
    "margins": ["model.kind=softmax", "model.hidden=", "local.loss=squared_hinge"],
}


def task_of(name: str) -> LearningTask:
    sets = ["partition.clients=12", "run.dtype=float64", "algorithm.cohort=5", *CASES[name]]
    return make_task_of(fs.load_scenario("digits-label-skew", sets=sets), Overrides(None))


def shares_of(task: LearningTask) -> F64:
    sizes = task.population.sizes.astype(np.float64)
    return np.asarray(sizes / sizes.sum(), np.float64)


def model_of(task: LearningTask) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a model near the initial one: of a linear model that is 0, where margins are equal."""
    params, buffers = task.initial()
    rng = torch.Generator().manual_seed(5)
    return params + 0.1 * torch.randn(params.shape, generator=rng, dtype=params.dtype), buffers


def direction(size: int) -> torch.Tensor:
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return drawn / drawn.norm()


def bent(task: LearningTask, examples: ExampleSet, v: torch.Tensor, step: float = 2e-4) -> float:
    """Return v' H v by second differences of the loss of three models."""
    params, buffers = model_of(task)
    line = torch.stack([params + s * step * v for s in (-1.0, 0.0, 1.0)])
    ends = ManyModels(task).losses(3, lambda start, end: (line[start:end], buffers.expand(end - start, -1)), examples)
    return float(ends[0] - 2.0 * ends[1] + ends[2]) / step**2


@pytest.mark.parametrize("of", ["objective", "validation"])
@pytest.mark.parametrize("name", CASES)
def test_products_equal_second_differences_of_the_loss(name: str, of: str) -> None:
    task = task_of(name)
    examples = objective_examples(task, shares_of(task), 1, 500) if of == "objective" else validation_examples(task, 1)
    hessian, v = LossHessian(examples, *model_of(task)), direction(task.parameters.size)
    found = float(v @ hessian.product(v))
    assert found == pytest.approx(bent(task, examples, v), rel=1e-4, abs=1e-6)
    assert float(v @ hessian.product(v)) == found  # from the examples that were kept
    assert hessian.products == 2


@pytest.mark.parametrize("name", CASES)
def test_clients_curvatures_add_up_to_that_of_the_objective(name: str) -> None:
    task = task_of(name)
    shares = shares_of(task)
    shares[[2, 5]] = 0.0
    shares /= shares.sum()
    whole = objective_examples(task, shares, 1)
    examples = ExampleSet(task, 1, shares, whole.chosen, by_client=True)
    hessian, v = LossHessian(examples, *model_of(task)), direction(task.parameters.size)
    each = hessian.by_client(v)
    assert each.shape == (10,)
    assert float(shares[examples.clients] @ each) == pytest.approx(float(v @ hessian.product(v)), rel=1e-4, abs=1e-6)
    alone = np.zeros_like(shares)
    alone[3] = 1.0
    assert each[2] == pytest.approx(bent(task, objective_examples(task, alone, 1), v), rel=1e-3, abs=1e-5)


def test_examples_that_are_left_have_the_weight_of_their_client() -> None:
    task, shares = task_of("penalties"), np.arange(12) / 66.0
    sizes = task.population.sizes[1:].astype(np.int64)
    chosen = np.concatenate([np.arange(size) % (2 + k % 3) == 0 for k, size in enumerate(sizes)])
    examples = ExampleSet(task, 1, shares, chosen, by_client=True)
    total = np.zeros(11)
    for chunk in examples:
        np.add.at(total, chunk.owners, chunk.weights.numpy())
    np.testing.assert_allclose(total, shares[1:], rtol=1e-12)
    drawn = sum(float(chunk.weights.sum()) for chunk in ExampleSet(task, 1, shares, chosen))
    assert drawn == pytest.approx(1.0, rel=1e-12)
