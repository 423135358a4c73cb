"""Partitions in which clients differ by label: Dirichlet laws, shards, similarity.

Every function here takes labels and a generator and returns the owner (a client index) of every
example, so its partition is exhaustive and disjoint by construction.
"""

from __future__ import annotations

import numpy as np

from clients.core.arrays import F64, I64
from clients.core.errors import PartitionError

MAX_DRAWS = 200
"""The most draws of `over_clients` that look for one with the minimum size."""


def near_equal_sizes(examples: int, clients: int) -> I64:
    """Split `examples` into `clients` sizes that differ by at most one, larger ones first, shape (clients,).

    Example:
        >>> near_equal_sizes(10, 4).tolist()
        [3, 3, 2, 2]
    """
    return np.full(clients, examples // clients, np.int64) + (np.arange(clients) < examples % clients)


def client_laws(labels: I64, clients: int, concentration: float, by_prior: bool, generator: np.random.Generator) -> F64:
    """Draw one label law a client.

    Args:
        labels: int64 (n,), at least 0.
        clients: how many laws, K.
        concentration: alpha.
        by_prior: True draws from Dir(alpha p), p the frequencies of the labels, so that the concentrations add up to
            alpha (Hsu et al. 2019, section 3); False from Dir(alpha 1) over the classes that occur.
        generator: source of randomness.

    Returns:
        float64 (K, C), C = largest label + 1; classes that never occur have probability 0.
    """
    counts = np.bincount(labels)
    present = counts > 0
    prior = counts[present] / len(labels)
    laws = np.zeros((clients, len(counts)))
    laws[:, present] = generator.dirichlet(concentration * (prior if by_prior else np.ones_like(prior)), size=clients)
    return laws


def owners_by_client_laws(labels: I64, laws: F64, generator: np.random.Generator) -> I64:
    """Deal examples without replacement to clients of near equal size, each drawing labels from its law.

    Clients are served in a random order. A client draws labels one after the other; once a class has
    no examples left, the law is renormalised over the others. If it has no weight there, the client takes the remaining
    examples in proportion. Later clients therefore follow their law less closely: every example is dealt exactly once.

    Args:
        labels: int64 (n,).
        laws: float64 (K, C), rows adding up to 1.
        generator: source of randomness.

    Returns:
        int64 (n,), the client of every example.
    """
    pool = np.bincount(labels, minlength=laws.shape[1])
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by class, at random within a class
    dealt = np.concatenate(([0], np.cumsum(pool)[:-1]))
    owners = np.empty(len(labels), np.int64)
    sizes = near_equal_sizes(len(labels), len(laws))
    for client in generator.permutation(len(laws)):
        counts = draw_counts(int(sizes[client]), laws[client], pool, generator)
        for label in np.flatnonzero(counts):
            owners[order[dealt[label] : dealt[label] + counts[label]]] = client
        dealt += counts
        pool = pool - counts
    return owners


def draw_counts(size: int, law: F64, pool: I64, generator: np.random.Generator) -> I64:
    """Draw `size` labels from `law`, never more of a class than its pool holds, shape (C,).

    Drawing all at once, keeping what the pools hold and drawing the rest again has the law of drawing one at a time
    and renormalising when a class runs out: both reject a label that is used up.
    """
    counts = np.zeros_like(pool)
    while (missing := size - int(counts.sum())) > 0:
        left = pool - counts
        weights = np.where(left > 0, law, 0.0)
        if weights.sum() <= 0.0:
            weights = left.astype(np.float64)
        counts += np.minimum(generator.multinomial(missing, weights / weights.sum()), left)
    return counts


def owners_over_clients(
    labels: I64, clients: int, concentration: float, min_size: int, generator: np.random.Generator
) -> tuple[I64, F64]:
    """Deal each class over the clients by its own Dir(alpha 1) (Yurochkin et al. 2019; NIID-Bench, Li et al. 2022).

    The whole partition is redrawn until every client has `min_size` examples. NIID-Bench has one more rule: a client
    that already holds an equal share gets no more of the later classes. It is left out, since it makes the result
    depend on the order of the classes.

    Args:
        labels: int64 (n,).
        clients: how many, K.
        concentration: alpha.
        min_size: examples every client must get.
        generator: source of randomness.

    Returns:
        The client of every example, int64 (n,), and the laws: float64 (K, C), the drawn shares of every class turned
        into each client's label law.

    Raises:
        PartitionError: no draw gave every client `min_size` examples.
    """
    pool = np.bincount(labels)
    smallest = -1
    for _ in range(MAX_DRAWS):
        shares = generator.dirichlet(np.full(clients, concentration), size=len(pool))
        cuts = np.rint(np.cumsum(shares, axis=1) * pool[:, None]).astype(np.int64)
        cuts[:, -1] = pool
        counts = np.diff(cuts, axis=1, prepend=0)
        smallest = max(smallest, int(counts.sum(axis=0).min()))
        if smallest >= min_size:
            break
    else:
        raise PartitionError(
            "min_size",
            f"{MAX_DRAWS} draws over {clients} clients at concentration {concentration} "
            f"never gave every client {min_size} examples; the best draw gave {smallest}",
            fix=f"min_size = {smallest} fits; or take fewer clients or a larger concentration.",
        )
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    owners = np.empty(len(labels), np.int64)
    owners[order] = np.repeat(np.tile(np.arange(clients), len(pool)), counts.ravel())
    mass = shares.T * pool
    total = mass.sum(axis=1, keepdims=True)
    laws = np.divide(mass, total, out=np.tile(pool / len(labels), (clients, 1)), where=total > 0)
    return owners, laws


def owners_by_shards(labels: I64, clients: int, shards_per_client: int, generator: np.random.Generator) -> I64:
    """Sort by label, cut into near equal shards and deal them at random (McMahan et al. 2017, section 3).

    Examples of one label are first put in random order, so the order in the file has no effect.
    """
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    shards = clients * shards_per_client
    client_of_shard = generator.permutation(np.repeat(np.arange(clients), shards_per_client))
    owners = np.empty(len(labels), np.int64)
    owners[order] = np.repeat(client_of_shard, near_equal_sizes(len(labels), shards))
    return owners


def owners_by_similarity(labels: I64, clients: int, similarity: float, generator: np.random.Generator) -> I64:
    """Deal the share `similarity` of all examples at random and the rest sorted by label (Karimireddy et al. 2020).

    Client k gets an equal part of the random share and the k-th block of the sorted rest (their section 7, "s%
    similarity").
    """
    order = generator.permutation(len(labels))
    shared = round(similarity * len(labels))
    rest = order[shared:]
    rest = rest[np.argsort(labels[rest], kind="stable")]
    owners = np.empty(len(labels), np.int64)
    # Left-over examples of one part go to the first clients, of the other to the last: sizes differ by at most one.
    owners[order[:shared]] = np.repeat(np.arange(clients), near_equal_sizes(shared, clients)[::-1])
    owners[rest] = np.repeat(np.arange(clients), near_equal_sizes(len(rest), clients))
    return owners
