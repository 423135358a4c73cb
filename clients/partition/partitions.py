"""Partitions of pooled data, by kind: which client holds which example.

A partition is exhaustive and disjoint by construction: a kind returns the owner of every example, and
the owners are converted to compressed rows. All randomness comes from `streams.generator(seed, "partition/...")`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64, Array
from clients.core.errors import PartitionError, unknown_name
from clients.partition import label_skew
from clients.partition.calibrated import calibrated_owners
from clients.partition.label_skew import near_equal_sizes
from clients.partition.options import (
    CalibratedOptions,
    DealtOptions,
    DirichletOptions,
    IidOptions,
    NaturalOptions,
    PartitionOptions,
    QuantityOptions,
    ShardsOptions,
    SimilarityOptions,
)
from clients.partition.table import PARTITIONS


@dataclass(frozen=True)
class Partition:
    """An exhaustive, disjoint assignment of examples to clients.

    Attributes:
        rows: int64 (n,), the examples in order of client, increasing within a client.
        offsets: int64 (K + 1,); client k owns `rows[offsets[k]:offsets[k + 1]]`.
        names: client names where the data give them, else None.
        laws: float64 (K, C), the drawn label laws, for kinds that draw them. A client's actual frequencies differ.
    """

    rows: I64
    offsets: I64
    names: tuple[str, ...] | None = None
    laws: F64 | None = None

    @property
    def sizes(self) -> I64:
        """Examples of each client, shape (K,)."""
        return np.diff(self.offsets)


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Examples that a partition deals out.

    Attributes:
        targets: (n, ...); int (n,) labels for kinds that use labels.
        keys: arrays (n,) that a `natural` partition may use, by name.
        features: (n, ...), or None.
        seed: root seed.
    """

    targets: Array
    keys: Mapping[str, Array]
    features: Array | None
    seed: int


@dataclass(frozen=True)
class Owners:
    """The owner of each example.

    Attributes:
        client: its owner, int64 (n,).
        clients: number of clients, K.
        names: of the clients, where the data give them.
        laws: as in `Partition`.
    """

    client: I64
    clients: int
    names: tuple[str, ...] | None = None
    laws: F64 | None = None


def iid(options: IidOptions, pooled: Pooled) -> Owners:
    """Deal examples at random, in near-equal numbers."""
    n, clients = len(pooled.targets), options.clients
    order = streams.generator(pooled.seed, "partition/iid").permutation(n)
    owners = np.empty(n, np.int64)
    owners[order] = np.repeat(np.arange(clients), near_equal_sizes(n, clients))
    return Owners(owners, clients)


def dirichlet(options: DirichletOptions, pooled: Pooled) -> Owners:
    """Deal examples by random laws of labels."""
    labels = _labels(options.kind, pooled.targets)
    _check_min_size(options.min_size, options.clients, len(labels))
    generator = streams.generator(pooled.seed, f"partition/dirichlet/{options.convention}")
    if options.convention == "over_clients":
        owners, laws = label_skew.owners_over_clients(
            labels, options.clients, options.concentration, options.min_size, generator
        )
        return Owners(owners, options.clients, laws=laws)
    by_prior = options.convention == "prior"
    laws = label_skew.client_laws(labels, options.clients, options.concentration, by_prior, generator)
    return Owners(label_skew.owners_by_client_laws(labels, laws, generator), options.clients, laws=laws)


def shards(options: ShardsOptions, pooled: Pooled) -> Owners:
    """Deal shards of the examples in order of their labels."""
    labels = _labels(options.kind, pooled.targets)
    count = options.clients * options.shards_per_client
    if count > len(labels):
        raise PartitionError(
            "shards_per_client",
            f"{options.clients} clients of {options.shards_per_client} shards are {count} shards "
            f"of {len(labels)} examples",
            fix=f"At most {len(labels) // options.clients} shards a client fit.",
        )
    generator = streams.generator(pooled.seed, "partition/shards")
    owners = label_skew.owners_by_shards(labels, options.clients, options.shards_per_client, generator)
    return Owners(owners, options.clients)


def quantity(options: QuantityOptions, pooled: Pooled) -> Owners:
    """Deal examples at random, in unequal numbers."""
    n, clients = len(pooled.targets), options.clients
    _check_min_size(options.min_size, clients, n)
    generator = streams.generator(pooled.seed, f"partition/quantity/{options.law}")
    if options.law == "lognormal":
        log_share = options.sigma * generator.standard_normal(clients)
    else:
        log_share = -options.exponent * np.log1p(generator.permutation(clients))
    share = np.exp(log_share - log_share.max())
    free = n - options.min_size * clients
    exact = free * share / share.sum()
    sizes = np.floor(exact).astype(np.int64)
    largest_remainder = np.argsort(sizes - exact, kind="stable")[: free - int(sizes.sum())]
    sizes[largest_remainder] += 1
    owners = np.empty(n, np.int64)
    owners[generator.permutation(n)] = np.repeat(np.arange(clients), sizes + options.min_size)
    return Owners(owners, clients)


def similarity(options: SimilarityOptions, pooled: Pooled) -> Owners:
    """Deal a share at random, the rest in order of labels."""
    labels = _labels(options.kind, pooled.targets)
    generator = streams.generator(pooled.seed, "partition/similarity")
    owners = label_skew.owners_by_similarity(labels, options.clients, options.similarity, generator)
    return Owners(owners, options.clients)


def natural(options: NaturalOptions, pooled: Pooled) -> Owners:
    """Give each value of a key a client of its own."""
    keys = pooled.keys
    if not options.key and keys:
        raise PartitionError(
            "key", f"is missing: these data name no clients of their own. All: {', '.join(sorted(keys))}"
        )
    if options.key not in keys:
        known = unknown_name(options.key, sorted(keys), "a key of these data") if keys else "these data have no keys"
        raise PartitionError("key", known)
    values, owners = np.unique(keys[options.key], return_inverse=True)
    return Owners(owners.astype(np.int64), len(values), names=tuple(str(v) for v in values))


def calibrated(options: CalibratedOptions, pooled: Pooled) -> Owners:
    """Find the owners for which clients differ by the given values."""
    targets = pooled.targets
    _check_min_size(options.min_size, options.clients, len(targets))
    has_labels = targets.ndim == 1 and targets.dtype.kind in "iu"
    labels = np.zeros(len(targets), np.int64)
    if options.label_axis is not None or has_labels:
        labels = _labels(options.kind, targets)
    if options.feature_shift is not None and pooled.features is None:
        raise PartitionError("feature_shift", "needs features, and these data have none here")
    return Owners(calibrated_owners(options, labels, pooled.features, pooled.seed), options.clients)


def _labels(kind: str, targets: Array) -> I64:
    """Return the class labels; refuse targets that are not labels."""
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise PartitionError(
            "kind", f"{kind!r} needs class labels, and these targets are numbers", fix="iid, quantity and natural work."
        )
    return targets.astype(np.int64)


def _check_min_size(min_size: int, clients: int, examples: int) -> None:
    if min_size * clients > examples:
        raise PartitionError(
            "min_size",
            f"{clients} clients of at least {min_size} examples need {min_size * clients}, and there are {examples}",
            fix=f"min_size = {examples // clients} or clients = {examples // min_size} fits.",
        )


def partition(
    options: PartitionOptions, targets: Array, keys: Mapping[str, Array], seed: int, features: Array | None = None
) -> Partition:
    """Assign every example to one client.

    Args:
        options: one of `PARTITIONS`.
        targets: (n, ...) targets; int (n,) labels for kinds that use labels.
        keys: arrays (n,) that a `natural` partition may use, by name.
        seed: root seed; the same seed gives the same partition.
        features: (n, ...), for a calibrated partition with a feature shift.

    Returns:
        The partition; its clients' rows are indices into `targets`.

    Raises:
        PartitionError: the partition does not exist; the message has values that fit.

    Example:
        >>> p = partition(IidOptions(clients=2), np.zeros(5, np.int64), {}, seed=0)
        >>> p.sizes.tolist(), sorted(p.rows.tolist())
        ([3, 2], [0, 1, 2, 3, 4])
    """
    if isinstance(options, DealtOptions) and options.clients > len(targets):
        raise PartitionError(
            "clients",
            f"{options.clients} clients cannot share {len(targets)} examples",
            fix=f"At most {len(targets)} clients fit.",
        )
    pooled = Pooled(targets=targets, keys=keys, features=features, seed=seed)
    owners: Owners = PARTITIONS.row_of(options).owners(options, pooled)
    offsets = np.zeros(owners.clients + 1, np.int64)
    np.cumsum(np.bincount(owners.client, minlength=owners.clients), out=offsets[1:])
    rows = np.argsort(owners.client, kind="stable").astype(np.int64)
    return Partition(rows, offsets, owners.names, owners.laws)
