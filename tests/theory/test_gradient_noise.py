"""Additive gradient noise: the averaged model's stationary variance is eta s^2 / (N h (2 - eta h)), for any K."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import objectives
from torch import nn

from clients.training.options import LocalOptions
from server.algorithms.options import FedAvgOptions

ETA, NOISE, CURVATURE = 0.2, 0.7, 1.5
WIDTH = 4000
"""Coordinates, each a run of its own."""


class Bowl(nn.Module):
    """The objective h |w|^2 / 2, started at its stationary law, so that all rounds count."""

    def __init__(self, deviation):
        super().__init__()
        start = deviation * torch.randn(WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        self.w = nn.Parameter(start)

    def forward(self, features):
        return 0.5 * CURVATURE * self.w.square().sum() * features[:, 0]


def stationary(clients):
    return ETA * NOISE**2 / (clients * CURVATURE * (2 - ETA * CURVATURE))


def variance(steps, clients, rounds, algorithm, engine="stacked"):
    """Return the mean square of the averaged model over rounds, and its standard error over coordinates."""
    local = LocalOptions(optimizer="gd", local_lr=ETA, local_steps=steps, gradient_noise=NOISE)
    federation = objectives([(1.0, 0.0)] * clients, algorithm=algorithm, local=local, engine=engine,
                            module=Bowl(stationary(clients) ** 0.5))  # fmt: skip
    squares = federation.step(rounds).square().mean(0).numpy()  # one independent number a coordinate
    return squares.mean(), squares.std() / np.sqrt(WIDTH)


@pytest.mark.parametrize(("steps", "rounds"), [(1, 40), (4, 15), (10, 8)])
def test_variance_does_not_depend_on_the_local_steps(steps, rounds):
    for clients in (1, 3):
        found, error = variance(steps, clients, rounds, FedAvgOptions(weighting="uniform"))
        assert error < 0.03 * stationary(clients)
        assert abs(found - stationary(clients)) < 4 * error, (clients, found / stationary(clients))


def test_plain_and_stacked_clients_draw_the_same_noise():
    plain, stacked = (variance(3, 2, 2, FedAvgOptions(weighting="uniform"), engine) for engine in ("plain", "stacked"))
    assert plain[0] == pytest.approx(stacked[0], rel=1e-12)
