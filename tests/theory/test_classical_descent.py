"""A client, or the server, reproduces classical facts of gradient descent, heavy ball and Nesterov."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import affine, objectives, quadratics, spectral_radius
from torch import nn

from clients.training.options import LocalOptions
from server.algorithms.options import FedAvgMOptions, FedAvgOptions

LOW, HIGH = 0.2, 5.0
KAPPA = HIGH / LOW
SPECTRUM = np.array([[LOW, 1.1, HIGH]])
ORIGIN = np.zeros((1, 3))


def descent(eta, steps=1, **more):
    return quadratics(SPECTRUM, ORIGIN, local_lr=eta, local_steps=steps, start=(1.0, 1.0, 1.0), **more)


@pytest.mark.parametrize("scale", [0.5, 0.99, 1.01, 1.5])
def test_gradient_descent_converges_iff_eta_is_below_two_over_l(scale):
    eta = scale * 2 / HIGH
    sizes = descent(eta).step(40).norm(dim=1)
    assert (spectral_radius(affine(descent(eta))[0]) < 1) == (scale < 1)
    assert (sizes[-1] < sizes[20] < sizes[5]) == (scale < 1)
    assert (sizes[-1] > sizes[20] > 1) == (scale > 1)


def test_step_two_over_l_gives_a_2_cycle():
    path = descent(2 / HIGH).step(60)[:, 2].numpy()
    np.testing.assert_allclose(path, (-1.0) ** np.arange(1, 61), rtol=1e-12)


@pytest.mark.parametrize(
    ("eta", "factor"), [(2 / (HIGH + LOW), (KAPPA - 1) / (KAPPA + 1)), (1 / HIGH, 1 - 1 / KAPPA)], ids=["best", "1/L"]
)
def test_gradient_descent_contracts_by_its_factor(eta, factor):
    """A round of K local steps contracts by the K-th power of the factor; K = 1 is gradient descent."""
    assert spectral_radius(affine(descent(eta))[0]) == pytest.approx(factor, rel=1e-13)
    assert spectral_radius(affine(descent(eta, steps=7))[0]) == pytest.approx(factor**7, rel=1e-12)


def double_root(root, first, t):
    """Return (1 + b t) root^t, the solution through 1 and `first` of a recursion whose root is double."""
    return (1 + (first / root - 1) * t) * root**t


ROOT = np.sqrt(KAPPA)
BALL = {"local_lr": 4 / (np.sqrt(HIGH) + np.sqrt(LOW)) ** 2}
BETA = ((ROOT - 1) / (ROOT + 1)) ** 2


def test_server_heavy_ball_converges_at_its_rate():
    """FedAvgM with one local step is heavy ball; at the best parameters both ends of the spectrum are double roots."""
    algorithm = FedAvgMOptions(weighting="uniform", server_momentum=BETA)
    path = quadratics(SPECTRUM, ORIGIN, algorithm=algorithm, start=(1.0, 1.0, 1.0), **BALL).step(60).numpy()
    check_heavy_ball(path)


def test_client_heavy_ball_converges_at_its_rate():
    """The optimiser's state is reset each round, so t steps are one round of t local steps."""
    path = np.full((60, 3), np.nan)
    for t in (1, 2, 3, 30, 60):
        federation = descent(BALL["local_lr"], steps=t, optimizer="momentum", momentum=BETA, batch_size="full")
        path[t - 1] = federation.step()[0].numpy()
    check_heavy_ball(path)


def check_heavy_ball(path):
    """The factor is (sqrt k - 1) / (sqrt k + 1); `path` holds steps 1, 2, ... from (1, 1, 1), some of them nan."""
    factor = (ROOT - 1) / (ROOT + 1)
    t = np.arange(1, 61)
    seen = np.isfinite(path[:, 0])
    for i, sign in ((0, 1.0), (2, -1.0)):
        exact = double_root(sign * factor, 1 - BALL["local_lr"] * SPECTRUM[0, i], t)
        np.testing.assert_allclose(path[seen, i], exact[seen], rtol=1e-8, atol=1e-15)  # 1 - (1 - x) is x to 1e-16
    assert np.abs(path[59, 1]) < 10 * factor**60  # within the spectrum: not slower
    assert abs(path[59, 0] / path[29, 0]) ** (1 / 30) == pytest.approx(factor, rel=0.03)
    assert factor < (KAPPA - 1) / (KAPPA + 1)


@pytest.mark.parametrize("engine", ["plain", "stacked"])
def test_client_nesterov_converges_at_its_rate(engine):
    """eta = 1/L, beta = (sqrt k - 1) / (sqrt k + 1): the slowest coordinate is a double root, 1 - 1/sqrt k."""
    beta, eta = (ROOT - 1) / (ROOT + 1), 1 / HIGH
    # torch's iterate is the point where the gradient is taken: its first step is 1 - eta (1 + beta) h.
    for t in (1, 2, 3, 40, 80):
        federation = descent(eta, t, optimizer="nesterov", momentum=beta, batch_size="full", engine=engine)
        after = federation.step()[0].numpy()
        assert after[0] == pytest.approx(double_root(1 - 1 / ROOT, 1 - eta * (1 + beta) * LOW, t), rel=1e-9)
        assert abs(after[2]) < 1e-15 or t == 1  # at h = L the gradient step lands on the minimum
    assert 1 - 1 / ROOT < 1 - 1 / KAPPA


def test_server_nesterov_converges_at_its_rate():
    """FedAvgM with `nesterov` and one local step takes the client's steps, one a round."""
    beta, eta = (ROOT - 1) / (ROOT + 1), 1 / HIGH
    algorithm = FedAvgMOptions(weighting="uniform", server_momentum=beta, nesterov=True)
    path = quadratics(SPECTRUM, ORIGIN, algorithm=algorithm, local_lr=eta, start=(1.0, 1.0, 1.0)).step(60).numpy()
    exact = double_root(1 - 1 / ROOT, 1 - eta * (1 + beta) * LOW, np.arange(1, 61))
    np.testing.assert_allclose(path[:, 0], exact, rtol=1e-9)
    assert np.abs(path[1:, 2]).max() < 1e-15


class Lessard(nn.Module):
    """A convex function of curvature 1 to 25 on which heavy ball cycles (Lessard et al. 2016, section 4.6)."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor([3.3], dtype=torch.float64))

    def forward(self, features):
        x = self.x
        low, middle = 12.5 * x**2, 0.5 * x**2 + 24 * x - 12
        high = 12.5 * x**2 - 24 * x + 36
        return torch.where(x < 1, low, torch.where(x < 2, middle, high)) * features[:, 0]


def test_heavy_ball_cycles_off_quadratics():
    """f' = 25x, x + 24, 25x - 24; eta = 1/9, beta = 4/9, x0 = x_-1 = 3.3: the path never reaches the minimum, 0."""
    local = LocalOptions(optimizer="gd", local_lr=1 / 9, local_steps=1)
    momentum = objectives([(1.0, 0.0)], algorithm=FedAvgMOptions(server_momentum=4 / 9), local=local, module=Lessard())
    cycle = momentum.step(120)[-6:, 0].numpy()
    points = np.array([792, -2208, 2592]) / 1225
    start = int(np.abs(points - cycle[0]).argmin())
    np.testing.assert_allclose(cycle, np.tile(np.roll(points, -start), 2), atol=1e-13)
    # Plain descent at 1/L reaches it.
    plain = objectives([(1.0, 0.0)], algorithm=FedAvgOptions(), local=LocalOptions(
        optimizer="gd", local_lr=1 / 25, local_steps=1), module=Lessard())  # fmt: skip
    assert plain.step(120)[-1].abs().item() < 1e-12
