"""The program of quadratics: the plain engine's numbers for any local options, in one call where steps are plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clients.core.population import Population
from clients.engines.plain import PlainEngine
from clients.engines.quadratic_steps import QuadraticSteps
from clients.engines.quadratics import QuadraticProgram
from clients.engines.stacked import StackedEngine
from clients.federation.data_kinds import build_population
from clients.models.build import build_model
from clients.models.options import ParameterVectorOptions
from clients.sources.options import QuadraticOptions
from clients.training import rules
from clients.training.options import LocalOptions
from clients.training.task import LearningTask, make_task
from clients.training.work import CohortUpdate, CohortWork

DATA: dict[str, dict[str, Any]] = {
    "one example": {"clients": 4, "dimension": 3},
    "equal examples": {"clients": 3, "dimension": 2, "weights": (1, 7, 3)},
    "a client without examples": {"clients": 3, "dimension": 2, "weights": (2, 0, 3)},
    "noise": {"clients": 3, "dimension": 2, "weights": (6, 4, 5), "noise": 0.7},
}
LOCAL: dict[str, dict[str, Any]] = {
    "plain": {"optimizer": "gd", "local_steps": 13},
    "l2": {"optimizer": "gd", "local_steps": 6, "l2": 0.2},
    "unequal steps": {"optimizer": "gd", "local_steps": 20, "partial_work": 0.8},
    "batches": {"optimizer": "sgd", "local_epochs": 2, "batch_size": 2},
    "adam": {"optimizer": "adam", "local_steps": 7},
    "noise and clipping": {"optimizer": "momentum", "local_steps": 5, "gradient_noise": 0.1, "clip_norm": 0.5},
}


def task_of(data: dict[str, Any], local: dict[str, Any], *, dtype: torch.dtype = torch.float64) -> LearningTask:
    population = build_population(QuadraticOptions(**data), None, seed=3, dtype=dtype)
    module = build_model(ParameterVectorOptions(start=0.5), population, 0)
    return make_task(module, population, LocalOptions(local_lr=0.1, **local), seed=1, dtype=dtype)


def work_of(task: LearningTask, rule: rules.LocalRule = rules.PLAIN) -> CohortWork:
    params, buffers = task.initial()
    zeros = torch.full_like(params, 0.1)
    return CohortWork(round_index=2, clients=np.arange(task.population.num_clients), params=params, buffers=buffers,
                      rule=rule, broadcast=dict.fromkeys(rule.broadcast, zeros))  # fmt: skip


def assert_alike(ours: CohortUpdate, theirs: CohortUpdate, within: float) -> None:
    for name in ("params", "train_loss", "client_drift", "gradient_norm"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=within, atol=within, err_msg=name)
    np.testing.assert_array_equal(ours.local_steps, theirs.local_steps)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("local", LOCAL)
def test_program_equals_the_plain_engine(data: str, local: str) -> None:
    task = task_of(DATA[data], LOCAL[local])
    engine = StackedEngine(task)
    assert isinstance(engine.program, QuadraticProgram)
    work = work_of(task)
    assert_alike(engine.train(work, {})[0], PlainEngine(task).train(work, {})[0], 1e-11)
    torch.testing.assert_close(engine.gradients(work), PlainEngine(task).gradients(work))


def test_rules_correct_each_step() -> None:
    task = task_of(DATA["equal examples"], LOCAL["plain"])
    for rule in (rules.proximal(0.5), rules.control_variate(2)):
        work = work_of(task, rule)
        state = {n: torch.full((3, 2), 0.2, dtype=torch.float64) for n in rule.client_state}
        assert_alike(StackedEngine(task).train(work, state)[0], PlainEngine(task).train(work, state)[0], 1e-11)


def test_long_paths_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(DATA["one example"], LOCAL["plain"])
    whole = StackedEngine(task).train(work_of(task), {})[0]
    monkeypatch.setattr("clients.engines.quadratic_steps.AT_ONCE", 30)
    assert_alike(StackedEngine(task).train(work_of(task), {})[0], whole, 1e-12)


def test_plain_steps_are_taken_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    descend = QuadraticProgram.descend

    def counted(*arguments: Any) -> Any:
        calls.append(arguments[2])
        return descend(*arguments)

    def refuse(*_: Any) -> None:
        raise AssertionError("a step was taken by itself")

    monkeypatch.setattr(QuadraticProgram, "descend", staticmethod(counted))
    monkeypatch.setattr(QuadraticSteps, "_take", refuse)
    for data in ("one example", "equal examples", "noise"):
        task = task_of(DATA[data], LOCAL["plain"])
        StackedEngine(task).train(work_of(task), {})
    assert calls == [13, 13, 13]


def test_program_is_exact_in_float32_to_rounding() -> None:
    task = task_of(DATA["noise"], LOCAL["plain"], dtype=torch.float32)
    work = work_of(task)
    assert_alike(StackedEngine(task).train(work, {})[0], PlainEngine(task).train(work, {})[0], 1e-5)


def test_asymmetric_matrices_of_own_data_have_the_gradient_of_autograd(
    population_of: Callable[..., Population],
) -> None:
    population = population_of([3, 2], outputs=3, task="objective", dtype=torch.float64)
    features = population.cohort(np.arange(2)).features
    features[:, 1] += 0.7  # the entry (0, 1) of H, without its mirror
    module = build_model(ParameterVectorOptions(start=0.5), population, 0)
    task = make_task(module, population, LocalOptions(local_lr=0.1, **LOCAL["batches"]), seed=1, dtype=torch.float64)
    assert_alike(StackedEngine(task).train(work_of(task), {})[0], PlainEngine(task).train(work_of(task), {})[0], 1e-11)
