"""Local Newton and L-BFGS: exact solves in one step on quadratics, quadratic convergence on logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import affine, objectives, quadratics
from torch import nn

import fedscape
from clients.training.options import LocalOptions
from server.algorithms.options import FedAvgOptions, FedDynOptions, FedProxOptions, ScaffoldOptions

RNG = np.random.default_rng(8)
ROOTS = RNG.normal(size=(3, 2, 2))
HESSIANS = ROOTS @ ROOTS.transpose(0, 2, 1) + 0.2 * np.eye(2)
HESSIANS = 0.5 * (HESSIANS + HESSIANS.transpose(0, 2, 1))
CENTRES = RNG.normal(size=(3, 2))
WEIGHTS = (3, 1, 2)
P = np.array(WEIGHTS) / 6
EYE = np.eye(2)
NEWTON = {"optimizer": "newton", "line_search": "none", "local_lr": 1.0}


def newton(algorithm, **more):
    return quadratics(HESSIANS, CENTRES, algorithm=algorithm, weights=WEIGHTS, **(NEWTON | more))


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("line_search", ["none", "backtracking"])
def test_newton_solves_a_quadratic_in_one_step(engine, line_search):
    """FedAvg of exact local solves is the mean of the minimisers, wherever it begins: the limit of many local steps."""
    a, b = affine(newton(FedAvgOptions(), engine=engine, line_search=line_search))
    np.testing.assert_allclose(a, 0, atol=1e-12)
    np.testing.assert_allclose(b, P @ CENTRES, rtol=1e-12)


def test_step_of_length_lr_goes_that_part_of_the_way():
    a, _ = affine(newton(FedAvgOptions(), local_lr=0.3, local_steps=2))
    np.testing.assert_allclose(a, 0.7**2 * EYE, atol=1e-12)


def test_damping_adds_to_the_hessian():
    damping = 0.7
    a, _ = affine(newton(FedAvgOptions(), damping=damping))
    np.testing.assert_allclose(
        a, EYE - np.einsum("k,kij->ij", P, np.linalg.inv(HESSIANS + damping * EYE) @ HESSIANS), atol=1e-12
    )


def test_l2_belongs_to_the_function():
    l2 = 0.4
    found = newton(FedAvgOptions(), l2=l2).probe(torch.ones(2, dtype=torch.float64)).numpy()
    exact = [np.linalg.solve(h + l2 * EYE, h @ c) for h, c in zip(HESSIANS, CENTRES, strict=True)]
    np.testing.assert_allclose(found, P @ exact, rtol=1e-12)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_proximal_term_belongs_to_the_function(engine):
    """One step is the exact solve of FedProx, so the fixed point is that of the Moreau envelopes."""
    mu = 0.8
    a, b = affine(newton(FedProxOptions(mu=mu), engine=engine))
    solves = [np.linalg.inv(h + mu * EYE) for h in HESSIANS]
    np.testing.assert_allclose(a, mu * np.einsum("k,kij->ij", P, solves), atol=1e-12)
    parts = [s @ h @ c for s, h, c in zip(solves, HESSIANS, CENTRES, strict=True)]
    np.testing.assert_allclose(b, P @ parts, atol=1e-12)


@pytest.mark.parametrize(("algorithm", "rounds"), [(ScaffoldOptions(option=1), 40), (FedDynOptions(alpha=0.5), 400)])
def test_corrections_keep_the_optimum_under_exact_solves(algorithm, rounds):
    """SCAFFOLD and FedDyn reach the minimiser of the uniform mean, which FedAvg of exact solves does not."""
    near = HESSIANS.mean(0) + 0.1 * (HESSIANS - HESSIANS.mean(0))  # alike enough for SCAFFOLD's exact solves to settle
    hessians = near if isinstance(algorithm, ScaffoldOptions) else HESSIANS
    optimum = np.linalg.solve(hessians.mean(0), np.einsum("kij,kj->i", hessians, CENTRES) / 3)
    path = quadratics(hessians, CENTRES, algorithm=algorithm, **NEWTON).step(rounds).numpy()
    np.testing.assert_allclose(path[-1], optimum, atol=1e-8)
    assert np.linalg.norm(CENTRES.mean(0) - optimum) > 1e-3


class Logistic(nn.Module):
    """log(1 + exp(x)) - b x of one parameter: logistic regression on one feature, minimum at log(b / (1 - b))."""

    def __init__(self, start):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self, features):
        return nn.functional.softplus(self.x).expand(len(features)) - features[:, 1] * self.x


def logistic(start, *, steps=1, b=0.7, engine="stacked", **more):
    local = LocalOptions(**(NEWTON | {"local_steps": steps} | more))
    return objectives([(0.0, b)], algorithm=FedAvgOptions(), local=local, module=Logistic(start), engine=engine)


def test_newton_converges_quadratically_on_logistic_regression():
    """e+ = |f'''| / (2 f'') e^2 to leading order, and f''' / f'' = 1 - 2b at the minimum."""
    b = 0.7
    optimum = np.log(b / (1 - b))
    errors = np.abs(logistic(0.0, b=b).step(4).numpy()[:, 0] - optimum)
    assert errors[3] < 2e-15
    assert errors[2] / errors[1] ** 2 == pytest.approx((2 * b - 1) / 2, rel=1e-3)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_line_search_converges_where_newtons_step_diverges(engine):
    start, b = 5.0, 0.4
    optimum = np.log(b / (1 - b))
    free = logistic(start, b=b, steps=3, engine=engine).step(1)
    assert not abs(free.item()) < 50
    found = logistic(start, b=b, steps=12, line_search="backtracking", engine=engine).step(1)
    assert found.item() == pytest.approx(optimum, abs=1e-12)


def badly_scaled(optimizer, steps, **more):
    h = np.diag([1.0, 10.0, 100.0, 1000.0])
    return quadratics(h[None], np.ones((1, 4)), local_steps=steps, optimizer=optimizer, **more)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_lbfgs_is_much_faster_than_descent_on_a_ravine(engine):
    start = torch.zeros(4, dtype=torch.float64)
    descent = badly_scaled("gd", 40, local_lr=2 / 1001).probe(start)
    found = badly_scaled("lbfgs", 40, local_lr=1.0, engine=engine).probe(start)
    assert (found - 1).norm() < 1e-8
    assert (descent - 1).norm() > 0.5


def test_local_solves_by_newton_and_lbfgs_agree_on_softmax_regression():
    sets = ["model.kind=softmax", "partition.clients=5", "algorithm.cohort=5", "local.l2=0.05", "run.rounds=1",
            "evaluation.baselines=false", "run.dtype=float64", "local.batch_size=full", "local.local_lr=1",
            "convergence.stop=never"]  # fmt: skip
    found = [
        fedscape.simulate(fedscape.load_scenario("digits-label-skew", sets=[
            *sets, f"local.optimizer={name}", f"local.local_epochs={epochs}", "engine.kind=stacked", "engine.tile=5",
        ]), record=False).params
        for name, epochs in (("newton", 8), ("lbfgs", 80))
    ]  # fmt: skip
    assert (found[0] - found[1]).norm() < 1e-6 * found[0].norm()


def test_newton_and_descent_agree_on_a_support_vector_machine_with_squared_hinge():
    x, y = np.array([[0.2], [1.0], [-0.3], [-1.5]], np.float64), np.array([1, 1, 0, 0])
    made = fedscape.arrays(np.repeat(x, 10, 0), np.repeat(y, 10), dtype=torch.float64)
    scenario = {"partition": {"kind": "iid", "clients": 2}, "model": {"kind": "svm", "squared": True},
                "algorithm": {"kind": "fedavg"}, "run": {"rounds": 1, "dtype": "float64"},
                "evaluation": {"baselines": False}, "convergence": {"stop": "never"}}  # fmt: skip
    found = [
        fedscape.simulate(
            {
                **scenario,
                "local": {"optimizer": name, "batch_size": "full", "l2": 0.5, "local_lr": lr, "local_steps": n},
            },
            data=made,
            record=False,
        ).params
        for name, lr, n in (("newton", 1.0, 20), ("gd", 0.1, 2000))
    ]
    assert (found[0] - found[1]).norm() < 1e-9


def test_newton_refuses_a_loss_of_straight_pieces():
    sets = ["model.kind=svm", "local.optimizer=newton", "run.rounds=1", "evaluation.baselines=false"]
    with pytest.raises(fedscape.UserError, match="'hinge' consists of straight pieces"):
        fedscape.simulate(fedscape.load_scenario("digits-label-skew", sets=sets), record=False)


def test_built_in_scenario_of_exact_solves_settles_at_the_mean_of_the_minimisers():
    run = fedscape.simulate("quadratic-newton", record=False)
    assert run.verdict.outcome == "converged"
    assert run.params.item() == pytest.approx(1.0, abs=1e-12)
