"""Evaluation after adaptation equals training each client by hand and scoring its own model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fedscape
from clients.core.errors import ScenarioError
from clients.engines.evaluation import Evaluator
from clients.engines.personal.adapted import AdaptedEvaluator
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import LinearOptions
from clients.sources.options import SineOptions
from clients.sources.sine import sine_population
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 3


def given():
    population = sine_population(SineOptions(clients=5, examples=8, held_out=6), seed=2, dtype=torch.float64)
    local = LocalOptions(local_lr=0.02, batch_size=4, local_epochs=7, partial_work=0.5)
    return make_task(build_model(LinearOptions(), population, 0), population, local, seed=2, dtype=torch.float64)


@pytest.mark.parametrize("engine", [PlainEngine, lambda task: StackedEngine(task, tile=2)])
def test_each_client_is_scored_with_its_own_parameters(engine):
    task, clients = given(), np.array([0, 2, 4])
    params, buffers = task.initial()
    found = AdaptedEvaluator(task, engine(task), STEPS).evaluate(params, buffers, clients, 4)
    alone = replace(task, local=LocalOptions(local_lr=0.02, batch_size=4, local_steps=STEPS))
    held_out, evaluator = task.population.clients.held_out, Evaluator(task)
    for k, client in enumerate(clients):
        work = CohortWork(round_index=4, clients=np.array([client]), params=params, buffers=buffers)
        own = PlainEngine(alone).train(work, {})[0]
        assert own.local_steps.tolist() == [STEPS]
        data = held_out(np.array([client])).client(0)
        outputs = data.features @ own.params[0][:1, None] + own.params[0][1]
        assert found.loss[k] == pytest.approx((outputs - data.targets).square().mean().item(), rel=1e-10)
        evaluator.load(params, buffers)
        assert found.loss[k] != evaluator.clients(np.array([client])).loss[0]
    assert found.num_examples.tolist() == [6, 6, 6]
    assert found.evaluated_on == "test"


def test_curves_are_sines_and_parts_do_not_overlap():
    few, many = (sine_population(SineOptions(clients=n), seed=3, dtype=torch.float64) for n in (2, 6))
    data, more = few.cohort(np.array([1])).client(0), many.cohort(np.array([1])).client(0)
    assert torch.equal(data.features, more.features)
    assert torch.equal(data.targets, more.targets)
    x, y = data.features[:, 0].numpy(), data.targets[:, 0].numpy()
    basis = np.stack([np.sin(x), np.cos(x)], 1)
    fit, left, *_ = np.linalg.lstsq(basis, y, rcond=None)
    assert left.max() < 1e-20
    assert 0.1 <= np.hypot(*fit) <= 5.0
    held = few.clients.held_out(np.array([1])).client(0)
    assert not set(held.features[:, 0].tolist()) & set(x.tolist())


PINNED = ["engine.kind=stacked", "engine.tile=20", "engine.threads=1", "engine.workers=1", "local.local_lr=0.02",
          "model.activation=tanh", "evaluation.adapt_every=60"]  # fmt: skip


def test_reptile_learns_a_start_and_joint_training_does_not():
    """Both take 600 gradient steps; as they are the models are alike, after adaptation Reptile's is much better."""
    reptile = fedscape.simulate(fedscape.load_scenario("sine-reptile", sets=[*PINNED, "run.rounds=60"]), record=False)
    one = ["algorithm.kind=fedavg", "algorithm.weighting=uniform", "algorithm.server_lr=1", "local.local_steps=1"]
    sets = [*PINNED, *one, "run.rounds=600", "evaluation.adapt_every=600", "evaluation.federated_every=600"]
    joint = fedscape.simulate(fedscape.load_scenario("sine-reptile", sets=sets), record=False)
    start = reptile.rounds["adapted_loss"][0]
    assert start == joint.rounds["adapted_loss"][0]
    assert reptile.rounds["adapted_loss"][-1] < 0.75 * joint.rounds["adapted_loss"][-1] < start
    as_it_is = [run.rounds["validation_loss"][-1] for run in (reptile, joint)]
    assert 0.8 < as_it_is[0] / as_it_is[1] < 1.25


def test_adaptation_helps_reptiles_start_on_rotated_digits_and_hurts_joint_training():
    """Both take 1,000 gradient steps; twenty more on a client's own digits overfit where training was joint."""
    pinned = ["engine.kind=stacked", "engine.tile=20", "engine.threads=1", "engine.workers=1"]
    one = ["algorithm.kind=fedavg", "algorithm.weighting=uniform", "algorithm.server_lr=1", "local.local_steps=1"]
    found = []
    for sets, rounds in (([], 50), (one, 1000)):
        more = [f"run.rounds={rounds}", f"evaluation.adapt_every={rounds}", f"evaluation.federated_every={rounds}"]
        scenario = fedscape.load_scenario("digits-rotated-reptile", sets=[*pinned, *sets, *more])
        found.append(fedscape.simulate(scenario, record=False).rounds)
    reptile, joint = ({key: found[k][key][-1] for key in list(found[k])} for k in (0, 1))
    assert reptile["adapted_accuracy"] > reptile["federated_accuracy"] + 0.05
    assert reptile["adapted_loss"] < 0.9 * min(joint["adapted_loss"], joint["federated_loss"] * 1.2)
    assert reptile["adapted_accuracy"] > joint["adapted_accuracy"] + 0.03
    assert joint["adapted_loss"] > joint["federated_loss"] > 0.3


def test_adaptation_changes_no_other_number():
    sets = [*PINNED, "run.rounds=3", "data.clients=30", "convergence.plateau.metric=validation_loss"]
    runs = [fedscape.simulate(fedscape.load_scenario("sine-reptile", sets=[*sets, f"evaluation.adapt_every={n}"]),
                              record=False) for n in (0, 1)]  # fmt: skip
    assert torch.equal(runs[0].params, runs[1].params)
    assert "adapted_loss" not in runs[0].rounds
    assert np.isfinite(runs[1].rounds["adapted_loss"]).all()


def test_data_without_held_out_examples_are_refused():
    sets = ["evaluation.adapt_every=1", "data.client_test_fraction=0"]
    with pytest.raises(ScenarioError, match="the clients hold out no examples"):
        fedscape.simulate(fedscape.load_scenario("digits-iid", sets=sets), record=False)


@pytest.mark.parametrize("keys", [{"amplitude": (2.0, 1.0)}, {"clients": 0}, {"phase": -1.0}])
def test_impossible_curves_are_refused(keys):
    with pytest.raises(fedscape.UserError, match=next(iter(keys))):
        SineOptions(**keys)
