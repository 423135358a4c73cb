"""Our Adam fails on the convex problems of Reddi et al. 2018 (ICLR), on which plain descent succeeds.

Both are online problems on [-1, 1] with projection after each step. The mean gradient is positive, so the optimum is
-1. AMSGrad, which converges, is not among our optimisers.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clients.training.optimizers import stacked_optimizer, torch_optimizer
from clients.training.options import LocalOptions


def stacked_path(options, gradient, steps, scale, start=1.0):
    """Run the stacked optimiser on one number, at local_lr scale / sqrt(t); return x_1, x_2, ..."""
    optimizer = stacked_optimizer(options)
    x = torch.full((1, 1), start, dtype=torch.float64)
    state = [torch.zeros_like(x) for _ in range(optimizer.num_states)]
    path = np.empty(steps)
    for t in range(1, steps + 1):
        g = torch.full_like(x, gradient(t))
        optimizer.step(x, g, state, t, scale / math.sqrt(t))
        path[t - 1] = x.clamp_(-1, 1).item()
    return path


def torch_path(options, gradient, steps, scale, start=1.0):
    """Run the optimiser of the plain engine on the same problem."""
    x = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))
    optimizer = torch_optimizer([x], options, 1.0)
    is_adam = options.optimizer in ("adam", "adamw")
    path = np.empty(steps)
    for t in range(1, steps + 1):
        if is_adam:
            optimizer.param_groups[0]["lr"] = scale / math.sqrt(t)
        else:  # plain SGD remembers nothing
            optimizer = torch_optimizer([x], options, scale / math.sqrt(t))
        x.grad = torch.full_like(x, gradient(t))
        optimizer.step()
        with torch.no_grad():
            path[t - 1] = x.clamp_(-1, 1).item()
    return path


def theorem_1(t):
    """C = 4 every third step, else -1: 2 in three steps."""
    return 4.0 if t % 3 == 1 else -1.0


def online(t):
    """1010 every 101 steps, else -10: 10 in 101 steps."""
    return 1010.0 if t % 101 == 1 else -10.0


@pytest.mark.parametrize("play", [stacked_path, torch_path])
@pytest.mark.parametrize("scale", [0.1, 0.5, 0.9])
def test_adam_fails_as_in_theorem_1(scale, play):
    """beta1 = 0, beta2 = 1 / (1 + C^2): at every step divisible by 3 Adam is back at +1, the worst point."""
    adam = LocalOptions(optimizer="adam", beta1=0.0, beta2=1 / 17, epsilon=1e-12)
    path = play(adam, theorem_1, 900, scale)
    np.testing.assert_array_equal(path[2::3], 1.0)
    assert path[:2].max() < 1.0
    assert play(LocalOptions(optimizer="sgd"), theorem_1, 900, scale)[-1] < -0.9


def test_adam_fails_on_the_online_example():
    """beta 0.9 and 0.99, 0.5 / sqrt t: Adam goes to +1, at 0.9937 after 2e5 steps."""
    adam = LocalOptions(optimizer="adam", beta1=0.9, beta2=0.99)
    path = stacked_path(adam, online, 200_000, 0.5, start=0.0)
    assert path[-1] == pytest.approx(0.9937, abs=5e-5)
    assert path[-101:].min() > 0.9
    np.testing.assert_allclose(torch_path(adam, online, 500, 0.5, start=0.0), path[:500], rtol=1e-9)
    descent = stacked_path(LocalOptions(optimizer="sgd"), online, 20_000, 0.05, start=0.0)
    assert descent[-101:].mean() < -0.4
