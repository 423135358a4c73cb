"""Generated customers of the branches of a company: who leaves within the year, with a known Bayes error.

A customer has eight standardised features. In branch k they are normal with mean m_k and unit variance, where the
entries of m_k are N(0, `branches_differ`^2). The chance to leave is 1 / (1 + exp(-(w'x + b))): w is `signal` times a
fixed direction, and b makes the mean chance over all branches `churn_rate`. So logistic regression is the right model,
the same for all branches, and no classifier errs less than `bayes_error`, E[min(p, 1 - p)].
"""

from __future__ import annotations

import numpy as np
import torch

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.population import Population
from clients.partition.options import PartitionOptions
from clients.partition.pooled import Pool, pooled_population
from clients.sources.made_options import ChurnOptions

FEATURES: dict[str, float] = {
    "tenure": -1.0, "contract_months": -0.9, "support_calls": 0.8, "complaints": 0.7, "monthly_charge": 0.6,
    "late_payments": 0.5, "discount": -0.4, "data_use": 0.1,
}  # fmt: skip
"""The features of a customer, and the direction in which each changes the chance to leave."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)  # integrates against the normal law


def churn_population(
    options: ChurnOptions, partition: PartitionOptions | None, *, seed: int, dtype: torch.dtype = torch.float32
) -> Population:
    """Make the population of customers; each branch is a client unless a partition deals customers out.

    Args:
        options: the company.
        partition: which client holds which customers; None takes the branches.
        seed: root seed.
        dtype: of the features.
    """
    branch, features, labels = made_customers(options, seed)
    weights, constant = true_model(options, seed)
    means = branch_means(options, seed)
    error, loss = bayes_rates(means @ weights + constant, options.signal, np.bincount(branch))
    facts: dict[str, str | int | float] = {
        "features": ", ".join(FEATURES),
        "bayes_error": round(error, 6),
        "bayes_loss": round(loss, 6),
    }
    pool = Pool(
        "churn", "kind", features, labels, {"branch": branch, "label": labels}, natural="branch", facts=facts, outputs=2
    )
    return pooled_population(pool, partition, options, seed=seed, dtype=dtype)


def made_customers(options: ChurnOptions, seed: int) -> tuple[I64, F64, I64]:
    """Return the branch [n], the features [n, 8] and the label [n] (1 leaves) of all customers, branch by branch."""
    branches = np.arange(options.branches)
    spread = streams.normals(streams.keys(seed, "branch size", branches), 1)[:, 0]
    share = np.exp(options.size_spread * spread)
    sizes = np.maximum(1, np.round(options.customers * options.branches * share / share.sum())).astype(np.int64)
    branch = np.repeat(branches, sizes)
    keys = streams.keys(seed, "customer", np.arange(len(branch)))
    features = branch_means(options, seed)[branch] + streams.normals(keys, len(FEATURES))
    weights, constant = true_model(options, seed)
    leaves = streams.uniforms(streams.keys(seed, "churn", np.arange(len(branch))), 1)[:, 0]
    return branch, features, (leaves < _chance(features @ weights + constant)).astype(np.int64)


def branch_means(options: ChurnOptions, seed: int) -> F64:
    """Return the mean features of each branch, [branches, 8]."""
    keys = streams.keys(seed, "branch", np.arange(options.branches))
    return np.asarray(options.branches_differ * streams.normals(keys, len(FEATURES)))


def true_model(options: ChurnOptions, seed: int) -> tuple[F64, float]:
    """Return the weights [8] and the constant of the true chance to leave."""
    direction = np.array(list(FEATURES.values()))
    weights = options.signal * direction / np.linalg.norm(direction)
    means, low, high = branch_means(options, seed) @ weights, -50.0, 50.0
    for _ in range(60):  # bisection: the mean chance rises with the constant
        middle = (low + high) / 2
        above = _mean(_chance(_scores(means + middle, options.signal))) > options.churn_rate
        low, high = (low, middle) if above else (middle, high)
    return weights, (low + high) / 2


def bayes_rates(means: F64, deviation: float, customers: I64) -> tuple[float, float]:
    """Return the least error and the least cross-entropy that a classifier can have, the mean over customers.

    Args:
        means: mean of w'x + b in each branch.
        deviation: its deviation within a branch.
        customers: of each branch.

    Example:
        >>> error, loss = bayes_rates(np.array([0.0]), 0.0, np.array([100]))
        >>> round(error, 6), round(loss, 6)
        (0.5, 0.693147)
    """
    scores = _scores(means, deviation)
    chance = _chance(scores)
    entropy = chance * np.logaddexp(0.0, -scores) + (1 - chance) * np.logaddexp(0.0, scores)
    return _mean(np.minimum(chance, 1 - chance), customers), _mean(entropy, customers)


def _chance(scores: F64) -> F64:
    return np.asarray(1.0 / (1.0 + np.exp(-scores)))


def _scores(means: F64, deviation: float) -> F64:
    """Return the nodes of the quadrature of each branch, [branches, nodes]."""
    return np.asarray(means[:, None] + deviation * _NODES)


def _mean(values: F64, customers: I64 | None = None) -> float:
    """Return the mean over the normal law in each branch, and over branches with the weights `customers`."""
    return float(np.average(values @ _WEIGHTS, weights=customers) / _WEIGHTS.sum())
