"""Measures of clients' sizes, and of the distance of their labels from those of all clients.

The label measures compare p_k, the label frequencies of client k, with p, those of all clients together, so
clients are weighted by their examples throughout. They use the labels that clients hold, not the law of these
labels: small clients differ from p by chance alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clients.core import streams
from clients.core.arrays import F64
from clients.core.numbers.spacing import evenly_spaced
from clients.core.population import Population


@dataclass(frozen=True)
class SizeMeasures:
    """How many clients there are, and how many examples they have.

    Attributes:
        clients: how many, N.
        examples: training examples in all.
        smallest: size of the smallest client.
        median: median size.
        largest: size of the largest client.
    """

    clients: int
    examples: int
    smallest: int
    median: float
    largest: int


def size_measures(population: Population) -> dict[str, Any]:
    """Return the fields of `SizeMeasures`."""
    sizes = population.sizes
    return {
        "clients": population.num_clients,
        "examples": population.num_examples,
        "smallest": int(sizes.min()),
        "median": float(np.median(sizes)),
        "largest": int(sizes.max()),
    }


@dataclass(frozen=True)
class PartitionMeasures(SizeMeasures):
    """What a run records about its clients before it starts.

    Attributes:
        label_emd: mean over examples of their client's `label_emd`, in [0, 2]; None unless classification.
        label_js: the same of `label_js`, in bits, in [0, 1].
        estimated_from: clients whose labels were counted; below `clients`, label measures are estimates.
    """

    label_emd: float | None
    label_js: float | None
    estimated_from: int


def label_emd(laws: npt.ArrayLike, reference: npt.ArrayLike) -> F64:
    """Return sum_y |p_k(y) - p(y)| of each client (Zhao et al. 2018, section 3.2), in [0, 2].

    Args:
        laws: (K, C) label laws p_k, rows adding up to 1.
        reference: (C,) the label law p of all.

    Returns:
        float64 (K,).

    Example:
        >>> label_emd([[1.0, 0.0], [0.5, 0.5]], [0.5, 0.5]).tolist()
        [1.0, 0.0]
    """
    distance: F64 = np.abs(np.asarray(laws, np.float64) - np.asarray(reference, np.float64)).sum(axis=-1)
    return distance


def label_js(laws: npt.ArrayLike, reference: npt.ArrayLike) -> F64:
    """Return the Jensen-Shannon divergence (Lin 1991) of each client's label law from `reference`, in bits, in [0, 1].

    JS(p_k, p) = KL(p_k || m) / 2 + KL(p || m) / 2 with m = (p_k + p) / 2 and logarithms to base 2.

    Args:
        laws: (K, C) label laws.
        reference: (C,) the label law of all.

    Returns:
        float64 (K,).

    Example:
        >>> label_js([[1.0, 0.0], [0.5, 0.5]], [0.0, 1.0]).round(4).tolist()
        [1.0, 0.3113]
    """
    p = np.asarray(laws, np.float64)
    q = np.broadcast_to(np.asarray(reference, np.float64), p.shape)
    middle = 0.5 * (p + q)
    divergence = 0.5 * (_relative(p, middle) + _relative(q, middle)).sum(axis=-1)
    bounded: F64 = np.clip(divergence, 0.0, 1.0)  # rounding may leave the range
    return bounded


def label_hellinger(laws: npt.ArrayLike, reference: npt.ArrayLike) -> F64:
    """Return the Hellinger distance (Hellinger 1909) of each client's label law from `reference`, in [0, 1].

    H(p_k, p) = sqrt(sum_y (sqrt(p_k(y)) - sqrt(p(y)))^2 / 2), so H^2 = 1 - sum_y sqrt(p_k(y) p(y)); no logarithm.

    Args:
        laws: (K, C) label laws.
        reference: (C,) the label law of all.

    Returns:
        float64 (K,).

    Example:
        >>> label_hellinger([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], [0.0, 1.0]).round(4).tolist()
        [1.0, 0.0, 0.5412]
    """
    apart = np.sqrt(np.asarray(laws, np.float64)) - np.sqrt(np.asarray(reference, np.float64))
    distance: F64 = np.sqrt(np.minimum(0.5 * (apart * apart).sum(axis=-1), 1.0))  # rounding may leave the range
    return distance


LABEL_MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], F64]] = {
    "label_emd": label_emd,
    "label_js": label_js,
    "label_hellinger": label_hellinger,
}


def label_distances(counts: npt.ArrayLike) -> tuple[dict[str, F64], dict[str, float]]:
    """Measure label counts by each of `LABEL_MEASURES`.

    Args:
        counts: (K, C) labels of each client; their sum is the reference.

    Returns:
        By measure, each client's distance, float64 (K,), nan for clients without examples; and its mean weighted by
        examples (empty where no client has any).
    """
    counts = np.asarray(counts, np.float64)
    sizes = counts.sum(axis=1)
    some = sizes > 0
    if not some.any():
        return {name: np.full(len(counts), np.nan) for name in LABEL_MEASURES}, {}
    laws, reference = counts[some] / sizes[some, None], counts.sum(axis=0) / sizes.sum()
    each = {name: np.full(len(counts), np.nan) for name in LABEL_MEASURES}
    mean = {}
    for name, measure in LABEL_MEASURES.items():
        each[name][some] = distance = measure(laws, reference)
        mean[name] = float(np.average(distance, weights=sizes[some]))
    return each, mean


def gini(sizes: npt.ArrayLike) -> float:
    """Return the Gini coefficient (Gini 1912) of client sizes: 0 if all are equal, 1 - 1/K if one has everything.

    G = sum_ij |n_i - n_j| / (2 K^2 mean(n)): every client counts once, clients without examples too.

    Args:
        sizes: (K,) non-negative.

    Returns:
        G; 0 where all sizes are 0.

    Example:
        >>> gini([0, 1]), gini([5, 5, 5])
        (0.5, 0.0)
    """
    x = np.sort(np.asarray(sizes, np.float64))
    k, total = len(x), float(x.sum())
    if total == 0.0:
        return 0.0
    return float((2 * np.arange(1, k + 1) - k - 1).dot(x)) / (k * total)


def _relative(p: F64, m: F64) -> F64:
    """Return p log2(p / m), 0 where p is 0."""
    ratio = np.divide(p, m, out=np.ones_like(p), where=p > 0)
    return p * np.log2(ratio)


def partition_measures(population: Population, seed: int, sample: int = 2000) -> PartitionMeasures:
    """Measure a population; label measures of more than `sample` clients are estimated from that many.

    Args:
        population: the clients.
        seed: root seed, which chooses the sample.
        sample: the most clients whose labels are counted. These clients are then the reference.

    Returns:
        The measures. Clients without examples count in sizes and not in label measures.
    """
    n = population.num_clients
    emd = js = None
    counted = n
    if population.clients.label_counts is not None:
        clients = streams.choose(streams.keys(seed, "measures"), n, min(n, sample))
        counted = len(clients)
        _, mean = label_distances(population.clients.label_counts(clients))
        emd, js = mean.get("label_emd"), mean.get("label_js")
    return PartitionMeasures(
        **size_measures(population),
        label_emd=emd,
        label_js=js,
        estimated_from=counted,
    )


def partition_table(population: Population, most: int = 400, most_counts: int = 20_000) -> dict[str, Any]:
    """Return the data of a partition's chart: size percentiles of all clients, and some clients in full.

    Args:
        population: the clients.
        most: clients shown in full at most, evenly spaced over their indices.
        most_counts: label counts shown at most (fewer clients where there are many classes).

    Returns:
        `clients` in all; `size_percentiles`, the 101 percentiles of all sizes; of the clients `shown`: `names`,
        `sizes`, and `label_counts` (a row a client, a count a class), None unless classification.

    Example:
        >>> from clients.sources.custom import custom_population
        >>> import torch
        >>> data = [(torch.zeros(2, 1), torch.tensor([0, 1])), (torch.zeros(1, 1), torch.tensor([1]))]
        >>> table = partition_table(custom_population(data.__getitem__, [2, 1], outputs=2))
        >>> table["sizes"], table["label_counts"]
        ([2, 1], [[1, 1], [0, 1]])
    """
    n, counts = population.num_clients, population.clients.label_counts
    shown = min(n, most if counts is None else max(1, min(most, most_counts // population.outputs)))
    clients = evenly_spaced(n, shown)
    return {
        "clients": n,
        "size_percentiles": np.percentile(population.sizes, np.arange(101)).tolist(),
        "shown": clients.tolist(),
        "names": [population.federation.client_name(int(client)) for client in clients],
        "sizes": population.sizes[clients].tolist(),
        "label_counts": None if counts is None else counts(clients).tolist(),
    }
