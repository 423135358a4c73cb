"""Makes a population of labelled rows: of the rows' own clients, or of those that a partition deals them to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import I64, Array
from clients.core.channels import Channel
from clients.core.errors import PartitionError
from clients.core.examples import Cohort, Examples, Task
from clients.core.population import ClientData, Population
from clients.core.population_parts import CentralData, CentralExamples, ExampleSpec, FederationFacts
from clients.core.ragged import cohort_of, label_counts_of, offsets_of
from clients.partition.options import NaturalOptions, PartitionOptions
from clients.partition.partitions import partition
from clients.partition.table import PARTITIONS
from clients.tables.rows.parts import I8, TEST, TRAINING, VALIDATION, random_parts


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """Rows with labels, encoded and split.

    Attributes:
        name: for people.
        task: classification or regression.
        features: numbers (n, *feature_shape).
        targets: labels int64 (n,), or numbers (n, 1).
        outputs: classes, or 1.
        parts: each row's part (`clients.tables.rows.parts`), (n,).
        owner: each row's client, (n,), -1 for a row of the central sets that belongs to none; None before a partition.
        clients: names of the clients.
        channels: what the features measure; empty for anything but a vector.
        tokens: how many ids of tokens the features may be; 0 for real numbers.
        facts: for the record.
        notices: for people.
    """

    name: str
    task: Task
    features: Array
    targets: Array
    outputs: int
    parts: I8
    owner: I64 | None
    clients: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = ()
    tokens: int = 0
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dealing:
    """How a partition deals out training rows.

    Attributes:
        options: the partition.
        keys: arrays (n,) that a natural one may use, by name.
        client_test_fraction: share of its rows that each client holds out.
    """

    options: PartitionOptions
    keys: Mapping[str, Array] = field(default_factory=dict)
    client_test_fraction: float = 0.0


@dataclass(frozen=True)
class _Dealt:
    """Rows in the order of their clients."""

    rows: I64
    offsets: I64


def is_dealt(options: PartitionOptions | None) -> bool:
    """Return whether a partition deals rows out, instead of leaving them with the data's own clients."""
    return options is not None and options != NaturalOptions()


def rows_population(rows: LabelledRows, dealing: Dealing | None, *, seed: int, dtype: torch.dtype) -> Population:
    """Make the population.

    Args:
        rows: encoded and split.
        dealing: the partition of the training rows; None leaves them with their owners.
        seed: root seed.
        dtype: of features that are real numbers, and of regression targets.

    Raises:
        PartitionError: the partition cannot be made.
    """
    features, targets = _tensors(rows, dtype)
    record = dict(rows.facts)
    names: tuple[str, ...] | None = rows.clients
    if dealing is None:
        assert rows.owner is not None
        train = _of_part(rows.owner, rows.parts, TRAINING, len(rows.clients))
        held = _of_part(rows.owner, rows.parts, TEST, len(rows.clients))
        owner: I64 | None = rows.owner
    else:
        train, held, names, facts = _dealt(rows, dealing, seed)
        record |= facts
        owner = None
    cohort = cohort_of(features, targets, train.offsets, train.rows)

    def central(part: np.int8) -> CentralExamples | None:
        some = np.flatnonzero(rows.parts == part)
        if not len(some):
            return None
        index = torch.from_numpy(some)
        known = None if owner is None or (owner[some] < 0).any() else owner[some]
        return CentralExamples(Examples(features[index], targets[index]), known)

    return Population(
        spec=ExampleSpec(
            task=rows.task,
            feature_shape=tuple(rows.features.shape[1:]),
            outputs=rows.outputs,
            channels=rows.channels,
            tokens=rows.tokens,
        ),
        federation=FederationFacts(
            name=rows.name,
            sizes=np.diff(train.offsets).astype(np.int32),
            client_name=names.__getitem__ if names else str,
            record=record,
            notices=rows.notices,
        ),
        clients=ClientData(
            cohort=cohort,
            held_out=_held_out(features, targets, held),
            label_counts=label_counts_of(cohort, rows.outputs) if rows.task == "classification" else None,
        ),
        central=CentralData(validation=central(VALIDATION), test=central(TEST)),
    )


def _tensors(rows: LabelledRows, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return all rows as tensors; whole numbers (tokens, labels) stay whole."""
    features = torch.from_numpy(np.ascontiguousarray(rows.features))
    targets = torch.from_numpy(np.ascontiguousarray(rows.targets))
    if features.is_floating_point():
        features = features.to(dtype)
    return features, targets.to(dtype) if rows.task == "regression" else targets


def _held_out(features: Tensor, targets: Tensor, held: _Dealt) -> Cohort | None:
    return cohort_of(features, targets, held.offsets, held.rows) if len(held.rows) else None


def _of_part(owner: I64, parts: I8, part: np.int8, clients: int) -> _Dealt:
    """Return one part's rows in the order of their clients; rows without a client are left out."""
    some = np.flatnonzero((parts == part) & (owner >= 0)).astype(np.int64)
    own = owner[some]
    return _Dealt(some[np.argsort(own, kind="stable")], offsets_of(np.bincount(own, minlength=clients)))


def _dealt(
    rows: LabelledRows, dealing: Dealing, seed: int
) -> tuple[_Dealt, _Dealt, tuple[str, ...] | None, dict[str, str | int | float]]:
    """Deal out the training rows; return them, the rows that clients hold out, the clients' names, and facts."""
    options, train = dealing.options, np.flatnonzero(rows.parts == TRAINING).astype(np.int64)
    targets, features = rows.targets[train], rows.features[train]
    keys = {name: key[train] for name, key in dealing.keys.items()}
    dealt = partition(options, targets, keys, seed, features)
    sizes = dealt.sizes
    owner = np.repeat(np.arange(len(sizes)), sizes)
    labels = targets[dealt.rows] if rows.task == "classification" else np.zeros(len(owner), np.int64)
    parts = random_parts(owner, len(sizes), labels, 0.0, dealing.client_test_fraction, seed)
    kept, held = (
        _Dealt(dealt.rows[own], offsets_of(np.bincount(owner[own], minlength=len(sizes))))
        for own in (parts == TRAINING, parts == TEST)
    )
    record: dict[str, str | int | float] = {"partition": options.kind}
    measured = PARTITIONS.row_of(options).facts
    if measured is not None:
        record |= measured(options, targets, features, kept.rows, kept.offsets, seed)
    return _Dealt(train[kept.rows], kept.offsets), _Dealt(train[held.rows], held.offsets), dealt.names, record


def require_clients(has_owners: bool, dealt: bool, name: str) -> None:
    """Refuse rows that nobody owns and no partition deals out.

    Raises:
        PartitionError: there is no partition.
    """
    if not has_owners and not dealt:
        kinds = [kind for kind in PARTITIONS if kind != "natural"]
        fix = f"Name the client's column in data.id_column, or give a partition, one of {', '.join(kinds)}."
        raise PartitionError("kind", f"data '{name}' come without clients", fix=fix)
