"""The energy distance of each client's features from those of all clients, estimated without bias.

The energy distance of two laws (Szekely and Rizzo 2013, "Energy statistics", equation 2.1) is

    D2(F, G) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|,    X, X' ~ F and Y, Y' ~ G independent, |.| Euclidean,

0 where F = G and positive otherwise (theirs is the square; so is ours). F is the law of client k's features, G the
mixture of all clients by their examples n_k / N. Features are standardised first, each by its mean
and deviation over all clients. With M_kl the mean distance of an example of k and one of l (of two different ones where
k = l, a U-statistic, so equal laws give 0 on average, whatever the clients' sizes) and w_k = n_k / N:

    D2_k = 2 sum_l w_l M_kl - M_kk - sum_kl w_k w_l M_kl,      sum_k w_k D2_k = sum_kl w_k w_l M_kl - sum_k w_k M_kk.

An unbiased estimate of a distance near 0 is negative about half of the time, so it comes with its standard error: the
jackknife over examples (Efron and Stein 1981), which is at least the true one on average. D2 grows with the root of the
number of features; the energy coefficient D2 / (2 E|X - Y|) (their section 3.2) lies in [0, 1] whatever their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.population import Population
from clients.core.ragged import offsets_of, positions

EXAMPLES = 5000
"""The most examples that are measured: the cost is their distances to each other."""
_WORK = 4e9  # numbers in all differences: the limit is fewer examples if they have very many features
_BLOCK = 1 << 22  # distances held at once
_CLIENTS = 64  # clients whose data are made at once


@dataclass(frozen=True)
class FeatureShift:
    """Distances of clients' features from those of all clients.

    Attributes:
        each: D2_k of each client, float64 (K,); nan where fewer than two examples were measured.
        mean: mean of `each`, weighted by examples.
        coefficient: the mean of D2_k over twice the mean of E|X - Y|, at most 1: the energy coefficient.
        examples: how many were measured.
        error: standard error of `mean`, given these clients; nan where no client has three examples.
    """

    each: F64
    mean: float
    coefficient: float
    examples: int
    error: float = float("nan")


def feature_shift(features: F64, offsets: I64, weights: npt.ArrayLike) -> FeatureShift:
    """Measure the energy distance of each client's features from those of all clients.

    Args:
        features: (M, d), the measured examples, client after client.
        offsets: int64 (K + 1,); client k has `features[offsets[k]:offsets[k + 1]]`.
        weights: (K,), each client's number of examples, measured or not.

    Returns:
        The shift; nan where fewer than two clients have two examples.

    Example:
        >>> far = np.array([[0.0], [0.0], [1.0], [1.0]])
        >>> feature_shift(far, np.array([0, 2, 4]), [2, 2]).each.tolist()  # standardised: -1 and 1
        [1.0, 1.0]
    """
    sizes = np.diff(offsets)
    able = np.flatnonzero(sizes >= 2)
    each = np.full(len(sizes), np.nan)
    if len(able) < 2:
        return FeatureShift(each, float("nan"), float("nan"), len(features))
    x = features[positions(offsets[able], sizes[able])]
    n = sizes[able]
    w = np.asarray(weights, np.float64)[able]
    w = w / w.sum()
    sums = _summed_distances(_standardised(x, np.repeat(w / n, n)), n)
    pairs = np.outer(n, n).astype(np.float64)
    np.fill_diagonal(pairs, n * (n - 1.0))
    means = np.add.reduceat(sums, offsets_of(n)[:-1], axis=0) / pairs
    towards = means @ w  # E|X - Y| of each client
    among = float(w @ towards)
    each[able] = 2 * towards - np.diagonal(means) - among
    mean = float(w @ each[able])
    error = _error(sums, means, n, w)
    return FeatureShift(each, mean, mean / (2 * among) if among > 0 else 0.0, len(features), error)


def _error(sums: F64, means: F64, n: I64, w: F64) -> float:
    """Return the jackknife's standard error of sum_kl w_k w_l M_kl - sum_k w_k M_kk over the examples.

    Args:
        sums: distances of each example to those of each client, summed (M, K).
        means: M_kl (K, K).
        n: examples of each client, int64 (K,).
        w: weights, sum 1 (K,).
    """
    if not (n > 2).any():
        return float("nan")
    owner, rows = np.repeat(np.arange(len(n)), n), np.arange(len(sums))
    size, own_mean = n[owner].astype(np.float64), np.diagonal(means)[owner]
    own = sums[rows, owner]
    # without an example, M_kk and the M_kl (l other than k) change by:
    within = 2 * ((size - 1) * own_mean - own) / ((size - 1) * np.maximum(size - 2, 1))
    others = means @ w - np.diagonal(means) * w
    across = (others[owner] - (sums @ (w / n) - own * (w / n)[owner])) / (size - 1)
    # of two examples M_kk is one distance: its change is how far it is from the mean of all clients'
    within = np.where(size > 2, within, own_mean - w @ np.diagonal(means))
    change = w[owner] * (2 * across + (w[owner] - 1) * within)
    variance = ((size - 1) / size * change**2).sum()
    return float(np.sqrt(variance))


def _standardised(x: F64, weights: F64) -> F64:
    """Subtract each column's weighted mean and divide by its deviation; constant columns become 0."""
    centred = x - weights @ x
    deviation = np.sqrt(weights @ centred**2)
    scale = np.abs(x).max(axis=0, initial=0.0)
    constant = deviation <= 1e-9 * scale
    z: F64 = np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation))
    return z


def _summed_distances(x: F64, sizes: I64) -> F64:
    """Return the distances of each row to the rows of each of K consecutive groups, summed: (M, K)."""
    k, starts = len(sizes), offsets_of(sizes)
    squares = np.einsum("ij,ij->i", x, x)
    sums = np.empty((len(x), k))
    step = max(1, _BLOCK // len(x))
    for a in range(0, len(x), step):
        b = min(a + step, len(x))
        squared = squares[a:b, None] + squares - 2.0 * (x[a:b] @ x.T)
        squared[np.arange(b - a), np.arange(a, b)] = 0.0  # rounding leaves an example a small distance to itself
        distance = np.sqrt(np.maximum(squared, 0.0, out=squared), out=squared)
        sums[a:b] = np.add.reduceat(distance, starts[:-1], axis=1)
    return sums


def measured_examples(clients: I64, sizes: I64, dimension: int, seed: int) -> tuple[I64, I64]:
    """Choose by hash which examples of each client are measured: all, or as many as the limits allow.

    Args:
        clients: int64 (K,), their indices.
        sizes: int64 (K,), their examples.
        dimension: features of an example.
        seed: root seed.

    Returns:
        Positions among the examples of these clients laid end to end, int64 (M,), increasing; and offsets (K + 1,).
    """
    most = int(min(EXAMPLES, max(400.0, np.sqrt(_WORK / max(1, dimension)))))
    if int(sizes.sum()) <= most:
        return np.arange(sizes.sum()), offsets_of(sizes)
    cap = max(2, most // max(1, int(np.count_nonzero(sizes))))
    starts = offsets_of(sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    rank = np.arange(len(owner)) - starts[owner]
    chance = streams.keys(seed, "feature shift", clients[owner], rank)
    order = np.lexsort((chance, owner))
    rank[order] = np.arange(len(owner)) - starts[owner[order]]  # position of each in its client's random order
    chosen = np.flatnonzero(rank < cap)
    return chosen, offsets_of(np.minimum(sizes, cap))


def population_shift(population: Population, clients: I64, seed: int) -> FeatureShift:
    """Measure the feature shift of some clients of a population, with these as the reference.

    Args:
        population: the clients; data are made for a few of them at a time.
        clients: the clients to measure, int64 (K,).
        seed: root seed, which chooses the examples if there are too many.

    Returns:
        The shift, with one value for each of `clients`.
    """
    sizes = population.sizes[clients].astype(np.int64)
    chosen, offsets = measured_examples(clients, sizes, int(np.prod(population.feature_shape, dtype=np.int64)), seed)
    starts, parts = offsets_of(sizes), []
    for first in range(0, len(clients), _CLIENTS):
        data = population.cohort(clients[first : first + _CLIENTS])
        low, high = np.searchsorted(chosen, starts[[first, min(first + _CLIENTS, len(clients))]])
        rows = data.rows[chosen[low:high] - starts[first]]
        parts.append(data.features[rows].reshape(len(rows), -1).double().numpy())
    return feature_shift(np.concatenate(parts), offsets, sizes)
