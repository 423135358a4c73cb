"""Which client holds which example: the partitions of pooled data, by kind.

A partition is exhaustive and disjoint by construction: a kind names the owner of every example, and
the owners are turned into compressed rows. All randomness comes from `streams.generator(seed, "partition/...")`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64, Array
from clients.core.errors import PartitionError, require, unknown_name
from clients.core.options import STRICT
from clients.partition import label_skew
from clients.partition.calibrated import RequestedOptions, owners_as_requested
from clients.partition.label_skew import near_equal_sizes

Keys = Mapping[str, Array]


@dataclass(frozen=True)
class Partition:
    """An exhaustive, disjoint assignment of examples to clients.

    Attributes:
        rows: int64 (n,), the examples in order of client, increasing within a client.
        offsets: int64 (K + 1,); client k owns `rows[offsets[k]:offsets[k + 1]]`.
        names: client names where the data give them, else None.
        laws: float64 (K, C), the label laws that were drawn, where the kind draws some. What a client realises differs.
    """

    rows: I64
    offsets: I64
    names: tuple[str, ...] | None = None
    laws: F64 | None = None

    @property
    def sizes(self) -> I64:
        """Examples of each client, shape (K,)."""
        return np.diff(self.offsets)


def _check_clients(clients: int) -> None:
    require(clients >= 1, "clients", f"must be at least 1, got {clients}")


@dataclass(frozen=True, kw_only=True)
class IidOptions:
    """Examples dealt at random, sizes equal to within one."""

    kind: Literal["iid"] = "iid"
    clients: int
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        _check_clients(self.clients)


@dataclass(frozen=True, kw_only=True)
class DirichletOptions:
    """Label skew by Dirichlet laws.

    Attributes:
        clients: how many.
        concentration: alpha > 0; small is skewed.
        convention: "prior": a client's label law is Dir(alpha p), p the label frequencies (Hsu et al. 2019);
            "uniform": Dir(alpha 1) over classes for each client; "over_clients": Dir(alpha 1) over clients for each
            class (NIID-Bench), which makes sizes unequal too. The first two give sizes equal to within one.
        min_size: examples every client gets at least.
    """

    kind: Literal["dirichlet"] = "dirichlet"
    clients: int
    concentration: float
    convention: Literal["prior", "uniform", "over_clients"] = "prior"
    min_size: int = 1
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        _check_clients(self.clients)
        ok = 0 < self.concentration < np.inf
        require(ok, "concentration", f"must be a finite number > 0, got {self.concentration}")
        require(self.min_size >= 0, "min_size", f"must be at least 0, got {self.min_size}")


@dataclass(frozen=True, kw_only=True)
class ShardsOptions:
    """Examples sorted by label and cut into shards, some of which each client gets (McMahan et al. 2017)."""

    kind: Literal["shards"] = "shards"
    clients: int
    shards_per_client: int = 2
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        _check_clients(self.clients)
        require(self.shards_per_client >= 1, "shards_per_client", f"must be at least 1, got {self.shards_per_client}")


@dataclass(frozen=True, kw_only=True)
class QuantityOptions:
    """Examples dealt at random, sizes unequal.

    Attributes:
        clients: how many.
        law: "lognormal": shares proportional to exp(sigma z), z standard normal; "power": shares proportional to
            rank^-exponent, ranks dealt to clients at random.
        sigma: of the log-normal law, >= 0.
        exponent: of the power law, >= 0.
        min_size: examples every client gets before the rest is shared out.
    """

    kind: Literal["quantity"] = "quantity"
    clients: int
    law: Literal["lognormal", "power"] = "lognormal"
    sigma: float = 1.0
    exponent: float = 1.0
    min_size: int = 1
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        _check_clients(self.clients)
        for name in ("sigma", "exponent"):
            value = getattr(self, name)
            require(0 <= value < np.inf, name, f"must be a finite number >= 0, got {value}")
        require(self.min_size >= 0, "min_size", f"must be at least 0, got {self.min_size}")


@dataclass(frozen=True, kw_only=True)
class SimilarityOptions:
    """The share `similarity` (0 to 1) dealt at random, the rest sorted by label (Karimireddy et al. 2020)."""

    kind: Literal["similarity"] = "similarity"
    clients: int
    similarity: float
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        _check_clients(self.clients)
        require(0 <= self.similarity <= 1, "similarity", f"must be from 0 to 1, got {self.similarity}")


@dataclass(frozen=True, kw_only=True)
class NaturalOptions:
    """One client for every distinct value of the array called `key` in the data, in sorted order.

    Attributes:
        key: the array; empty for data that bring their own clients, or say which array names them.
    """

    kind: Literal["natural"] = "natural"
    key: str = ""
    __pydantic_config__: ClassVar = STRICT


PartitionOptions = (
    IidOptions
    | DirichletOptions
    | ShardsOptions
    | QuantityOptions
    | SimilarityOptions
    | NaturalOptions
    | RequestedOptions
)

Owners = tuple[I64, F64 | None]


def _iid(options: IidOptions, targets: Array, seed: int) -> Owners:
    order = streams.generator(seed, "partition/iid").permutation(len(targets))
    owners = np.empty(len(targets), np.int64)
    owners[order] = np.repeat(np.arange(options.clients), near_equal_sizes(len(targets), options.clients))
    return owners, None


def _dirichlet(options: DirichletOptions, targets: Array, seed: int) -> Owners:
    labels = _labels("dirichlet", targets)
    _check_min_size(options.min_size, options.clients, len(labels))
    generator = streams.generator(seed, f"partition/dirichlet/{options.convention}")
    if options.convention == "over_clients":
        return label_skew.owners_over_clients(
            labels, options.clients, options.concentration, options.min_size, generator
        )
    by_prior = options.convention == "prior"
    laws = label_skew.client_laws(labels, options.clients, options.concentration, by_prior, generator)
    return label_skew.owners_by_client_laws(labels, laws, generator), laws


def _shards(options: ShardsOptions, targets: Array, seed: int) -> Owners:
    labels = _labels("shards", targets)
    shards = options.clients * options.shards_per_client
    if shards > len(labels):
        raise PartitionError(
            "shards_per_client",
            f"{options.clients} clients of {options.shards_per_client} shards are {shards} shards "
            f"of {len(labels)} examples",
            fix=f"At most {len(labels) // options.clients} shards a client fit.",
        )
    generator = streams.generator(seed, "partition/shards")
    return label_skew.owners_by_shards(labels, options.clients, options.shards_per_client, generator), None


def _quantity(options: QuantityOptions, targets: Array, seed: int) -> Owners:
    n, clients = len(targets), options.clients
    _check_min_size(options.min_size, clients, n)
    generator = streams.generator(seed, f"partition/quantity/{options.law}")
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
    return owners, None


def _similarity(options: SimilarityOptions, targets: Array, seed: int) -> Owners:
    labels = _labels("similarity", targets)
    generator = streams.generator(seed, "partition/similarity")
    return label_skew.owners_by_similarity(labels, options.clients, options.similarity, generator), None


def _requested(options: RequestedOptions, targets: Array, features: Array | None, seed: int) -> Owners:
    _check_min_size(options.min_size, options.clients, len(targets))
    has_labels = targets.ndim == 1 and targets.dtype.kind in "iu"
    labels = np.zeros(len(targets), np.int64)
    if options.label_measure is not None or has_labels:
        labels = _labels("requested", targets)
    if options.feature_shift is not None and features is None:
        raise PartitionError("feature_shift", "needs features, and these data have none here")
    return owners_as_requested(options, labels, features, seed), None


def _labels(kind: str, targets: Array) -> I64:
    """Return the class labels, or say that this kind needs some."""
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


PARTITIONS: dict[str, type[Any]] = {
    "iid": IidOptions,
    "dirichlet": DirichletOptions,
    "shards": ShardsOptions,
    "quantity": QuantityOptions,
    "similarity": SimilarityOptions,
    "natural": NaturalOptions,
    "requested": RequestedOptions,
}

_OWNERS: dict[str, Callable[[Any, Array, int], Owners]] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "shards": _shards,
    "quantity": _quantity,
    "similarity": _similarity,
}


def partition(
    options: PartitionOptions, targets: Array, keys: Keys, seed: int, features: Array | None = None
) -> Partition:
    """Assign every example to one client.

    Args:
        options: one of `PARTITIONS`.
        targets: (n, ...) targets; int (n,) labels where the kind looks at labels.
        keys: arrays (n,) a `natural` partition may go by, by name.
        seed: root seed; the same seed gives the same partition.
        features: (n, ...), for a `requested` partition that asks for a feature shift.

    Returns:
        The partition; its clients' rows are indices into `targets`.

    Raises:
        PartitionError: the request cannot be met; the message says what would fit.

    Example:
        >>> p = partition(IidOptions(clients=2), np.zeros(5, np.int64), {}, seed=0)
        >>> p.sizes.tolist(), sorted(p.rows.tolist())
        ([3, 2], [0, 1, 2, 3, 4])
    """
    if isinstance(options, NaturalOptions):
        if not options.key and keys:
            raise PartitionError("key", f"must name one of {', '.join(sorted(keys))}: nothing else says who holds what")
        if options.key not in keys:
            known = (
                unknown_name(options.key, sorted(keys), "a key of these data") if keys else "these data have no keys"
            )
            raise PartitionError("key", known)
        values, owners = np.unique(keys[options.key], return_inverse=True)
        return _by_owner(owners.astype(np.int64), len(values), tuple(str(v) for v in values), None)
    if options.clients > len(targets):
        raise PartitionError(
            "clients",
            f"{options.clients} clients cannot share {len(targets)} examples",
            fix=f"At most {len(targets)} clients fit.",
        )
    if isinstance(options, RequestedOptions):
        owners, laws = _requested(options, targets, features, seed)
    else:
        owners, laws = _OWNERS[options.kind](options, targets, seed)
    return _by_owner(owners, options.clients, None, laws)


def _by_owner(owners: I64, clients: int, names: tuple[str, ...] | None, laws: F64 | None) -> Partition:
    """Turn the owner of every example into compressed rows."""
    offsets = np.zeros(clients + 1, np.int64)
    np.cumsum(np.bincount(owners, minlength=clients), out=offsets[1:])
    return Partition(np.argsort(owners, kind="stable").astype(np.int64), offsets, names, laws)
