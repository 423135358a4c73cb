"""Gaussians interpolate: with a centre at each distinct point the matrix of values is regular (Micchelli 1986)."""

from __future__ import annotations

import numpy as np
import torch

import fedscape as fs
from clients.models.network_options import RbfOptions
from clients.models.radial import RadialBasis, rbf


def test_one_centre_a_point_interpolates_any_targets() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(25, 3)), torch.from_numpy(random.normal(size=(25, 2)))
    module = rbf(RbfOptions(centres=tuple(map(tuple, x.tolist())), width=0.8), (3,), 2, None).double()
    assert isinstance(module, RadialBasis)
    points = torch.from_numpy(x)
    with torch.no_grad():
        values = module.basis(points)
        assert torch.linalg.matrix_rank(values) == 25
        module.readout.weight.copy_(torch.linalg.solve(values, y).T)
        torch.testing.assert_close(module(points), y, rtol=0, atol=1e-9)


def test_training_the_readout_reaches_the_interpolation() -> None:
    """Narrow Gaussians hardly overlap, so gradient descent reaches an error of rounding on labels of coins."""
    x = np.stack(np.meshgrid([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]), -1).reshape(-1, 2)
    y = np.random.default_rng(3).normal(size=(9, 1))
    scenario = fs.load_scenario("blank", sets=[
        f"model={{kind='rbf',centres={x.tolist()},width=0.4}}", "partition={kind='iid',clients=1}", "local_lr=0.5",
        "batch_size=full", "local_steps=1000", "rounds=2", "run.dtype=float64", "engine.kind=plain",
        "engine.threads=1", "engine.workers=1",
    ])  # fmt: skip
    data = fs.arrays(x, y, validation_fraction=0.0, test_fraction=0.0)
    run = fs.simulate(scenario, data=data, record=False)
    with torch.no_grad():
        np.testing.assert_allclose(run.model()(torch.from_numpy(x)).numpy(), y, atol=1e-9)
