"""A linear recurrent network's state and gradient grow by its spectral radius in each step (Pascanu et al. 2013)."""

from __future__ import annotations

import math

import pytest
import torch

from clients.models.sequence_options import RnnOptions
from clients.models.sequences import RnnForecaster, rnn


def made(radius: float, activation: str = "identity", hidden: int = 8, channels: int = 2) -> RnnForecaster:
    options = RnnOptions(hidden=hidden, activation=activation, radius=radius)  # type: ignore[arg-type]
    module = rnn(options, (5, channels), 1, torch.Generator().manual_seed(3)).double()
    assert isinstance(module, RnnForecaster)
    return module


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.7])
def test_recurrent_weights_start_as_a_rotation_times_the_radius(radius: float) -> None:
    weight = made(radius).recurrent.weight.detach()
    torch.testing.assert_close(weight @ weight.T, radius**2 * torch.eye(8).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.linalg.eigvals(weight).abs(), torch.full((8,), radius).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("radius", [0.8, 1.3])
def test_an_inputs_weight_in_the_output_grows_by_the_radius_for_each_step_back(radius: float) -> None:
    """d out / d x_t = V U^(T - t) W, and U is a rotation times the radius: the norm of V U^(T - t) is exact."""
    module, steps = made(radius), 9
    x = torch.randn(1, steps, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (by_input,) = torch.autograd.grad(module(x).sum(), x)
    readout, w, u = (part.detach() for part in (module.readout.weight[0], module.into.weight, module.recurrent.weight))
    for t in range(steps):
        power = torch.linalg.matrix_power(u, steps - 1 - t)
        torch.testing.assert_close(by_input[0, t], readout @ power @ w)
        assert float((readout @ power).norm()) == pytest.approx(
            radius ** (steps - 1 - t) * float(readout.norm()), rel=1e-5
        )


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
def test_network_equals_torchs_and_its_recursion(activation: str) -> None:
    module = made(1.2, activation)
    x = torch.randn(4, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h = torch.zeros(4, 8, dtype=torch.float64)
    for t in range(6):
        into = x[:, t] @ module.into.weight.T + module.into.bias + h @ module.recurrent.weight.T
        h = into.tanh() if activation == "tanh" else into.relu() if activation == "relu" else into
    torch.testing.assert_close(module(x), h @ module.readout.weight.T + module.readout.bias)
    if activation == "identity":
        return
    theirs = torch.nn.RNN(2, 8, nonlinearity=activation, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(module.into.weight)
        theirs.weight_hh_l0.copy_(module.recurrent.weight)
        theirs.bias_ih_l0.copy_(module.into.bias)
        theirs.bias_hh_l0.zero_()
    torch.testing.assert_close(module(x), module.readout(theirs(x)[0][:, -1]))


def test_tanh_bounds_the_state_whatever_the_radius() -> None:
    module = made(5.0, "tanh")
    x = torch.full((1, 200, 2), 3.0, dtype=torch.float64)
    limit = float((module.readout.weight.abs().sum() + module.readout.bias.abs().sum()).detach())
    assert abs(float(module(x).detach())) <= limit
    assert math.isfinite(limit)
