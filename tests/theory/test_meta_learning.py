"""Reptile and first-order MAML on quadratics: their rounds are affine maps with known fixed points.

With M_k = (I - eta H_k)^(S - 1) after S - 1 steps of adaptation: Reptile moves by the part s of the way
(I - (I - eta H_k)^S)(w - c_k), and FOMAML by s H_k M_k (w - c_k), the gradient where adaptation ended.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import affine, fixed_point, quadratics

from clients.core.errors import StrategyError
from clients.engines.plain import PlainEngine
from clients.engines.stacked import StackedEngine
from clients.models.build import build_model
from clients.models.options import MlpOptions
from clients.training import rules
from clients.training.local import count_steps, plan_batches
from clients.training.options import LocalOptions
from clients.training.task import make_task
from clients.training.work import CohortWork
from server.algorithms.build import build_algorithm
from server.algorithms.options import FedAvgOptions, FomamlOptions, ReptileOptions

RNG = np.random.default_rng(31)
ROOTS = RNG.normal(size=(3, 2, 2))
HESSIANS = ROOTS @ ROOTS.transpose(0, 2, 1) + 0.2 * np.eye(2)
HESSIANS = 0.5 * (HESSIANS + HESSIANS.transpose(0, 2, 1))
CENTRES = RNG.normal(size=(3, 2))
WEIGHTS = (3, 1, 2)
EYE = np.eye(2)
ETA = 0.9 / max(np.linalg.eigvalsh(h)[-1] for h in HESSIANS)


def federation(algorithm, **more):
    return quadratics(HESSIANS, CENTRES, algorithm=algorithm, weights=WEIGHTS, **({"local_lr": ETA} | more))


def surrogate(parts, p):
    """Return sum p_k A_k, and the point where sum p_k A_k (w - c_k) is 0."""
    whole = np.einsum("k,kij->ij", p, parts)
    return whole, np.linalg.solve(whole, np.einsum("k,kij,kj->i", p, parts, CENTRES))


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("steps", [1, 4])
def test_reptile_goes_a_part_of_the_way_to_the_adapted_parameters(steps, engine):
    s = 0.4
    ways = [EYE - np.linalg.matrix_power(EYE - ETA * h, steps) for h in HESSIANS]
    whole, limit = surrogate(ways, np.full(3, 1 / 3))
    found = federation(ReptileOptions(server_lr=s), local_steps=steps, engine=engine)
    a, b = affine(found)
    np.testing.assert_allclose(a, EYE - s * whole, atol=1e-13)
    np.testing.assert_allclose(b, s * whole @ limit, atol=1e-13)
    np.testing.assert_allclose(fixed_point(found), limit, rtol=1e-10)


def test_reptile_of_length_one_is_uniform_fedavg_bit_for_bit():
    one, other = (federation(o, local_steps=3).step(4) for o in (ReptileOptions(server_lr=1.0),
                  FedAvgOptions(weighting="uniform")))  # fmt: skip
    assert torch.equal(one, other)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("weighting", ["uniform", "examples"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_fomaml_descends_gradients_where_adaptation_ended(steps, weighting, engine):
    s = 0.3
    p = np.array(WEIGHTS) / 6 if weighting == "examples" else np.full(3, 1 / 3)
    parts = [h @ np.linalg.matrix_power(EYE - ETA * h, steps - 1) for h in HESSIANS]
    whole, limit = surrogate(parts, p)
    found = federation(FomamlOptions(server_lr=s, weighting=weighting), local_steps=steps, engine=engine)
    a, b = affine(found)
    np.testing.assert_allclose(a, EYE - s * whole, atol=1e-13)
    np.testing.assert_allclose(b, s * whole @ limit, atol=1e-13)


def test_unequal_steps_send_each_clients_own_last_step():
    steps, s = (2, 5, 1), 0.3
    parts = [h @ np.linalg.matrix_power(EYE - ETA * h, t - 1) for h, t in zip(HESSIANS, steps, strict=True)]
    _, limit = surrogate(parts, np.full(3, 1 / 3))
    for engine in ("plain", "stacked"):
        found = federation(FomamlOptions(server_lr=s), local_steps=steps, engine=engine)
        np.testing.assert_allclose(fixed_point(found), limit, rtol=1e-9)
    assert np.linalg.norm(limit - fixed_point(federation(FedAvgOptions(), local_steps=steps))) > 0.01


def test_fixed_points_differ_from_the_joint_optimum():
    """FOMAML asks for stationary points after adaptation: stiff directions, which adaptation solves, count less."""
    steps = 6
    joint = fixed_point(federation(FedAvgOptions(weighting="uniform"), local_steps=1))
    reptile = fixed_point(federation(ReptileOptions(), local_steps=steps))
    fomaml = fixed_point(federation(FomamlOptions(), local_steps=steps))
    points = [joint, reptile, fomaml]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[:i]) > 0.01


def test_last_step_is_the_gradient_on_the_next_batch(population_of):
    """By hand: two steps on the first two batches of an epoch, and the gradient on the third, unseen one."""
    population = population_of([22, 9], dtype=torch.float64)
    local = LocalOptions(local_lr=0.1, batch_size=3, local_steps=3)
    module = build_model(MlpOptions(hidden=(5,), activation="tanh", initialisation="xavier"), population, 1)
    task = make_task(module, population, local, seed=4, dtype=torch.float64)
    params, buffers = task.initial()
    clients = np.arange(2)
    work = CohortWork(round_index=2, clients=clients, params=params, buffers=buffers, rule=rules.LAST_STEP)
    data = population.cohort(clients)
    steps = count_steps(local, data.sizes, clients, seed=4, round_index=2)
    rows = plan_batches(local, data.rows, data.offsets, steps, clients, seed=4, round_index=2).rows
    for k in clients:
        assert len(set(rows[k].ravel().tolist())) == 9, "no example is seen twice"
        w = params.clone()
        for batch in rows[k]:
            at = w.clone().requires_grad_()
            named = task.parameters.views(at)
            outputs = torch.func.functional_call(task.module, named, (data.features[batch],))
            (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(outputs, data.targets[batch]), at)
            w = w - 0.1 * gradient
        for engine in (PlainEngine(task), StackedEngine(task)):
            sent = engine.train(work, {})[0].params[k]
            torch.testing.assert_close((params - sent) / 0.1, gradient, rtol=1e-9, atol=1e-11)


def test_fomaml_refuses_optimizers_whose_step_is_no_gradient():
    with pytest.raises(StrategyError, match="reads the gradient of the last local step"):
        build_algorithm(FomamlOptions(), LocalOptions(optimizer="adam"))
