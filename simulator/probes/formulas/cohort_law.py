"""The law of a round's coefficients over cohorts: with which weight each client enters the aggregate.

An aggregate is sum_k c_k(S) x_k over a random cohort S, with c_k(S) = 0 outside S. Its mean and variance over cohorts
need only the first two moments of c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64

MOST_LISTED, DRAWN = 5000, 4096
"""Up to so many cohorts are all listed; of more, so many are drawn."""


@dataclass(frozen=True)
class CohortLaw:
    """Moments of the coefficients of n clients.

    Attributes:
        mean: E c_k, float64 (n,).
        second: E c_k c_l, float64 (n, n).
        drawn: how many cohorts were drawn for them; 0 where they are exact.
    """

    mean: F64
    second: F64
    drawn: int = 0

    @property
    def covariance(self) -> F64:
        """Covariance of the coefficients (n, n)."""
        found: F64 = self.second - np.outer(self.mean, self.mean)
        return found


def everyone(coefficients: F64) -> CohortLaw:
    """Return the law where all clients take part in each round."""
    return CohortLaw(coefficients, np.outer(coefficients, coefficients))


def without_replacement(coefficients: F64, size: int) -> CohortLaw:
    """Return the law of cohorts of `size` of n clients, all equally likely, where c_k(S) = coefficients[k] for k in S.

    E c_k = a_k m / n; E c_k c_l = a_k a_l m (m - 1) / (n (n - 1)) for k != l, and a_k^2 m / n for k = l.

    Example:
        >>> without_replacement(np.full(3, 0.5), 2).second.round(4).tolist()[0]
        [0.1667, 0.0833, 0.0833]
    """
    n = len(coefficients)
    if size >= n:
        return everyone(coefficients)
    second = np.outer(coefficients, coefficients) * (size * (size - 1) / (n * (n - 1)))
    np.fill_diagonal(second, coefficients**2 * (size / n))
    return CohortLaw(coefficients * (size / n), second)


def with_replacement(shares: F64, size: int) -> CohortLaw:
    """Return the law of `size` independent draws with probabilities p_k, where c_k is the share of draws of client k.

    E c_k = p_k; E c_k c_l = p_k p_l (m - 1) / m, plus p_k / m for k = l.
    """
    second = np.outer(shares, shares) * ((size - 1) / size)
    second[np.diag_indices(len(shares))] += shares / size
    return CohortLaw(shares, second)


def by_cohorts(weigh: Callable[[I64], F64], clients: int, size: int, *, seed: int) -> CohortLaw:
    """Return the law of cohorts of `size` of n clients whose coefficients depend on the whole cohort.

    All cohorts count where there are at most `MOST_LISTED`; else `DRAWN` of them, drawn from the seed.

    Args:
        weigh: members of a cohort, int64 (size,), increasing -> their coefficients (size,).
        clients: n.
        size: of a cohort.
        seed: root seed.
    """
    listed = comb(clients, size) <= MOST_LISTED
    cohorts = _listed(clients, size) if listed else _drawn(clients, size, seed)
    coefficients = np.zeros((len(cohorts), clients))
    for row, cohort in zip(coefficients, cohorts, strict=True):
        row[cohort] = weigh(cohort)
    second = coefficients.T @ coefficients / len(cohorts)
    return CohortLaw(coefficients.mean(0), second, 0 if listed else DRAWN)


def _listed(clients: int, size: int) -> I64:
    """Return all cohorts, increasing, int64 (cohorts, size)."""
    return np.array(list(combinations(range(clients), size)), np.int64)


def _drawn(clients: int, size: int, seed: int) -> I64:
    """Return `DRAWN` cohorts, increasing, int64 (DRAWN, size): those with the smallest hashes."""
    scores = streams.hashes(streams.keys(seed, "probe/cohorts", np.arange(DRAWN)), clients)
    return np.sort(np.argpartition(scores, size - 1, axis=1)[:, :size], axis=1).astype(np.int64)


def finite_correction(sampled: int, population: int, size: int) -> float:
    """Return the factor from the variance over cohorts of `size` of `sampled` clients to that over all clients.

    It is the ratio of the finite population corrections (N - m) / (N - 1); 1 where all clients were sampled.

    Example:
        >>> finite_correction(11, 101, 1), finite_correction(11, 11, 4)
        (1.0, 1.0)
    """
    if sampled >= population or size >= sampled:
        return 1.0
    return ((population - size) / (population - 1)) / ((sampled - size) / (sampled - 1))
