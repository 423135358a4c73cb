"""FedAvg on quadratics F_k = (w - w_k*)' H_k (w - w_k*) / 2 has the known fixed point and rate.

A round is w+ = w - s sum_k p_k Q_k H_k (w - w_k*) with Q_k = eta sum_{j < tau_k} (I - eta H_k)^j (Charles and Konecny
2021), so the test measures the affine map of a simulated round and compares the two.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import affine, fixed_point, quadratics, spectral_radius

import fedscape
from server.algorithms.options import FedAvgOptions

RNG = np.random.default_rng(20)
DIMENSION, CLIENTS = 3, 4
ROOTS = RNG.normal(size=(CLIENTS, DIMENSION, DIMENSION))
HESSIANS = ROOTS @ ROOTS.transpose(0, 2, 1) / DIMENSION + 0.3 * np.eye(DIMENSION)
HESSIANS = 0.5 * (HESSIANS + HESSIANS.transpose(0, 2, 1))
CENTRES = RNG.normal(size=(CLIENTS, DIMENSION))
WEIGHTS = (5, 1, 2, 4)
P = np.array(WEIGHTS) / sum(WEIGHTS)
L = max(np.linalg.eigvalsh(h)[-1] for h in HESSIANS)


def surrogate(hessians, centres, p, eta, taus):
    """Return sum p_k Q_k H_k, and sum p_k Q_k H_k w_k*."""
    eye = np.eye(hessians.shape[1])
    qh = [eta * sum(np.linalg.matrix_power(eye - eta * h, j) for j in range(t)) @ h
          for h, t in zip(hessians, taus, strict=True)]  # fmt: skip
    return np.einsum("k,kij->ij", p, qh), np.einsum("k,kij,kj->i", p, qh, centres)


def optimum(hessians, centres, p):
    return np.linalg.solve(np.einsum("k,kij->ij", p, hessians), np.einsum("k,kij,kj->i", p, hessians, centres))


def fedavg(hessians=HESSIANS, centres=CENTRES, *, server_lr=1.0, weights=WEIGHTS, **more):
    algorithm = FedAvgOptions(weighting="examples", server_lr=server_lr)
    return quadratics(hessians, centres, algorithm=algorithm, weights=weights, **more)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize(
    ("eta", "taus", "s"), [(0.1, (1, 3, 9, 20), 1.0), (0.3, (4, 4, 4, 4), 0.6), (0.05, (30, 2, 7, 1), 1.7)]
)
def test_round_descends_the_surrogate(eta, taus, s, engine):
    """The whole affine map, hence fixed point and rate, for general H_k, unequal steps and weights, any server_lr."""
    assert eta < 2 / L
    a, b = affine(fedavg(local_lr=eta, local_steps=taus, server_lr=s, engine=engine))
    hessian, pull = surrogate(HESSIANS, CENTRES, P, eta, taus)
    np.testing.assert_allclose(a, np.eye(DIMENSION) - s * hessian, atol=1e-14)
    np.testing.assert_allclose(b, s * pull, atol=1e-14)
    np.testing.assert_allclose(np.linalg.solve(np.eye(DIMENSION) - a, b), np.linalg.solve(hessian, pull), rtol=1e-12)
    assert spectral_radius(a) == pytest.approx(spectral_radius(np.eye(DIMENSION) - s * hessian), rel=1e-13)


def test_rounds_reach_the_fixed_point_at_its_rate():
    eta, taus = 0.2, (2, 5, 1, 4)
    federation = fedavg(local_lr=eta, local_steps=taus, start=(4.0, -2.0, 1.0))
    hessian, pull = surrogate(HESSIANS, CENTRES, P, eta, taus)
    limit, rate = np.linalg.solve(hessian, pull), spectral_radius(np.eye(DIMENSION) - hessian)
    away = np.linalg.norm(federation.step(60).numpy() - limit, axis=1)
    assert away[-1] < 1e-6 * away[0]
    assert (away[45] / away[25]) ** (1 / 20) == pytest.approx(rate, rel=1e-3)
    assert np.linalg.norm(limit - optimum(HESSIANS, CENTRES, P)) > 0.01  # much further from the optimum


def test_equal_curvatures_and_steps_give_the_optimum():
    same = np.broadcast_to(HESSIANS[0], HESSIANS.shape)
    found = fixed_point(fedavg(same, local_lr=0.1, local_steps=12))
    np.testing.assert_allclose(found, P @ CENTRES, rtol=1e-12)
    unequal = fixed_point(fedavg(same, local_lr=0.1, local_steps=(12, 12, 12, 2)))
    assert np.linalg.norm(unequal - P @ CENTRES) > 0.05  # equal steps are needed


def test_one_local_step_gives_the_optimum():
    w_star = optimum(HESSIANS, CENTRES, P)
    np.testing.assert_allclose(fixed_point(fedavg(local_lr=0.3)), w_star, rtol=1e-12)
    found = fedavg(local_lr=0.3).session.population.objective.optimum.numpy()
    np.testing.assert_allclose(found, w_star, rtol=1e-12)


def test_many_local_steps_give_the_mean_of_the_minimisers():
    eta, tau = 0.9 * 2 / L, 300
    left = max(np.abs(1 - eta * np.linalg.eigvalsh(h)).max() ** tau for h in HESSIANS)
    assert left < 1e-8  # the remainder of the start: one round reaches the limit
    found = fedavg(local_lr=eta, local_steps=tau).probe(torch.ones(DIMENSION, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), P @ CENTRES, atol=10 * left)


def test_bias_is_of_order_eta_times_tau_minus_one():
    """To first order w~ - w* = eta (tau - 1) / 2 (sum p H)^-1 sum p H_k^2 (w* - w_k*): its direction, sign and size."""
    w_star = optimum(HESSIANS, CENTRES, P)
    squares = np.einsum("k,kij,kjl,kl->i", P, HESSIANS, HESSIANS, w_star - CENTRES)
    direction = 0.5 * np.linalg.solve(np.einsum("k,kij->ij", P, HESSIANS), squares)
    errors = []
    for eta, tau in ((0.002, 2), (0.001, 2), (0.0005, 5)):
        bias = fixed_point(fedavg(local_lr=eta, local_steps=tau)) - w_star
        errors.append(np.linalg.norm(bias / (eta * (tau - 1)) - direction) / np.linalg.norm(direction))
        assert errors[-1] < 3 * L * eta * tau, (eta, tau)
    assert errors[1] < 0.6 * errors[0]


def test_fixed_point_is_that_of_the_averaged_operator():
    """Malinovsky et al. 2020: the fixed point of the mean of the local maps, each measured with one client."""
    eta, taus = 0.2, (2, 5, 1, 4)
    maps = [affine(fedavg(HESSIANS[k : k + 1], CENTRES[k : k + 1], weights=(1,), local_lr=eta, local_steps=taus[k]))
            for k in range(CLIENTS)]  # fmt: skip
    a, b = (sum(p * m[i] for p, m in zip(P, maps, strict=True)) for i in (0, 1))
    together = fixed_point(fedavg(local_lr=eta, local_steps=taus))
    np.testing.assert_allclose(together, np.linalg.solve(np.eye(DIMENSION) - a, b), rtol=1e-12)


@pytest.mark.parametrize(("scenario", "limit"), [("quadratic-two-clients", 1.7595), ("quadratic-scaffold", 2.2)])
def test_built_in_two_client_scenarios_reach_their_fixed_points(scenario, limit):
    """Section 2: a = (1, 4), b = (-1, 3), K = 10, eta = 0.05; FedAvg's 1.7595, and 2.2 under SCAFFOLD from zero."""
    run = fedscape.simulate(scenario, record=False)
    v = 1 - (1 - 0.05 * np.array([1.0, 4.0])) ** 10
    exact = (v @ [-1.0, 3.0]) / v.sum() if limit < 2 else 2.2
    assert exact == pytest.approx(limit, abs=5e-5)
    assert run.verdict.outcome == "converged"
    assert run.params.item() == pytest.approx(exact, abs=1e-5)
    assert run.params.dtype == torch.float64
