"""A reference: what simple models of another kind reach on the same examples, pooled.

A run whose validation loss is not above it has little left to gain. One that is far above it falls short, and the
question is why. The pooled sample is a simulator's privilege: no server of a federation could train it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from clients.core.arrays import F64
from clients.core.examples import Examples
from clients.core.population import Population

MOST_NUMBERS = 4_000_000
"""Numbers of the pooled sample that the reference is trained on, at most."""
_TREES = 60


def reference_loss(population: Population, features: Tensor, targets: Tensor, *, seed: int) -> float | None:
    """Return the lowest validation loss among extremely randomised trees, and a linear model; None without validation.

    Args:
        population: whose validation examples count.
        features: of the pooled sample, floating-point [n, ...].
        targets: its targets, int64 [n] or [n, outputs].
        seed: of the trees.
    """
    validation = population.validation
    if validation is None or population.task == "objective" or not features.dtype.is_floating_point:
        return None
    most = max(200, MOST_NUMBERS // max(1, features[0].numel()))
    chosen = np.random.default_rng(seed).permutation(len(features))[:most]
    x, y = features.numpy()[chosen].reshape(len(chosen), -1), targets.numpy()[chosen]
    if population.task == "classification":
        return _of_classes(x, y, validation, population.outputs, seed)
    return _of_numbers(x, y.reshape(len(y), -1), validation, seed)


def _flat(examples: Examples) -> Any:
    return examples.features.numpy().reshape(len(examples.features), -1)


def _of_classes(x: Any, y: Any, validation: Examples, classes: int, seed: int) -> float | None:
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = np.unique(y)
    if len(known) < 2:
        return None
    truth, losses = validation.targets.numpy().ravel(), []
    models = (
        ExtraTreesClassifier(_TREES, min_samples_leaf=2, random_state=seed, n_jobs=1),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, C=0.3, tol=1e-2)),
    )
    for model in models if x.shape[1] <= 1000 else models[:1]:
        shares = np.full((len(truth), classes), 1e-3)
        shares[:, known] += model.fit(x, y).predict_proba(_flat(validation))
        shares /= shares.sum(1, keepdims=True)
        losses.append(float(-np.log(shares[np.arange(len(truth)), truth]).mean()))
    return min(losses)


def _of_numbers(x: Any, y: Any, validation: Examples, seed: int) -> float:
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth: F64 = validation.targets.numpy().reshape(len(validation.targets), -1)
    models = (
        ExtraTreesRegressor(_TREES, min_samples_leaf=2, random_state=seed, n_jobs=1),
        make_pipeline(StandardScaler(), Ridge(1.0)),
    )
    found = [model.fit(x, y).predict(_flat(validation)).reshape(truth.shape) for model in models]
    return min(float(np.square(predicted - truth).mean()) for predicted in found)
