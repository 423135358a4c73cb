"""FedNova and the bias it removes: fixed points of FedAvg, FedProx and FedNova when clients take unequal steps.

Wang et al. 2020 (NeurIPS). On F_i = |x - e_i|^2 / 2 the fixed point at a finite step eta is sum v_i e_i / sum v_i with
v_i = p_i (1 - (1 - eta)^tau_i) for FedAvg, 1 + mu in place of 1 in the power for FedProx, and FedAvg's v_i over tau_i
for FedNova.
"""

from __future__ import annotations

import numpy as np
import pytest
from federations import affine, fixed_point, objectives, quadratics, spectral_radius

from clients.training.optimizers import gradient_weights
from clients.training.options import LocalOptions
from server.algorithms.options import FedAvgOptions, FedNovaOptions, FedProxOptions

E, TAU = (0.0, 1.0, 5.0), (1, 10, 40)
ROWS = {
    "fedavg": lambda **o: FedAvgOptions(**o),
    "fedprox": lambda **o: FedProxOptions(mu=1.0, **o),
    "fednova": lambda **o: FedNovaOptions(**o),
}
WORKED = {
    0.05: {"fedavg": 3.5975800604927164, "fedprox": 3.2117975807864747, "fednova": 1.3319419339563117},
    0.01: {"fedavg": 4.009560295675889, "fedprox": 3.901638472972164, "fednova": 1.8299173905330062},
    0.001: {"fedavg": 4.106893287135653, "fedprox": 4.0961213555672105, "fednova": 1.98209906288635},
}


def formula(name, eta, e=E, tau=TAU, p=(1.0, 1.0, 1.0)):
    tau = np.array(tau)
    v = np.array(p) * (1 - (1 - eta * (2.0 if name == "fedprox" else 1.0)) ** tau)
    return (v / tau if name == "fednova" else v) @ e / (v / tau if name == "fednova" else v).sum()


def three(name, eta, **more):
    return quadratics((1.0, 1.0, 1.0), E, algorithm=ROWS[name](weighting="uniform"), local_lr=eta, local_steps=TAU,
                      **more)  # fmt: skip


@pytest.mark.parametrize("eta", WORKED)
@pytest.mark.parametrize("name", ROWS)
def test_fednova_matches_worked_numbers(name, eta):
    """e = (0, 1, 5), tau = (1, 10, 40), equal weights; the optimum is 2."""
    found = fixed_point(three(name, eta)).item()
    assert found == pytest.approx(WORKED[eta][name], rel=2e-12)
    assert formula(name, eta) == pytest.approx(WORKED[eta][name], rel=1e-12)


def test_small_steps_tend_to_their_limits():
    """FedAvg and FedProx tend to sum tau_i e_i / sum tau_i, 4.1176 (lemma 1); FedNova to the optimum, 2, linearly."""
    for name in ("fedavg", "fedprox"):
        bias = [4.117647058823529 - fixed_point(three(name, eta)).item() for eta in (1e-4, 1e-5)]
        assert 0 < bias[1] < 3e-4, name
        assert bias[0] / bias[1] == pytest.approx(10, rel=0.01), name
    bias = [2.0 - fixed_point(three("fednova", eta)).item() for eta in (1e-5, 1e-6)]
    assert 1e-5 < bias[1] < 1e-4  # an O(eta) bias remains at any fixed step
    assert bias[0] / bias[1] == pytest.approx(10, rel=0.01)


def test_rounds_follow_the_affine_map():
    for name in ROWS:
        federation = three(name, 0.05, start=10.0)
        rate = spectral_radius(affine(federation)[0])
        away = np.abs(federation.step(12).numpy()[:, 0] - WORKED[0.05][name])
        np.testing.assert_allclose(away[1:6] / away[:5], rate, rtol=1e-7, err_msg=name)
        assert 0.3 < rate < 0.75


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_round_with_general_curvatures_and_weights_matches_the_formula(engine):
    """w+ = w + (sum p_i tau_i) sum p_i Delta_i / tau_i, with server_lr, by examples."""
    rng = np.random.default_rng(3)
    roots = rng.normal(size=(3, 2, 2))
    hessians = roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(2)
    hessians = 0.5 * (hessians + hessians.transpose(0, 2, 1))
    centres, taus, p, eta = rng.normal(size=(3, 2)), np.array((1, 4, 9)), np.array((1, 2, 5)) / 8, 0.1
    algorithm = FedNovaOptions(weighting="examples", server_lr=0.7)
    a, b = affine(quadratics(hessians, centres, algorithm=algorithm, local_lr=eta, local_steps=taus, weights=(1, 2, 5),
                             engine=engine))  # fmt: skip
    whole = [np.eye(2) - np.linalg.matrix_power(np.eye(2) - eta * h, t) for h, t in zip(hessians, taus, strict=True)]
    scale = 0.7 * (p @ taus) * p / taus
    np.testing.assert_allclose(a, np.eye(2) - np.einsum("k,kij->ij", scale, whole), atol=1e-14)
    np.testing.assert_allclose(b, np.einsum("k,kij,kj->i", scale, whole, centres), atol=1e-14)


def test_fedavg_weighs_clients_by_their_steps():
    """Wang et al., theorem 1: FedAvg descends sum w_i F_i, w_i = p_i tau_i / sum; its bias grows with chi^2(p || w)."""
    bias, chi = [], []
    for taus in ((10, 10, 10), (8, 10, 12), (4, 10, 16), (1, 10, 40)):
        w = np.array(taus) / sum(taus)
        found = fixed_point(quadratics((1.0,) * 3, E, local_lr=1e-5, local_steps=taus)).item()
        assert found == pytest.approx(w @ E, abs=1e-3)
        bias.append((found - 2.0) ** 2)
        chi.append(((1 / 3 - w) ** 2 / w).sum())
        spread = (w * (np.array(E) - w @ E) ** 2).sum()
        assert bias[-1] <= chi[-1] * spread + 1e-6  # Cauchy and Schwarz: the bound, at kappa^2 = spread under w
    assert bias == sorted(bias)
    assert chi == sorted(chi)


# |a|_1: the total weight that a client's local optimiser gives to its gradients.


def prox(alpha, tau):
    return (1 - (1 - alpha) ** tau) / alpha


def momentum(rho, tau):
    return (tau - rho * (1 - rho**tau) / (1 - rho)) / (1 - rho)


STEPS = np.arange(1, 31)


def test_gradient_weights_match_closed_forms():
    found = gradient_weights(LocalOptions(optimizer="sgd"), 0.1, 30)
    np.testing.assert_array_equal(found, np.arange(31))
    for rho in (0.3, 0.9):
        found = gradient_weights(LocalOptions(optimizer="momentum", momentum=rho), 0.1, 30)
        np.testing.assert_allclose(found[1:], [momentum(rho, t) for t in STEPS], rtol=1e-13)
    for eta, mu in ((0.1, 0.5), (0.05, 1.0)):
        found = gradient_weights(LocalOptions(optimizer="sgd"), eta, 30, mu)
        np.testing.assert_allclose(found[1:], [prox(eta * mu, t) for t in STEPS], rtol=1e-13)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov"])
@pytest.mark.parametrize("mu", [0.0, 0.8])
def test_gradient_weights_equal_client_moves(optimizer, mu, engine):
    """On F = -x every gradient is -1, so a client moves by local_lr |a|_1, whatever its optimiser and its mu."""
    taus = (1, 2, 3, 7, 20)
    options = LocalOptions(optimizer=optimizer, momentum=0.6, batch_size="full", local_lr=0.1, local_steps=taus)
    federation = objectives([(0.0, -1.0)] * 5, algorithm=FedProxOptions(mu=mu), local=options, engine=engine)
    federation.step()
    moved = federation.update.params[:, 0].numpy() / 0.1
    np.testing.assert_allclose(moved, gradient_weights(options, 0.1, 20, mu)[list(taus)], rtol=1e-12)


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov"])
def test_fednova_with_local_momentum_is_consistent(optimizer):
    """With |a|_1 of the optimiser instead of the number of steps, the limit of small steps is the optimum, 2."""
    small = LocalOptions(optimizer=optimizer, momentum=0.8, batch_size="full", local_lr=1e-5, local_steps=TAU)
    parts = [(0.5, -e) for e in E]
    nova = objectives(parts, algorithm=FedNovaOptions(weighting="uniform"), local=small)
    assert fixed_point(nova).item() == pytest.approx(2.0, abs=0.01)
    avg = objectives(parts, algorithm=FedAvgOptions(weighting="uniform"), local=small)
    assert fixed_point(avg).item() > 4.1


# Figure 2: 30 clients, e_i ~ N(0, 0.01 I), mu = 1, eta 0.05 divided by 5 twice. Coordinates are independent.


def figure_2(name, centres, tau, eta, **more):
    return quadratics((1.0,) * 30, centres, algorithm=ROWS[name](weighting="uniform"), local_lr=eta, local_steps=tau,
                      **more)  # fmt: skip


def unequal_steps(seed):
    """Return 30 numbers of local steps in [1, 96] of mean about 30."""
    return tuple(np.minimum(1 + np.random.default_rng(seed).geometric(1 / 30, 30), 96).tolist())


def test_figure_2_ordering_holds_for_fixed_steps():
    """FedNova's limit is far closer to x* than FedAvg's. FedProx's is a little closer, and FedProx is slower."""
    centres, tau, eta = np.random.default_rng(7).normal(scale=0.1, size=(30, 2)), unequal_steps(7), 0.002
    away, rate = {}, {}
    for name in ROWS:
        a, b = affine(figure_2(name, centres, tau, eta))
        limit = np.linalg.solve(np.eye(2) - a, b)
        np.testing.assert_allclose(limit, [formula(name, eta, c, tau, np.ones(30)) for c in centres.T], rtol=1e-9)
        away[name], rate[name] = np.linalg.norm(limit - centres.mean(0)), spectral_radius(a)
    assert away["fednova"] < 0.2 * away["fedavg"]
    assert 0.9 * away["fedavg"] < away["fedprox"] < away["fedavg"]
    assert rate["fedprox"] > rate["fedavg"]


def test_figure_2_ordering_holds_for_any_draw_of_fixed_steps():
    """The same ordering on 200 draws of steps and minimisers, by the closed forms tested above."""
    draws = []
    for seed in range(200):
        centres, tau = np.random.default_rng(seed).normal(scale=0.1, size=(30, 8)), unequal_steps(seed)
        limits = [formula(name, 0.002, centres, tau, np.ones(30)) for name in ROWS]
        draws.append([np.linalg.norm(limit - centres.mean(0)) for limit in limits])
    avg, prox, nova = np.array(draws).T
    assert (nova < 0.2 * avg).all()
    assert (prox < avg).mean() > 0.9  # slightly better, nearly always
    assert (prox > 0.8 * avg).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("steps", ["equal", "fixed", "random"])
def test_figure_2_ordering_holds(steps, seed):
    """The figure itself, with rates divided after 30 and 80 rounds instead of 600 and 900 (several minutes).

    Random: a client takes 1 to 59 steps, drawn each round. `python -m pytest -m slow tests/theory/test_fednova.py`.
    """
    centres = np.random.default_rng(seed).normal(scale=0.1, size=(30, 8))
    tau = {"equal": 30, "fixed": unequal_steps(seed), "random": 60}[steps]
    more = {"partial_work": 1.0} if steps == "random" else {}
    ends, after_one = {}, {}
    for name in ROWS:
        place, paths = [1.0] * 8, []
        for eta, rounds in ((0.05, 30), (0.01, 50), (0.002, 120)):
            path = figure_2(name, centres, tau, eta, start=tuple(place), seed=seed, **more).step(rounds)
            paths += ((path.numpy() - centres.mean(0)) ** 2).sum(1).tolist()
            place = path[-1].tolist()
        ends[name], after_one[name] = np.mean(paths[-20:]), paths[0]
    assert after_one["fedprox"] > after_one["fedavg"]  # slower
    if steps == "equal":
        assert max(ends.values()) < 1e-12
    else:
        assert ends["fednova"] < 0.05 * ends["fedavg"]
        assert ends["fedprox"] < ends["fedavg"]
