"""Logistic regression and linear SVMs reach scikit-learn's optimum, which other algorithms find."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import fedscape as fs
from clients.core.arrays import F64, I64

N, D, L2 = 80, 3, 0.05
C = 1 / (N * L2)
EXACT = ["data.validation_fraction=0", "data.test_fraction=0", "partition.kind=iid", "partition.clients=1",
         "batch_size=full", "run.dtype=float64", f"local.l2={L2}", "engine.kind=stacked", "engine.tile=1",
         "engine.threads=1", "engine.workers=1", "engine.compile=never"]  # fmt: skip


def overlapping(classes: int) -> tuple[F64, I64]:
    """Return points of overlapping classes, and a feature of ones for the constant."""
    random = np.random.default_rng(classes)
    y = np.arange(N) % classes
    x = random.normal(size=(N, D - 1)) + random.normal(size=(classes, D - 1))[y]
    return np.concatenate([x, np.ones((N, 1))], 1), y.astype(np.int64)


def trained(x: F64, y: I64, *sets: str) -> F64:
    scenario = fs.load_scenario("blank", sets=["model.bias=false", *sets[:1], *EXACT[2:], *sets[1:]])
    data = fs.arrays(x, y, validation_fraction=0.0, test_fraction=0.0)
    return np.asarray(fs.simulate(scenario, data=data, record=False).params.numpy(), np.float64)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_reaches_the_optimum(classes: int) -> None:
    x, y = overlapping(classes)
    best = LogisticRegression(C=C, fit_intercept=False, tol=1e-12, max_iter=5000).fit(x, y).coef_
    found = trained(x, y, "model.kind=logistic", "local_lr=0.5", "local_steps=300", "rounds=4")
    np.testing.assert_allclose(found.reshape(best.shape), best, atol=1e-7)


def test_squared_hinge_reaches_the_optimum() -> None:
    x, y = overlapping(2)
    # scikit-learn's penalty is |w|^2 / 2, its loss C times the sum
    best = LinearSVC(C=C, loss="squared_hinge", fit_intercept=False, tol=1e-12, max_iter=100_000).fit(x, y).coef_
    found = trained(x, y, "model.kind=svm", "model.squared=true", "local_lr=0.1", "local_steps=500", "rounds=4")
    np.testing.assert_allclose(found.reshape(best.shape), best, atol=1e-6)


def objective(w: F64, x: F64, y: I64) -> float:
    """Return the mean hinge loss plus the penalty, of a weight vector or of one a class."""
    scores = np.concatenate([np.zeros((len(x), 1)), x @ w.T], 1) if len(w) == 1 else x @ w.T
    own = scores[np.arange(len(x)), y]
    scores[np.arange(len(x)), y] = -np.inf
    return float(np.maximum(0, 1 - own + scores.max(1)).mean() + L2 / 2 * (w**2).sum())


@pytest.mark.parametrize("classes", [2, 3])
def test_hinge_loss_comes_close_to_the_optimum(classes: int) -> None:
    """The steps are those of Pegasos (Shalev-Shwartz et al. 2007), 1 / (l2 t), on all examples."""
    x, y = overlapping(classes)
    kind = "ovr" if classes == 2 else "crammer_singer"
    best = LinearSVC(C=C, loss="hinge", multi_class=kind, fit_intercept=False, tol=1e-10, max_iter=1_000_000)
    coefficients = best.fit(x, y).coef_
    steps = ("local_lr=10", "local.schedule={kind='inverse_time',decay=0.5}", "local_steps=1", "rounds=500")
    found = trained(x, y, "model.kind=svm", *steps).reshape(coefficients.shape)
    optimum = objective(coefficients, x, y)
    assert optimum <= objective(found, x, y) + 1e-9
    assert objective(found, x, y) < 1.005 * optimum
