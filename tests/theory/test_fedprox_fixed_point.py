"""FedProx on quadratics: its fixed point is the minimiser of the clients' Moreau envelopes, not of their mean.

With exact local solves w_k = (H_k + mu I)^-1 (H_k w_k* + mu w), and the fixed point solves
sum p_k [I - mu (H_k + mu I)^-1] (w - w_k*) = 0.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import affine, fixed_point, quadratics

from server.algorithms.options import FedProxOptions

RNG = np.random.default_rng(5)
ROOTS = RNG.normal(size=(3, 2, 2))
HESSIANS = ROOTS @ ROOTS.transpose(0, 2, 1) + 0.2 * np.eye(2)
HESSIANS = 0.5 * (HESSIANS + HESSIANS.transpose(0, 2, 1))
CENTRES = RNG.normal(size=(3, 2))
WEIGHTS = (3, 1, 2)
P = np.array(WEIGHTS) / 6
L = max(np.linalg.eigvalsh(h)[-1] for h in HESSIANS)
EYE = np.eye(2)
OPTIMUM = np.linalg.solve(np.einsum("k,kij->ij", P, HESSIANS), np.einsum("k,kij,kj->i", P, HESSIANS, CENTRES))


def fedprox(mu, **more):
    return quadratics(HESSIANS, CENTRES, algorithm=FedProxOptions(mu=mu), weights=WEIGHTS, **more)


def moreau_minimiser(mu):
    parts = [EYE - mu * np.linalg.inv(h + mu * EYE) for h in HESSIANS]
    return np.linalg.solve(np.einsum("k,kij->ij", P, parts), np.einsum("k,kij,kj->i", P, parts, CENTRES))


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_round_of_few_steps_matches_the_formula(engine):
    """Any number of steps: client k ends at c_k + (I - eta (H_k + mu I))^tau (w - c_k), c_k its exact solve."""
    eta, mu, taus = 0.1, 0.7, (1, 4, 9)
    a, b = affine(fedprox(mu, local_lr=eta, local_steps=taus, engine=engine))
    expected, pull = np.zeros((2, 2)), np.zeros(2)
    for p, h, centre, tau in zip(P, HESSIANS, CENTRES, taus, strict=True):
        solve = np.linalg.inv(h + mu * EYE)
        power = np.linalg.matrix_power(EYE - eta * (h + mu * EYE), tau)
        expected += p * (mu * (EYE - power) @ solve + power)
        pull += p * (EYE - power) @ solve @ h @ centre
    np.testing.assert_allclose(a, expected, atol=1e-14)
    np.testing.assert_allclose(b, pull, atol=1e-14)


@pytest.mark.parametrize("mu", [0.5, 4.0])
def test_exact_local_solves_reach_the_fixed_point(mu):
    eta, tau = 1.0 / (L + mu), 150
    worst = (1 - (np.linalg.eigvalsh(HESSIANS).min() + mu) / (L + mu)) ** tau
    assert worst < 1e-8
    found = fixed_point(fedprox(mu, local_lr=eta, local_steps=tau))
    np.testing.assert_allclose(found, moreau_minimiser(mu), atol=1e-7)
    assert np.linalg.norm(found - OPTIMUM) > 100 * 1e-7  # not the optimum of the mean


def test_fixed_point_minimises_moreau_envelopes_and_nears_the_optimum_as_mu_grows():
    """The same point by minimising sum p_k min_u F_k(u) + mu/2 |u - w|^2 itself; its bias falls with mu."""
    mu = 0.8
    solves = [torch.from_numpy(np.linalg.inv(h + mu * EYE)) for h in HESSIANS]
    w = torch.from_numpy(moreau_minimiser(mu)).requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for p, h, centre, solve in zip(P, torch.from_numpy(HESSIANS), torch.from_numpy(CENTRES), solves, strict=True):
        u = solve @ (h @ centre + mu * w)
        total = total + p * (0.5 * (u - centre) @ h @ (u - centre) + 0.5 * mu * (u - w).square().sum())
    total.backward()
    assert w.grad.abs().max() < 1e-14
    bias = [np.linalg.norm(moreau_minimiser(m) - OPTIMUM) for m in (0.5, 4.0, 32.0)]
    assert bias == sorted(bias, reverse=True)
