"""A linear autoencoder ends at the principal components (Baldi and Hornik 1989)."""

from __future__ import annotations

import numpy as np

import fedscape as fs


def test_linear_autoencoder_leaves_the_smallest_eigenvalues() -> None:
    """With a code of two, the least mean squared error is the sum of the other eigenvalues of the second moments."""
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4)) @ np.diag([2.0, 1.5, 0.5, 0.3]) @ np.linalg.qr(random.normal(size=(4, 4)))[0]
    x -= x.mean(0)
    least = np.linalg.eigvalsh(x.T @ x / len(x))[:2].sum() / 4
    scenario = fs.load_scenario("blank", sets=[
        "model={kind='autoencoder',hidden=[],code=2}", "partition={kind='iid',clients=1}", "local_lr=0.1",
        "batch_size=full", "local_steps=1500", "rounds=3", "run.dtype=float64", "engine.kind=stacked", "engine.tile=1",
        "engine.threads=1", "engine.workers=1",
    ])  # fmt: skip
    data = fs.arrays(x, x, validation_fraction=0.0, test_fraction=0.0)
    loss = fs.simulate(scenario, data=data, record=False).rounds["train_loss"][-1]
    np.testing.assert_allclose(loss, least, rtol=1e-5)
