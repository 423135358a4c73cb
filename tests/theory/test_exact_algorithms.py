"""SCAFFOLD and FedDyn at full participation have the optimum as fixed point for any local work; FedAvg does not.

Also the functions of Karimireddy et al. 2020 (ICML), theorem II: f1 = m x^2 + G x, f2 = -G x, whose mean m x^2 / 2 has
its minimum at 0. With eta the local step and c = (1 - 2 m eta)^K, FedAvg stands still at
G (K eta - (1 - c) / 2m) / (1 - c) and contracts by (1 + c) / 2.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from federations import Federation, affine, fixed_point, objectives, quadratics, spectral_radius

from clients.training.options import LocalOptions
from server.algorithms.options import FedAvgOptions, FedDynOptions, FedProxOptions, ScaffoldOptions

RNG = np.random.default_rng(11)
ROOTS = RNG.normal(size=(4, 2, 2))
HESSIANS = ROOTS @ ROOTS.transpose(0, 2, 1) / 2 + 0.4 * np.eye(2)
HESSIANS = 0.5 * (HESSIANS + HESSIANS.transpose(0, 2, 1))
CENTRES = RNG.normal(size=(4, 2))
L = max(np.linalg.eigvalsh(h)[-1] for h in HESSIANS)
UNIFORM = np.linalg.solve(HESSIANS.mean(0), np.einsum("kij,kj->i", HESSIANS, CENTRES) / 4)


@pytest.mark.parametrize(
    "algorithm",
    [ScaffoldOptions(), ScaffoldOptions(option=1), FedDynOptions(alpha=2.0), ScaffoldOptions(server_lr=0.5)],
    ids=["scaffold II", "scaffold I", "feddyn", "scaffold, server_lr"],
)
@pytest.mark.parametrize("taus", [(5, 5, 5, 5), (1, 3, 8, 12)], ids=["equal", "unequal"])
def test_limit_is_the_optimum(algorithm, taus):
    """General curvatures, unequal steps and sizes; weights are equal, so it is the optimum of the uniform mean."""
    federation = quadratics(HESSIANS, CENTRES, algorithm=algorithm, local_lr=0.5 / L, local_steps=taus,
                            weights=(1, 5, 2, 3), start=(3.0, -3.0))  # fmt: skip
    path = federation.step(60).numpy()
    away = np.linalg.norm(path - UNIFORM, axis=1)
    assert away[-1] < 1e-6
    assert away[-1] < 1e-6 * away[0]
    assert (
        np.linalg.norm(federation.session.population.objective.optimum.numpy() - UNIFORM) > 0.05
    )  # the optimum by examples


@pytest.mark.parametrize("partial_work", ["keep", "drop"])
@pytest.mark.parametrize(
    ("algorithm", "rounds"), [(ScaffoldOptions(cohort=2), 150), (ScaffoldOptions(option=1, cohort=2), 150),
                              (FedDynOptions(alpha=2.0, cohort=2), 400)]
)  # fmt: skip
def test_partial_participation_and_partial_work_reach_the_optimum(algorithm, rounds, partial_work):
    """Stragglers are averaged or dropped; the noise of both vanishes at the optimum."""
    federation = quadratics(HESSIANS, CENTRES, algorithm=replace(algorithm, partial_work=partial_work),
                            local_lr=0.2 / L, local_steps=4, partial_work=0.4, start=(3.0, -3.0))  # fmt: skip
    away = np.linalg.norm(federation.step(rounds).numpy() - UNIFORM, axis=1)
    assert away[-1] < 1e-4
    assert away[-1] < 0.05 * away[rounds // 3]


@pytest.mark.parametrize("algorithm", [FedAvgOptions(weighting="uniform"), FedProxOptions(mu=0.5, weighting="uniform")])
def test_fedavg_and_fedprox_miss_the_optimum(algorithm):
    found = fixed_point(quadratics(HESSIANS, CENTRES, algorithm=algorithm, local_lr=0.2 / L, local_steps=10))
    assert np.linalg.norm(found - UNIFORM) > 0.02


def test_optimum_is_a_fixed_point():
    """From the optimum with its control variates, they stay there to rounding."""
    gradients = torch.from_numpy(np.einsum("kij,kj->ki", HESSIANS, UNIFORM - CENTRES))
    for algorithm, own in ((ScaffoldOptions(), "client_variate"), (FedDynOptions(alpha=0.5), "client_gradient")):
        federation = quadratics(HESSIANS, CENTRES, algorithm=algorithm, local_lr=0.2 / L, local_steps=(1, 3, 8, 12),
                                start=UNIFORM)  # fmt: skip
        remember(federation, own, gradients)
        path = federation.step(3).numpy()
        np.testing.assert_allclose(path, np.broadcast_to(UNIFORM, path.shape), atol=1e-15, err_msg=algorithm.kind)


@pytest.mark.parametrize(("alpha", "stable"), [(0.5, True), (0.9, True), (1.5, False), (4.0, False)])
def test_feddyn_needs_stable_local_steps(alpha, stable):
    """a = (1, 4), K = 10, eta = 0.4: stable while eta (L + alpha) < 2, that is alpha < 1; it diverges at alpha = 4."""
    assert (0.4 * (4 + alpha) < 2) == stable
    federation = quadratics((1.0, 4.0), (-1.0, 3.0), algorithm=FedDynOptions(alpha=alpha), local_lr=0.4, local_steps=10)
    away = (federation.step(60)[:, 0] - 2.2).abs()
    if stable:
        assert away[-1] < 1e-5
    else:
        assert not away[-1] < 1e6  # nan is not below either


def remember(federation: Federation, own: str, rows: torch.Tensor) -> None:
    """Set the client states of a federation to `rows` [N, P], and the server variate of SCAFFOLD to their mean."""
    federation.session.states.put(own, np.arange(len(rows)), rows.clone())
    federation.session.states.commit()
    if own == "client_variate":
        federation.state = replace(federation.state, vectors={"server_variate": rows.mean(0)})


# Theorem II.

M, ETA = 1.0, 0.1


def theorem_2(gap, steps, algorithm, start=0.0, engine="stacked"):
    local = LocalOptions(optimizer="gd", local_lr=ETA, local_steps=steps)
    return objectives([(M, gap), (0.0, -gap)], algorithm=algorithm, local=local, start=start, engine=engine)


def scaffold_from_gradients(gap, steps, rounds, start=1.0, engine="stacked"):
    """SCAFFOLD, option II, with c_i = grad f_i(x0) at the start; return x_1, x_2, ..."""
    federation = theorem_2(gap, steps, ScaffoldOptions(), start, engine)
    gradients = [[2 * M * start + gap], [-gap]]
    remember(federation, "client_variate", torch.tensor(gradients, dtype=torch.float64))
    return federation.step(rounds)[:, 0].numpy()


@pytest.mark.parametrize("gap", [1.0, 10.0, 100.0])
@pytest.mark.parametrize(("steps", "limit"), [(1, 0.0), (2, 0.0555555555555556), (10, 0.6202902496016715)])
def test_fedavg_fixed_point_is_not_the_optimum(steps, limit, gap):
    c = (1 - 2 * M * ETA) ** steps
    assert (steps * ETA - (1 - c) / (2 * M)) / (1 - c) == pytest.approx(limit, abs=1e-14)
    federation = theorem_2(gap, steps, FedAvgOptions(weighting="uniform"))
    a, _ = affine(federation)
    assert a.item() == pytest.approx((1 + c) / 2, rel=1e-13)
    assert fixed_point(federation).item() == pytest.approx(gap * limit, rel=1e-12, abs=1e-12 * gap)


SCAFFOLD = {1: {1: 0.9, 2: 0.81, 5: 0.9**5}, 2: {1: 0.81, 2: 0.6547, 5: 0.34553356, 20: 0.01414809},
            10: {1: 0.27684355, 2: -0.0469165}}  # fmt: skip


@pytest.mark.parametrize("steps", SCAFFOLD)
def test_scaffold_does_not_depend_on_the_gap(steps):
    """With controls started at the gradients x_r is the same for every G; K = 1 is SGD, 0.9^r."""
    rounds = max(SCAFFOLD[steps])
    small, middle, large = (scaffold_from_gradients(gap, steps, rounds) for gap in (1.0, 10.0, 100.0))
    for r, value in SCAFFOLD[steps].items():
        assert small[r - 1] == pytest.approx(value, abs=5e-9), r
    np.testing.assert_allclose(middle, small, atol=1e-13)
    np.testing.assert_allclose(large, small, atol=1e-12)
    np.testing.assert_allclose(scaffold_from_gradients(10.0, steps, 2, engine="plain"), middle[:2], atol=1e-13)


def scaffold_matrix(steps):
    """Measure SCAFFOLD's linear map of (x, c_1, c_2) at G = 0, with the server's c their mean, by playing a round."""
    columns = []
    for x, variates in ((1.0, (0.0, 0.0)), (0.0, (1.0, 0.0)), (0.0, (0.0, 1.0))):
        federation = theorem_2(0.0, steps, ScaffoldOptions(), x)
        remember(federation, "client_variate", torch.tensor(variates, dtype=torch.float64)[:, None])
        after = federation.step()[0, 0].item()
        c1, c2 = federation.session.states.rows("client_variate", np.arange(2))[:, 0].tolist()
        assert federation.strategy.state_dict()["server_variate"].item() == pytest.approx((c1 + c2) / 2, abs=1e-14)
        columns.append((after, c1, c2))
    return np.array(columns).T


@pytest.mark.parametrize(("steps", "radius", "speedup"), [(1, 0.9, 1.0), (2, 0.808129, 2.02), (10, 0.526159, 6.1)])
def test_scaffold_converges_at_its_rate(steps, radius, speedup):
    """K = 2 is about twice as fast as SGD and K = 10 six times (the paper's figure: 2 and about 5)."""
    found = spectral_radius(scaffold_matrix(steps))
    assert found == pytest.approx(radius, abs=5e-7)
    assert math.log(found) / math.log(0.9) == pytest.approx(speedup, abs=0.01)


@pytest.mark.parametrize(("gap", "first"), [(1.0, 0.83053), (10.0, 3.32212), (100.0, 28.23804)])
def test_scaffold_converges_from_zero_controls(gap, first):
    """Then the first round is FedAvg's and depends on G; the limit, 0, and the rate do not."""
    path = theorem_2(gap, 10, ScaffoldOptions(), 1.0).step(60)[:, 0].numpy()
    fedavg = theorem_2(gap, 10, FedAvgOptions(weighting="uniform"), 1.0).step(1)[0, 0].item()
    assert path[0] == pytest.approx(first, abs=5e-6)
    assert path[0] == pytest.approx(fedavg, rel=1e-14)
    assert abs(path[-1]) < 1e-12 * gap
    # The leading eigenvalues are a complex pair: compare the size of the path over whole turns.
    sizes = np.abs(path).reshape(-1, 10).max(1)
    assert (sizes[4] / sizes[1]) ** (1 / 30) == pytest.approx(0.526159, rel=0.05)


def test_only_fedavg_worsens_with_steps_and_gap():
    """The simulated figure: after as many rounds FedAvg is the further off the larger K and G; SCAFFOLD nearer by K."""
    rounds, best = 30, {}
    for steps in (2, 10):
        for gap in (1.0, 10.0, 100.0):
            x = theorem_2(gap, steps, FedAvgOptions(weighting="uniform"), 1.0).step(rounds)[-1].abs().item()
            best[steps, gap] = x
    assert best[2, 1.0] < best[2, 10.0] < best[2, 100.0]
    assert all(best[2, g] < best[10, g] for g in (1.0, 10.0, 100.0))
    sgd, two, ten = (abs(scaffold_from_gradients(10.0, k, 15)[-1]) for k in (1, 2, 10))
    assert ten < two < sgd


def test_option_1_with_one_step_and_one_client_is_saga():
    """sigma = 0, K = 1, |S| = 1, option I: x+ = x - eta (g_i(x) - a_i + mean a), then a_i = g_i(x) (section 4)."""
    parts = [(0.5, 1.0), (1.0, -2.0), (2.0, 0.5)]
    local = LocalOptions(optimizer="gd", local_lr=ETA, local_steps=1)
    federation = objectives(parts, algorithm=ScaffoldOptions(option=1, cohort=1), local=local, start=1.0)
    x, table = 1.0, np.zeros(3)
    visited = set()
    for round_index in range(1, 31):
        (i,) = federation.strategy.federation.sampler.draw(round_index).clients
        a, b = parts[i]
        gradient = 2 * a * x + b
        x -= ETA * (gradient - table[i] + table.mean())
        table[i] = gradient
        assert federation.step()[0].item() == pytest.approx(x, rel=1e-12)
        visited.add(int(i))
    assert visited == {0, 1, 2}
