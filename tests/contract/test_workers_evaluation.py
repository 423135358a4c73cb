"""Central evaluation, the global objective and baselines have the same numbers on any number of workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clients.engines.evaluation import CHUNK, Evaluator
from clients.engines.objective import global_objective
from clients.models.options import LinearOptions, MlpOptions, ModelOptions, SoftmaxOptions
from clients.sources.custom import custom_population
from clients.training.options import LocalOptions
from clients.training.work import CohortWork
from server.algorithms.options import FedAvgOptions
from simulator.engines.options import EngineOptions
from simulator.runs import baselines as baselines_module
from simulator.runs.baselines import baselines
from simulator.runs.building import Overrides
from simulator.runs.session import Session, open_session
from simulator.scenario.sections import EvaluationOptions, RunOptions, Scenario, load_scenario
from simulator.testing.stepper import Stepper
from simulator.workers import engine as engine_module

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
]

SIZES = (700, 3, 4, 0, 900, 30, 1500, 5, 2, 40, 2600, 12)
FEATURES, CLASSES = 5, 3
CENTRAL = 2 * CHUNK + 300


class Noisy(nn.Module):
    """Adds numbers that it draws in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out + torch.randn_like(out)


class Counting(nn.Module):
    """Outputs depend on the passes before."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        out: torch.Tensor = self.layer(x)
        return out * (1.0 + self.calls)


MODELS: dict[str, ModelOptions | type[nn.Module]] = {
    "softmax": SoftmaxOptions(),
    "dropout": MlpOptions(hidden=(5,), dropout=0.3),
    "batch normalisation": MlpOptions(hidden=(5,), norm="batch"),
    "draws": Noisy,
    "stateful": Counting,
}


@contextmanager
def session(
    workers: int,
    model: ModelOptions | type[nn.Module] = MODELS["softmax"],
    *,
    task: str = "classification",
    engine="plain",
) -> Iterator[Session]:
    """Open a session in float32 whose clients and central sets are large enough to be dealt."""

    def examples(seed: int, count: int):
        random = np.random.default_rng((7, seed))
        x = random.normal(size=(count, FEATURES)) + 0.1 * seed
        return x, (random.integers(0, CLASSES, count) if task == "classification" else random.normal(size=(count, 2)))

    data = custom_population(
        lambda k: examples(k, SIZES[k]), SIZES, outputs=CLASSES if task == "classification" else 2,
        task=task, validation=examples(100, CENTRAL), test=examples(101, CENTRAL),
    )  # fmt: skip
    own = not isinstance(model, type)
    scenario = Scenario(
        model=model if own else None,
        local=LocalOptions(local_lr=0.1, batch_size=32, local_epochs=1),
        algorithm=FedAvgOptions(cohort=6),
        engine=EngineOptions(kind=engine, threads=1, compile="never", workers=workers),
        evaluation=EvaluationOptions(federated_clients=12, objective_every=1, test_every=1, gradient_every=1),
        run=RunOptions(seed=5, rounds=4),
    )
    torch.manual_seed(3)
    made = open_session(scenario, Overrides(model=None if own else model, population=data))
    with closing(made):
        yield made


@pytest.fixture(autouse=True)
def _always_dealt(monkeypatch):
    monkeypatch.setattr(engine_module, "DEALT_SECONDS", 0.0)
    monkeypatch.setattr(engine_module, "DEALT_EXAMPLES", 0)


def everyone_worked(made: Session) -> bool:
    return made.pool is not None and all(seconds > 0 for seconds in made.pool.facts()["busy_seconds"])


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("name", ["softmax", "dropout", "batch normalisation", "draws"])
def test_central_evaluation_has_the_bits_of_one_process(name, part):
    found = []
    for workers in (1, 2, 3):
        with session(workers, MODELS[name]) as made:
            made.evaluator.load(made.start.params, made.start.buffers)
            found.append(made.evaluator.on_central(part, 1))
            assert workers == 1 or everyone_worked(made)
    for other in found[1:]:
        assert (other.loss, other.score) == (found[0].loss, found[0].score)
        assert torch.equal(other.predicted, found[0].predicted)


def test_central_evaluation_of_a_regression_has_the_bits_of_one_process():
    found = []
    for workers in (1, 3):
        with session(workers, LinearOptions(), task="regression") as made:
            made.evaluator.load(made.start.params, made.start.buffers)
            found.append(made.evaluator.on_central("test", 1))
    assert (found[0].loss, found[0].score) == (found[1].loss, found[1].score)
    assert torch.equal(found[0].predicted, found[1].predicted)


def test_model_whose_outputs_depend_on_earlier_passes_is_evaluated_in_one_process():
    found = []
    for workers in (1, 2):
        with session(workers, Counting) as made:
            made.evaluator.load(made.start.params, made.start.buffers)
            clients = made.evaluator.clients(np.arange(12), 1)
            found.append((made.evaluator.on_central("test", 1).loss, clients.loss.tolist()))
            assert workers == 1 or not everyone_worked(made)
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert found[0][0] == found[1][0]


def test_small_central_sets_are_not_dealt(monkeypatch):
    monkeypatch.setattr(engine_module, "DEALT_SECONDS", 1e9)
    with session(2) as made:
        made.evaluator.load(made.start.params, made.start.buffers)
        loss = made.evaluator.on_central("test", 1).loss
        assert made.pool is not None
        assert made.pool.facts()["busy_seconds"] == [0.0, 0.0]
        assert loss == evaluated_alone(made)


def evaluated_alone(made: Session) -> float:
    evaluator = Evaluator(made.task)
    evaluator.load(made.start.params, made.start.buffers)
    return evaluator.on_central("test", 1).loss


@pytest.mark.parametrize("name", ["softmax", "batch normalisation"])
def test_passes_over_clients_have_the_bits_of_any_number_of_workers(name):
    weights = np.array(SIZES) / sum(SIZES)
    found = {}
    for workers in (1, 2, 3):
        with session(workers, MODELS[name], engine="stacked") as made:
            params, buffers = made.start.params, made.start.buffers
            value = global_objective(made.evaluator, params, buffers, weights=weights, round_index=1).value
            made.evaluator.load(params, buffers)
            evaluation = made.evaluator.clients(np.arange(12), 1)
            found[workers] = value, evaluation.loss, evaluation.score
            assert workers == 1 or everyone_worked(made)
    for a, b in zip(found[2], found[3], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(found[1], found[2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_gradient_passes_have_the_bits_of_any_number_of_workers():
    rows = {}
    for workers in (1, 2, 3):
        with session(workers, engine="stacked") as made:
            assert made.engine is not None
            everyone = np.flatnonzero(SIZES)
            work = CohortWork(round_index=1, clients=everyone, params=made.start.params, buffers=made.start.buffers)
            rows[workers] = made.engine.gradients(work)
            assert workers == 1 or everyone_worked(made)
    assert torch.equal(rows[2], rows[3])
    torch.testing.assert_close(rows[1], rows[2], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_baselines_have_the_numbers_of_one_process(engine, monkeypatch):
    monkeypatch.setattr(baselines_module, "ALONE_TOGETHER", 2)
    found = []
    for workers in (1, 2, 3):
        with session(workers, MODELS["batch normalisation"], engine=engine) as made:
            assert made.engine is not None
            found.append(baselines(made.task, made.engine, made.start.params, rounds=4, cohort=6))
            assert workers == 1 or everyone_worked(made)
    assert found[0].keys() == {"weight_divergence", "pooled_accuracy", "local_only_mean", "local_only_worst"}
    assert found[1] == found[2]
    if engine == "plain":
        assert found[0] == found[1]
    else:  # clients that train alone are stacked in other numbers
        assert found[0] == pytest.approx(found[1], abs=2 / CENTRAL)


def test_baselines_of_data_that_change_over_rounds_have_the_numbers_of_one_process(monkeypatch):
    monkeypatch.setattr(baselines_module, "ALONE_TOGETHER", 2)
    sets = ["partition.clients=6", "partition.concentration=50", "model.kind=softmax", "model.hidden=", "model.norm=",
            "model.dropout=", "algorithm.cohort=4", "engine.kind=plain", "engine.tile=", "engine.threads=1",
            "drifts.turn.kind=abrupt", "drifts.turn.start=3", "drifts.turn.strength=1.0"]  # fmt: skip
    found = []
    for workers in (1, 2):
        scenario = load_scenario("digits-label-skew", sets=[*sets, f"engine.workers={workers}"])
        with closing(open_session(scenario, Overrides())) as made:
            assert made.engine is not None
            found.append(baselines(made.task, made.engine, made.start.params, rounds=4, cohort=4))
            assert workers == 1 or everyone_worked(made)
    assert found[0] == found[1]


def test_busy_seconds_of_a_round_include_its_evaluations():
    """A round of one client is trained by one worker; the other has nothing but evaluations to do."""
    with session(2) as made:
        scenario, population = made.scenario, made.population
    for curves, works in ((1, True), (0, False)):
        evaluation = replace(scenario.evaluation, objective_every=0, gradient_every=0, test_every=curves)
        options = replace(scenario, evaluation=evaluation, algorithm=FedAvgOptions(cohort=1))
        with pytest.MonkeyPatch.context() as patch, closing(Stepper(options, data=population)) as stepper:
            if not curves:
                patch.setattr(engine_module, "DEALT_SECONDS", 1e9)
            stepper.step(1)
            assert everyone_worked(stepper.session) is works
