"""The synthetic classification federation of FedProx (Li et al. 2020, MLSys), made client by client on demand.

Client k has n_k = floor(exp(4 + 2 z)) + 50 examples and draws, with standard deviations alpha and beta,
u_k ~ N(0, alpha), B_k ~ N(0, beta), then W_k (features x classes) and b_k with entries N(u_k, 1), and
v_k with entries N(B_k, 1). An example is x ~ N(v_k, diag(j^-1.2)), y = argmax(W_k' x + b_k). With
`iid` v_k = 0 and all clients share one W and b with entries N(0, 1).

As in the authors' code alpha and beta are standard deviations (the paper writes them as variances) and
floor(0.9 n_k) examples are for training (the paper says 80/20). Deviation: of the tenth a client holds
out, the first half (rounded up) is its test set and the rest is for validation, both drawn apart from the
training examples instead of shuffled out of them, which has the same law.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64, I32, I64
from clients.core.examples import Examples
from clients.core.on_demand import ExampleLayout, Made, on_demand_cohort, stays_resident
from clients.core.population import ClientData, Population
from clients.core.population_parts import CentralData, CentralExamples, ExampleSpec, FederationFacts
from clients.core.ragged import label_counts_of, offsets_of, positions
from clients.sources.options import SyntheticOptions

CENTRAL_CLIENTS = 1000
"""Central validation and test examples come from at most this many clients, chosen by seed."""
_BLOCK_ROWS = 2048  # examples made at a time: few enough to stay in the processor's cache
_BLOCK_CLIENTS = 65536


def synthetic_population(options: SyntheticOptions, *, seed: int, dtype: torch.dtype = torch.float32) -> Population:
    """Make the population; its clients are made on demand.

    Args:
        options: the federation.
        seed: root seed. A client depends on it and on its own index alone.
        dtype: of the features (made in float64).

    Returns:
        A classification population. It takes 12 bytes a client, plus the data of the clients that are made.
    """
    totals = device_sizes(options, seed)
    sizes = _train_sizes(totals)
    layout = ExampleLayout((options.features,), (), dtype, torch.int64)
    numpy_dtype = np.dtype(str(dtype).removeprefix("torch."))

    def make(clients: I64, purpose: str, first: I64, counts: I64) -> tuple[Tensor, Tensor]:
        features = np.empty((int(counts.sum()), options.features), numpy_dtype)
        targets = np.empty(len(features), np.int64)
        for where, x, y in _examples(options, seed, clients, purpose, first, counts):
            features[where], targets[where] = x, y
        return torch.from_numpy(features), torch.from_numpy(targets)

    def train(clients: I64) -> Made:
        return Made(*make(clients, "train", np.zeros_like(clients), sizes[clients].astype(np.int64)))

    def test(clients: I64) -> Made:
        return Made(*make(clients, "held out", np.zeros_like(clients), _test_sizes(totals[clients]).astype(np.int64)))

    def validation(clients: I64) -> Made:
        first = _test_sizes(totals[clients]).astype(np.int64)
        held = (totals[clients] - sizes[clients]).astype(np.int64)
        return Made(*make(clients, "held out", first, held - first))

    def central(made: Made) -> CentralExamples:
        return CentralExamples(Examples(made.features, made.targets))

    def counts(clients: I64) -> I64:
        found = np.zeros((len(clients), options.classes), np.int64)
        own = sizes[clients].astype(np.int64)
        owner = np.repeat(np.arange(len(clients)), own)
        for where, _, y in _examples(options, seed, clients, "train", np.zeros_like(clients), own):
            np.add.at(found, (owner[where], y), 1)
        return found

    cohort = on_demand_cohort(train, sizes, layout)
    some = streams.choose(
        streams.keys(seed, "synthetic/central"), options.clients, min(options.clients, CENTRAL_CLIENTS)
    )
    return Population(
        spec=ExampleSpec(task="classification", feature_shape=(options.features,), outputs=options.classes),
        federation=FederationFacts(
            name="synthetic_iid" if options.iid else f"synthetic({options.alpha:g}, {options.beta:g})",
            sizes=sizes,
            record={"central_examples_from_clients": len(some)},
        ),
        clients=ClientData(
            cohort=cohort,
            held_out=on_demand_cohort(test, _test_sizes(totals), layout),
            label_counts=label_counts_of(cohort, options.classes) if stays_resident(sizes, layout) else counts,
        ),
        central=CentralData(validation=central(validation(some)), test=central(test(some))),
    )


def device_sizes(options: SyntheticOptions, seed: int) -> I32:
    """Return n_k, training and held-out examples of each client together: int32 (N,).

    A given number of training examples is topped up to the smallest n_k of which floor(0.9 n_k) is that number.
    """
    sizes = np.empty(options.clients, np.int32)
    if options.sizes != "lognormal":
        sizes[:] = -(-10 * options.sizes // 9)
        return sizes
    for start in range(0, options.clients, _BLOCK_CLIENTS):  # in blocks, so that a million clients need little memory
        clients = np.arange(start, min(start + _BLOCK_CLIENTS, options.clients))
        z = streams.normals(streams.keys(seed, "synthetic/size", clients), 1)[:, 0]
        sizes[start : start + len(clients)] = np.floor(np.exp(4.0 + 2.0 * z)) + 50.0
    return sizes


def _train_sizes(totals: I32) -> I32:
    return totals - (totals + 9) // 10  # floor(0.9 n), in no more memory than the sizes themselves


def _test_sizes(totals: I32) -> I32:
    held = (totals + 9) // 10
    return held - held // 2


def _devices(options: SyntheticOptions, seed: int, clients: I64) -> tuple[F64, F64, F64]:
    """Return v (K, features), W (K, features, classes) and b (K, classes) of some clients."""
    d, c = options.features, options.classes
    if options.iid:
        shared = streams.normals(streams.keys(seed, "synthetic/shared"), d * c + c)
        w = np.broadcast_to(shared[: d * c].reshape(d, c), (len(clients), d, c))
        return np.zeros((len(clients), d)), w, np.broadcast_to(shared[d * c :], (len(clients), c))
    z = streams.normals(streams.keys(seed, "synthetic/device", clients), 2 + d + d * c + c)
    u, spread = options.alpha * z[:, :1], options.beta * z[:, 1:2]
    model = u + z[:, 2 + d :]
    return spread + z[:, 2 : 2 + d], model[:, : d * c].reshape(-1, d, c), model[:, d * c :]


def _examples(
    options: SyntheticOptions, seed: int, clients: I64, purpose: str, first: I64, counts: I64
) -> Iterator[tuple[slice, F64, I64]]:
    """Make examples first[k], first[k] + 1, ... of each client, in blocks: where they go, features and labels.

    An example's numbers come from (seed, purpose, client, its index), and depend on nothing else.
    """
    deviation = np.arange(1, options.features + 1) ** -0.6  # variance j^-1.2
    v, w, b = _devices(options, seed, clients)
    offsets = offsets_of(counts)
    owner = np.repeat(np.arange(len(clients)), counts)
    index = positions(first, counts)
    for start in range(0, int(offsets[-1]), _BLOCK_ROWS):
        where = slice(start, min(start + _BLOCK_ROWS, int(offsets[-1])))
        own = owner[where]
        key = streams.keys(seed, f"synthetic/{purpose}", clients[own], index[where])
        x = streams.normals(key, options.features)
        x *= deviation
        x += v[own]
        y = np.empty(len(x), np.int64)
        for k in range(int(own[0]), int(own[-1]) + 1):
            mine = slice(max(int(offsets[k]) - start, 0), max(min(int(offsets[k + 1]) - start, len(x)), 0))
            y[mine] = (x[mine] @ w[k] + b[k]).argmax(axis=1)
        yield where, x, y
