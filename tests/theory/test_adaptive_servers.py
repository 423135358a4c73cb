"""FedAdam, FedYogi and FedAdagrad in closed form, where every pseudo-gradient is one number g.

On F = b x a client of K steps returns g = local_lr K b in every round. Algorithm 2 of Reddi et al. 2021, from
v = tau^2, has m_t = (1 - beta1^t) g and
  Adagrad: v_t = tau^2 + t g^2
  Adam:    v_t = beta2^t tau^2 + (1 - beta2^t) g^2
  Yogi:    v_t = tau^2 + t (1 - beta2) g^2 while v < g^2, and tau^2 - t (1 - beta2) g^2 while v > g^2,
and the server moves by -server_lr m_t / (sqrt(v_t) + tau).
"""

from __future__ import annotations

import numpy as np
import pytest
from federations import objectives, quadratics

from clients.core.arrays import F64
from clients.training.options import LocalOptions
from server.algorithms.options import AlgorithmOptions, FedAdagradOptions, FedAdamOptions, FedYogiOptions

SERVER_LR, BETA1, BETA2, LOCAL_LR, STEPS, ROUNDS = 0.3, 0.8, 0.9, 0.1, 4, 8
T = np.arange(1, ROUNDS + 1)
ROWS = {
    "adam": lambda tau: FedAdamOptions(server_lr=SERVER_LR, beta1=BETA1, beta2=BETA2, tau=tau),
    "yogi": lambda tau: FedYogiOptions(server_lr=SERVER_LR, beta1=BETA1, beta2=BETA2, tau=tau),
    "adagrad": lambda tau: FedAdagradOptions(server_lr=SERVER_LR, beta1=BETA1, tau=tau),
}


def second_moments(name: str, tau: float, g: float) -> F64:
    if name == "adagrad":
        return tau**2 + T * g**2
    if name == "adam":
        return BETA2**T * tau**2 + (1 - BETA2**T) * g**2
    turn = np.sign(g**2 - tau**2)
    v: F64 = tau**2 + turn * T * (1 - BETA2) * g**2
    assert (np.sign(g**2 - v[:-1]) == turn).all()  # v stays on its side of g^2
    return v


@pytest.mark.parametrize("slope", [2.0, -3.0])
@pytest.mark.parametrize("tau", [0.05, 2.0], ids=["v rises", "v falls"])
@pytest.mark.parametrize("name", ROWS)
def test_path_on_a_linear_objective_is_its_closed_form(name: str, tau: float, slope: float) -> None:
    g = LOCAL_LR * STEPS * slope
    local = LocalOptions(optimizer="gd", local_lr=LOCAL_LR, local_steps=STEPS)
    federation = objectives([(0.0, slope)] * 2, algorithm=ROWS[name](tau), local=local, start=1.0)
    m, v = (1 - BETA1**T) * g, second_moments(name, tau, g)
    expected = 1.0 - np.cumsum(SERVER_LR * m / (np.sqrt(v) + tau))
    np.testing.assert_allclose(federation.step(ROUNDS)[:, 0].numpy(), expected, rtol=1e-12)
    assert (np.sign(1.0 - expected) == np.sign(slope)).all()  # downhill in every round
    kept = federation.strategy.state_dict()
    assert kept["first_moment"].item() == pytest.approx(m[-1], rel=1e-12)
    assert kept["second_moment"].item() == pytest.approx(v[-1], rel=1e-12)


@pytest.mark.parametrize("algorithm", [
    FedAdamOptions(server_lr=0.05, beta1=0.5, tau=0.1), FedYogiOptions(server_lr=0.05, beta1=0.5, tau=0.1),
    FedAdagradOptions(server_lr=1.0, tau=0.1),
], ids=["adam", "yogi", "adagrad"])  # fmt: skip
@pytest.mark.parametrize("start", [4.0, -1.0])
def test_limit_on_quadratics_is_fedavgs(algorithm: AlgorithmOptions, start: float) -> None:
    """The step is 0 where the pseudo-gradient is, at FedAvg's fixed point 1.7595 of a = (1, 4), b = (-1, 3), K = 10."""
    weights = 1 - (1 - 0.05 * np.array([1.0, 4.0])) ** 10
    fixed = weights @ [-1.0, 3.0] / weights.sum()
    assert fixed == pytest.approx(1.7595, abs=5e-5)
    made = quadratics((1.0, 4.0), (-1.0, 3.0), algorithm=algorithm, local_lr=0.05, local_steps=10, start=start)
    path = made.step(300)[:, 0].numpy()
    assert abs(path[0] - fixed) < abs(start - fixed)
    assert path[-1] == pytest.approx(fixed, abs=1e-6)
