"""Penalties and clipping of local steps, in closed form.

The lasso: f(w) = sum a_j (w_j - b_j)^2 / 2 + l1 sum |w_j| has its minimum at sign(b_j) max(|b_j| - l1 / a_j, 0).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federations import Federation, quadratics

from clients.core.arrays import F64

A, B, L1 = np.array([1.0, 4.0, 2.0, 0.5, 3.0]), np.array([2.0, 0.07, -1.5, 0.6, -0.05]), 0.4
LASSO = np.sign(B) * np.maximum(np.abs(B) - L1 / A, 0.0)
START = (3.0, 3.0, -3.0, -3.0, 1.0)
engines = pytest.mark.parametrize("engine", ["plain", "stacked"])
OPTIMIZERS = {
    "gd": (0.2, {}),
    "momentum": (0.02, {"momentum": 0.9}),
    "nesterov": (0.02, {"momentum": 0.9}),
    "adam": (0.02, {}),
    "adamw": (0.02, {"decoupled_weight_decay": 0.0}),
    "rmsprop": (0.01, {}),
    "adagrad": (0.3, {}),
}


def one(engine: str = "stacked", *, clients: int = 1, start: object = START, **local: object) -> Federation:
    options = {"local_lr": 0.2, "batch_size": "full"} | local
    return quadratics([np.diag(A)] * clients, [B] * clients, engine=engine, start=start, **options)  # type: ignore[arg-type]


def test_some_coordinates_of_the_lasso_are_zero_and_some_are_not() -> None:
    assert (LASSO == 0).tolist() == [False, True, False, True, True]


@engines
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lasso_is_a_fixed_point_of_every_optimizer(optimizer: str, engine: str) -> None:
    """From the minimum, 20 local steps move nothing, and zeros stay exact."""
    lr, more = OPTIMIZERS[optimizer]
    end = one(engine, start=LASSO, l1=L1, optimizer=optimizer, local_lr=lr, local_steps=20, **more).step()[-1].numpy()
    np.testing.assert_allclose(end, LASSO, atol=1e-9)
    assert (end[LASSO == 0] == 0).all()


@engines
@pytest.mark.parametrize("optimizer", ["gd", "momentum", "nesterov", "adagrad"])
@pytest.mark.parametrize("clients", [1, 3])
def test_lasso_is_reached_with_exact_zeros(optimizer: str, engine: str, clients: int) -> None:
    lr, more = OPTIMIZERS[optimizer]
    made = one(engine, clients=clients, l1=L1, optimizer=optimizer, local_lr=lr, local_steps=5, **more)
    end = made.step(200)[-1].numpy()
    np.testing.assert_allclose(end, LASSO, atol=1e-9)
    assert (end[LASSO == 0] == 0).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_engines_agree_where_weights_reach_zero(optimizer: str) -> None:
    """A subgradient's sign at a weight of rounding size would differ; a threshold is continuous."""
    lr, more = OPTIMIZERS[optimizer]
    both = [one(engine, l1=L1, optimizer=optimizer, local_lr=lr, local_steps=7, l2=0.1, **more).step(20)
            for engine in ("plain", "stacked")]  # fmt: skip
    torch.testing.assert_close(both[0], both[1], rtol=1e-11, atol=1e-12)


@engines
def test_elastic_net_is_reached(engine: str) -> None:
    """With l2 the minimum is sign(a b) max(|a b| - l1, 0) / (a + l2)."""
    expected = np.sign(B) * np.maximum(np.abs(A * B) - L1, 0.0) / (A + 0.5)
    found = one(engine, l1=L1, l2=0.5, local_steps=5).step(200)[-1].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("lr", [0.1, 0.01])
def test_mean_of_thresholds_is_off_the_lasso_of_the_mean_in_proportion_to_the_rate(lr: float) -> None:
    """With l1 = 1 on (x - 3)^2 / 2 and (x + 1)^2 / 2 the joint minimum is 0; one local step stops at 2 lr / (1 + lr).

    There one client's step is x - lr (x - 3) - lr, and the other's is thresholded to 0.
    """
    made = quadratics((1.0, 1.0), (3.0, -1.0), local_lr=lr, l1=1.0, start=2 * lr / (1 + lr) + 1e-3)
    path = made.step(60)[:, 0].numpy()
    assert path[-1] == pytest.approx(2 * lr / (1 + lr), abs=1e-12)


# One step from START: gradient g = a (w - b), of norm sqrt(sum g^2) > 1.


def step(engine: str, **local: object) -> F64:
    return one(engine, local_steps=1, local_lr=0.1, **local).step()[-1].numpy()


W = np.array(START)
G = A * (W - B)


def shrunk(w: F64, threshold: float) -> F64:
    return np.sign(w) * np.maximum(np.abs(w) - threshold, 0.0)


@engines
def test_clipping_acts_on_the_gradient_of_the_loss_alone(engine: str) -> None:
    """As torch's clip_grad_norm_: penalties act after it, L1 and L2 alike, and so does decoupled decay."""
    clipped = G * (1.0 / (np.linalg.norm(G) + 1e-6))
    found = step(engine, clip_norm=1.0, l2=0.5, l1=L1, decoupled_weight_decay=0.3)
    expected = shrunk(W * (1 - 0.1 * 0.3) - 0.1 * (clipped + 0.5 * W * (1 - 0.1 * 0.3)), 0.1 * L1)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    for penalty, after in (({"l2": 0.5}, W - 0.1 * (clipped + 0.5 * W)), ({"l1": L1}, shrunk(W - 0.1 * clipped, 0.04))):
        np.testing.assert_allclose(step(engine, clip_norm=1.0, **penalty), after, rtol=1e-13)


@engines
def test_clipping_by_value_follows_clipping_by_norm(engine: str) -> None:
    clipped = np.clip(G * (4.0 / (np.linalg.norm(G) + 1e-6)), -0.5, 0.5)
    assert 0 < (np.abs(clipped) == 0.5).sum() < 5
    found = step(engine, clip_norm=4.0, clip_value=0.5, l1=L1)
    np.testing.assert_allclose(found, shrunk(W - 0.1 * clipped, 0.1 * L1), rtol=1e-13)


@engines
@pytest.mark.parametrize(("options", "decay"), [
    ({}, 0.01), ({"l2": 0.3}, 0.3), ({"decoupled_weight_decay": 0.2}, 0.2), ({"decoupled_weight_decay": 0.0}, 0.0),
    ({"l2": 0.3, "decoupled_weight_decay": 0.2}, 0.5),
])  # fmt: skip
def test_adamw_is_torchs(options: dict[str, float], decay: float, engine: str) -> None:
    """Its decay is decoupled and 0.01 by default, as `torch.optim.AdamW`'s `weight_decay`."""
    found = one(engine, optimizer="adamw", local_lr=0.05, local_steps=25, **options).step()[-1]
    w = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = torch.optim.AdamW([w], lr=0.05, weight_decay=decay)
    for _ in range(25):
        optimizer.zero_grad()
        (0.5 * torch.from_numpy(A) * (w - torch.from_numpy(B)) ** 2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(found, w.detach(), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, one(engine, optimizer="adam", local_lr=0.05, local_steps=25, l2=0.4).step()[-1])
