"""Statistics of features: clients send sums and counts, never an example, and a server combines them.

A channel is the last axis of the features: one number of a vector, one sensor of a window [W, C]. Every number of a
channel counts as a reading of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor, from_numpy

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.examples import CohortData
from clients.core.population import Population

TOGETHER = 256
"""How many clients' data are read at once: an on-demand population makes no more at a time."""
REACH = 2.5
"""Bins of a histogram have equal width over this many deviations each side of the mean; the outer ones are open."""
CONSTANT = 1e-6
"""A channel whose deviation is below this share of its root mean square is constant up to the rounding of sums."""


@dataclass(frozen=True)
class Sums:
    """The statistics of its C channels that each of K clients sends.

    Attributes:
        count: readings of a channel, float64 (K,).
        total: their sum, float64 (K, C).
        squares: the sum of their squares.
    """

    count: F64
    total: F64
    squares: F64


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation (of the population, not the sample) by channel, float64 (..., C)."""

    mean: F64
    deviation: F64


def statistics_clients(population: Population, most: int, seed: int) -> I64:
    """Return the clients that send statistics: all that have examples, or `most` of them, chosen by seed."""
    busy = np.flatnonzero(population.sizes).astype(np.int64)
    return busy[streams.choose(streams.keys(seed, "feature statistics"), len(busy), min(len(busy), most))]


def in_blocks(clients: I64) -> Iterator[I64]:
    """Cut clients into blocks of at most `TOGETHER`."""
    return (clients[start : start + TOGETHER] for start in range(0, len(clients), TOGETHER))


def rows_of(data: CohortData) -> tuple[Tensor, Tensor]:
    """Return the features and targets of a cohort, client after client."""
    rows = from_numpy(data.rows)
    return data.features[rows], data.targets[rows]


def client_sums(features: Tensor, sizes: I64) -> Sums:
    """Return the sums of each client's own examples.

    Args:
        features: of all K clients, one after the other, [M, ..., C].
        sizes: examples of each, (K,).
    """
    channels, readings = features.shape[-1], int(np.prod(features.shape[1:-1], dtype=np.int64))
    values = features.reshape(len(features), readings, channels).numpy()
    each = values.sum(1, dtype=np.float64), np.square(values, dtype=np.float64).sum(1)
    has = sizes > 0
    starts = (np.cumsum(sizes) - sizes)[has]
    total, squares = np.zeros((len(sizes), channels)), np.zeros((len(sizes), channels))
    if has.any():
        total[has], squares[has] = (np.add.reduceat(part, starts, axis=0) for part in each)
    return Sums(sizes.astype(np.float64) * readings, total, squares)


def scale_of(sums: Sums) -> Scale:
    """Return each client's own mean and deviation, (K, C): deviation 0 for a constant channel, nan without readings."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, square = sums.total / sums.count[:, None], sums.squares / sums.count[:, None]
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    return Scale(mean, np.where(deviation < CONSTANT * np.sqrt(square), 0.0, deviation))


def federated_scale(population: Population, clients: I64) -> Scale:
    """Add up the sums of clients, and return mean and deviation over all their readings, (C,).

    A constant channel has deviation 0.
    """
    count, total, squares = 0.0, np.zeros(1), np.zeros(1)
    for block in in_blocks(clients):
        data = population.cohort(block)
        sums = client_sums(rows_of(data)[0], data.sizes)
        count, total = count + sums.count.sum(), total + sums.total.sum(0)
        squares = squares + sums.squares.sum(0)
    found = scale_of(Sums(np.array([count]), total[None], squares[None]))
    return Scale(found.mean[0], found.deviation[0])


def class_histograms(scaled: Tensor, labels: Tensor, bins: int, classes: int) -> I64:
    """Count readings by channel, bin and class, int64 (C, bins, classes), summed over clients.

    Args:
        scaled: features in deviations from the mean, [M, ..., C].
        labels: int64 [M].
        bins: how many; see `REACH`.
        classes: how many.
    """
    channels = scaled.shape[-1]
    values = scaled.reshape(len(scaled), -1, channels).numpy()
    index = np.clip(np.floor((values + REACH) * (bins / (2 * REACH))), 0, bins - 1).astype(np.int64)
    cell = (np.arange(channels) * bins + index) * classes + labels.numpy()[:, None, None]
    return np.bincount(cell.ravel(), minlength=channels * bins * classes).reshape(channels, bins, classes)


def mutual_information(counts: I64) -> F64:
    """Return the mutual information in nats of bin and class, by channel: (C,).

    sum_by p(b, y) log(p(b, y) / (p(b) p(y))), with the counts (C, bins, classes) over their sum as p. It is not
    corrected for chance, which adds about the same to every channel if there are many readings.
    """
    n = counts.sum((1, 2), keepdims=True)
    p = counts / np.maximum(n, 1)
    apart = p.sum(2, keepdims=True) * p.sum(1, keepdims=True)
    found: F64 = (p * np.log(np.where(p > 0, p, 1.0) / np.where(p > 0, apart, 1.0))).sum((1, 2))
    return found
