"""A reference: what simple models of another kind reach on the same examples, pooled.

A run whose validation loss is not above it has little left to gain. One that is far above it falls short, and the
question is why. The pooled sample is a simulator's privilege: no server of a federation could train it.

Few trees and few rows are enough: for the traffic of the generated city, sixty trees on all rows took five sixths of
the time of looking, and lowered the reference by 1% to 4% of the way to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from clients.core.arrays import F64
from clients.core.examples import Examples
from clients.core.population import Population

MOST_NUMBERS, MOST_ROWS = 1_000_000, 2_000
"""Numbers and rows of the pooled sample that the reference is trained on, at most."""
TREES = 20
CENTRES = 600
"""Rows that the kernel model is trained on, at most; its time grows with their cube."""
WIDTHS, PENALTIES = (0.25, 1.0), (1e-3, 1e-2, 1e-1)
"""Squared widths of the kernel in units of the median squared distance, and its penalties."""


def reference_loss(population: Population, features: Tensor, targets: Tensor, *, seed: int) -> float | None:
    """Return the lowest validation loss among trees, a linear model and, in regression, a Gaussian kernel.

    None without validation examples, and where features are no real numbers.

    Args:
        population: whose validation examples count.
        features: of the pooled sample, floating-point [n, ...].
        targets: its targets, int64 [n] or [n, outputs].
        seed: of the trees and of the rows that are chosen.
    """
    validation = population.validation
    if validation is None or population.task == "objective" or not features.dtype.is_floating_point:
        return None
    most = min(MOST_ROWS, max(200, MOST_NUMBERS // max(1, features[0].numel())))
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
        ExtraTreesClassifier(TREES, min_samples_leaf=2, random_state=seed, n_jobs=1),
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
        ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=seed, n_jobs=1),
        make_pipeline(StandardScaler(), Ridge(1.0)),
    )
    wanted = y.ravel() if y.shape[1] == 1 else y  # scikit-learn warns of a column
    found = [model.fit(x, wanted).predict(_flat(validation)).reshape(truth.shape) for model in models]
    found += _of_kernels(x[:CENTRES].astype(np.float64), y[:CENTRES], _flat(validation).astype(np.float64))
    return min(float(np.square(predicted - truth).mean()) for predicted in found)


def _of_kernels(x: F64, y: Any, asked: F64) -> Iterator[F64]:
    """Yield the predictions of ridge regressions with a Gaussian kernel on standardised features, (m, outputs) each."""
    from scipy.linalg import cho_factor, cho_solve

    deviation = x.std(0)
    live = deviation > 1e-9 * max(float(deviation.max()), 1e-300)
    if len(x) < 20 or not live.any():
        return
    x, asked = ((values[:, live] - x[:, live].mean(0)) / deviation[live] for values in (x, asked))
    apart, far = _squared_distances(x, x), _squared_distances(asked, x)
    middle, mean = float(np.median(apart[np.triu_indices(len(x), 1)])), y.mean(0)
    if middle <= 0:
        return
    for width in WIDTHS:
        inside, outside = np.exp(-apart / (2 * width * middle)), np.exp(-far / (2 * width * middle))
        for penalty in PENALTIES:
            factor = cho_factor(inside + penalty * np.eye(len(x)), overwrite_a=True, check_finite=False)
            yield mean + outside @ cho_solve(factor, y - mean, check_finite=False)


def _squared_distances(one: F64, other: F64) -> F64:
    found: F64 = np.maximum((one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T, 0.0)
    return found
