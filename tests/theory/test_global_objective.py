"""The recorded global objective is f(w) = sum p_k F_k(w) + penalties: closed forms, and its derivative."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from federations import engine_options

import fedscape as fs
from clients.core.errors import StrategyError
from clients.core.parameters import write_vector
from clients.engines.evaluation import Evaluator
from clients.engines.objective import CLIENTS_TOGETHER, EXAMPLES_TOGETHER, global_objective
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.options import ParameterVectorOptions
from clients.training.options import LocalOptions
from clients.training.task import LearningTask, make_task
from clients.training.work import CohortWork
from server.algorithms.aggregation import Aggregation
from server.algorithms.algorithm import Algorithm
from server.algorithms.objective import objective_weights
from server.algorithms.options import AlgorithmOptions, FedAvgOptions, FedNovaOptions, ScaffoldOptions
from server.convergence.monitor import ConvergenceOptions
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario

K, D, ROUNDS = 5, 3, 7
RANDOM = np.random.default_rng(3)
HALVES = RANDOM.normal(size=(K, D, D))
HESSIANS = HALVES @ HALVES.transpose(0, 2, 1) + 0.3 * np.eye(D)
CENTRES, LINEAR = RANDOM.normal(size=(K, D)), RANDOM.normal(size=(K, D))
START = (0.5, -1.0, 2.0)


def f(w: np.ndarray, p: np.ndarray, l1: float = 0.0, l2: float = 0.0) -> float:
    """Return the objective at w [d] in closed form."""
    away = w - CENTRES
    each = 0.5 * np.einsum("ki,kij,kj->k", away, HESSIANS, away) + LINEAR @ w
    return float(p @ each + l1 * np.abs(w).sum() + 0.5 * l2 * w @ w)


def scenario_of(algorithm: AlgorithmOptions, engine: str, **local: Any) -> Scenario:
    return Scenario(
        model=ParameterVectorOptions(start=START),
        local=LocalOptions(optimizer="gd", local_lr=0.02, local_steps=4, **local),
        algorithm=algorithm,
        evaluation=EvaluationOptions(federated_every=0, objective_every=3),
        convergence=ConvergenceOptions(stop="never"),
        engine=engine_options(engine),
        run=RunOptions(rounds=ROUNDS, dtype="float64", seed=4),
    )


class Path:
    """An observer that keeps the parameters after each round."""

    def __init__(self) -> None:
        self.params: list[np.ndarray] = []

    def snapshot_taken(self, snapshot: fs.Snapshot) -> None:
        (w,) = snapshot.parameters().values()
        self.params.append(w.numpy())


COUNTS, REALS = (1, 4, 2, 0, 3), (0.1, 0.35, 0.2, 0.0, 0.35)
BY_COUNTS, ALIKE = np.array(COUNTS) / 10, np.array([1, 1, 1, 0, 1]) / 4
CASES: dict[str, tuple[AlgorithmOptions, tuple[float, ...], np.ndarray, dict[str, float]]] = {
    "examples": (FedAvgOptions(), COUNTS, BY_COUNTS, {}),
    "real weights": (FedAvgOptions(), REALS, np.array(REALS), {}),
    "uniform": (FedAvgOptions(weighting="uniform"), COUNTS, ALIKE, {}),
    "unbiased": (FedAvgOptions(weighting="unbiased", cohort=2), COUNTS, BY_COUNTS, {}),
    "drawn by examples": (
        FedAvgOptions(weighting="uniform", sampling="by_examples", cohort=2), COUNTS, BY_COUNTS, {}
    ),
    "scaffold": (ScaffoldOptions(), COUNTS, ALIKE, {}),
    "scaffold, drawn by examples": (ScaffoldOptions(sampling="by_examples", cohort=2), COUNTS, ALIKE, {}),
    "fednova": (FedNovaOptions(), COUNTS, BY_COUNTS, {}),
    "penalties": (FedAvgOptions(), COUNTS, BY_COUNTS, {"l1": 0.2, "l2": 0.7}),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("case", CASES)
def test_objective_of_quadratics_is_the_closed_form(case: str, engine: str) -> None:
    algorithm, weights, p, penalties = CASES[case]
    data = fs.quadratics(HESSIANS, CENTRES, linear=LINEAR, weights=weights)
    path = Path()
    run = fs.simulate(scenario_of(algorithm, engine, **penalties), data=data, record=False, observers=[path])
    measured = [line for line in run.rounds.lines if "objective" in line]
    assert [line["round"] for line in measured] == [0, 3, 6, 7]
    for line in measured:
        w = path.params[line["round"]]
        assert line["objective"] == pytest.approx(f(w, p, **penalties), rel=1e-12, abs=1e-12)
        assert ("objective_penalty" in line) == bool(penalties)
        if penalties:
            assert line["objective_penalty"] == pytest.approx(f(w, 0 * p, **penalties), rel=1e-12)
        elif p is BY_COUNTS:
            assert data.objective is not None
            assert line["objective"] - data.objective.optimal_value == pytest.approx(line["optimality_gap"], rel=1e-9)


def labelled(k: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng((8, k))
    count = (12, 7, 1, 0, 20)[k]
    y = random.choice(3, size=count, p=[0.6, 0.3, 0.1])
    return random.normal(size=(count, 4)) + y[:, None] * 0.5, y


def task_of(**local: Any) -> LearningTask:
    data = fs.custom_population(labelled, [12, 7, 1, 0, 20], outputs=3, dtype=torch.float64)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    return make_task(net, data, LocalOptions(**local), seed=2, dtype=torch.float64)


@pytest.mark.parametrize(
    "local",
    [
        {},
        {"class_weights": "inverse"},
        {"class_weights": "effective", "weights_from": "federation"},
        {"sampling": "class_balanced"},
        {"focal_gamma": 2.0, "class_weights": "inverse"},
    ],
    ids=str,
)
def test_gradient_of_the_objective_is_the_weighted_gradient_of_the_engines(local: dict[str, Any]) -> None:
    """The derivative along any direction is that of sum p_k grad F_k + l2 w + l1 sign(w), which engines compute."""
    task = task_of(l1=0.01, l2=0.1, **local)
    p = objective_weights(Algorithm("fedavg"), task.population.federation)
    params, buffers = task.initial()
    work = CohortWork(round_index=1, clients=np.arange(5), params=params, buffers=buffers)
    for engine in (PlainEngine(task), StackedEngine(task, tile=5)):
        gradient = torch.from_numpy(p) @ engine.gradients(work) + 0.1 * params + 0.01 * params.sign()
        direction = torch.from_numpy(np.random.default_rng(1).normal(size=len(params)))
        step = 1e-5
        ends = [
            global_objective(Evaluator(task), params + s * step * direction, buffers, weights=p, round_index=1).value
            for s in (1, -1)
        ]
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(gradient @ direction), rel=1e-7)


def test_objective_is_the_mean_over_all_examples_of_a_model() -> None:
    task = task_of()
    p = objective_weights(None, task.population.federation)
    params, buffers = task.initial()
    write_vector(task.module, task.parameters, params)
    x, y = (np.concatenate(parts) for parts in zip(*map(labelled, range(5)), strict=True))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(task.module(torch.from_numpy(x)), torch.from_numpy(y))
    found = global_objective(Evaluator(task), params, buffers, weights=p, round_index=1)
    assert found.value == found.loss == pytest.approx(float(expected), rel=1e-12)


def test_objective_is_of_the_data_of_its_round() -> None:
    """A concept drift from round 4 on changes f at the same parameters."""
    drift = {"swap": {"kind": "abrupt", "changes": "p(y|x)", "start": 4}}
    base = {
        "data": {"kind": "digits"},
        "partition": {"kind": "iid", "clients": 4},
        "model": {"kind": "mlp", "hidden": [8]},
        "local": {"local_steps": 1, "local_lr": 1e-12},
        "engine": {"kind": "plain", "threads": 1},
        "evaluation": {"objective_every": 1, "federated_every": 0},
        "run": {"rounds": 6, "dtype": "float64"},
    }
    still = fs.simulate(base, record=False).rounds["objective"]
    moved = fs.simulate(base | {"drifts": drift}, record=False).rounds["objective"]
    np.testing.assert_allclose(still, still[0], rtol=1e-9)
    np.testing.assert_allclose(moved[:4], still[0], rtol=1e-9)
    assert (abs(moved[4:] - still[0]) > 1e-3).all()


def test_clients_are_made_in_blocks_that_fit_into_memory() -> None:
    evaluated: list[int] = []
    count, sizes = 700, np.full(700, 200)

    def client(k: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((200, 1), k % 7, np.float32), np.full(200, k % 3)

    data = fs.custom_population(client, sizes, outputs=3)
    inner = data.clients.cohort

    def cohort(clients: np.ndarray) -> fs.CohortData:
        evaluated.append(len(clients))
        return inner(clients)

    watched = replace(data, clients=replace(data.clients, cohort=cohort))
    task = make_task(torch.nn.Linear(1, 3), watched, LocalOptions(), seed=1)
    evaluated.clear()
    global_objective(Evaluator(task), *task.initial(), weights=np.full(count, 1 / count), round_index=1)
    assert sum(evaluated) == count
    assert max(evaluated) <= min(CLIENTS_TOGETHER, EXAMPLES_TOGETHER // 200)


def test_weights_without_a_positive_sum_are_refused() -> None:
    facts = fs.quadratics([1.0, 2.0], [0.0, 1.0]).federation
    nothing = Aggregation("nothing", lambda s: np.zeros(len(s.num_examples)))
    with pytest.raises(StrategyError, match=r"objective_every: needs weights with a positive sum, and those of 'not"):
        objective_weights(Algorithm("own", aggregation=nothing), facts)
