"""How unequal clients are: their sizes, and how far their labels are from everyone's.

Both label measures compare p_k, the label frequencies of client k, with p, those of all clients together, so
clients are weighed by their examples throughout. They are of the labels clients hold, not of any law these were
drawn from: small clients differ from p by chance alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clients import streams
from clients.population import Population

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PartitionMeasures:
    """What a run says of its clients before it starts.

    Attributes:
        clients: how many, N.
        examples: training examples in all.
        smallest: size of the smallest client.
        median: median size.
        largest: size of the largest client.
        label_emd: mean over examples of their client's `label_emd`, in [0, 2]; None unless classification.
        label_js: the same of `label_js`, in bits, in [0, 1].
        estimated_from: clients whose labels were looked at; below `clients`, label measures are estimates.
    """

    clients: int
    examples: int
    smallest: int
    median: float
    largest: int
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
    bounded: F64 = np.clip(divergence, 0.0, 1.0)  # rounding may leave either end
    return bounded


def _relative(p: F64, m: F64) -> F64:
    """Return p log2(p / m), 0 where p is 0."""
    ratio = np.divide(p, m, out=np.ones_like(p), where=p > 0)
    return p * np.log2(ratio)


def partition_measures(population: Population, seed: int, sample: int = 2000) -> PartitionMeasures:
    """Measure a population; label measures of more than `sample` clients are estimated from that many.

    Args:
        population: what to measure.
        seed: root seed, which chooses the sample.
        sample: most clients whose labels are looked at. Their own labels together stand for everyone's.

    Returns:
        The measures. Clients without examples count in sizes and not in label measures.
    """
    sizes, n = population.sizes, population.num_clients
    emd = js = None
    looked_at = n
    if population.label_counts is not None:
        clients = streams.choose(streams.keys(seed, "measures"), n, min(n, sample))
        looked_at = len(clients)
        counts = population.label_counts(clients)
        counts = counts[counts.sum(axis=1) > 0].astype(np.float64)
        if len(counts):
            weights = counts.sum(axis=1)
            laws, reference = counts / weights[:, None], counts.sum(axis=0) / weights.sum()
            emd = float(np.average(label_emd(laws, reference), weights=weights))
            js = float(np.average(label_js(laws, reference), weights=weights))
    return PartitionMeasures(
        clients=n,
        examples=population.num_examples,
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        label_emd=emd,
        label_js=js,
        estimated_from=looked_at,
    )


def partition_table(population: Population, most: int = 400, most_counts: int = 20_000) -> dict[str, Any]:
    """Return what can be drawn of a partition: sizes of all clients in short, and some clients in full.

    Args:
        population: whose.
        most: clients shown in full at most, evenly spaced over their indices.
        most_counts: label counts shown at most (fewer clients where there are many classes).

    Returns:
        `clients` in all; `size_percentiles`, the 101 percentiles of all sizes; of the clients `shown`: `names`,
        `sizes`, and `label_counts` (a row a client, a count a class), None unless classification.

    Example:
        >>> from clients.custom import custom_population
        >>> import torch
        >>> data = [(torch.zeros(2, 1), torch.tensor([0, 1])), (torch.zeros(1, 1), torch.tensor([1]))]
        >>> table = partition_table(custom_population(data.__getitem__, [2, 1], outputs=2))
        >>> table["sizes"], table["label_counts"]
        ([2, 1], [[1, 1], [0, 1]])
    """
    n, counts = population.num_clients, population.label_counts
    shown = min(n, most if counts is None else max(1, min(most, most_counts // population.outputs)))
    clients = np.linspace(0, n - 1, shown).round().astype(np.int64)
    return {
        "clients": n,
        "size_percentiles": np.percentile(population.sizes, np.arange(101)).tolist(),
        "shown": clients.tolist(),
        "names": [population.client_name(int(client)) for client in clients],
        "sizes": population.sizes[clients].tolist(),
        "label_counts": None if counts is None else counts(clients).tolist(),
    }
