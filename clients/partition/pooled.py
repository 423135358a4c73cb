"""Makes a population of a pool of examples: some are held out, and a partition deals the rest to clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import I64, Array
from clients.core.channels import Channel
from clients.core.checks import (
    WIDER_ARRAYS,
    WIDER_RUN,
    check_finite,
    check_fits,
    check_labels,
    check_numeric,
    check_same_length,
    precision_notice,
    tensor_of,
)
from clients.core.errors import DataError, PartitionError
from clients.core.examples import Examples, Task
from clients.core.options import HeldOutOptions
from clients.core.population import ClientData, Population
from clients.core.population_parts import CentralData, CentralExamples, ExampleSpec, FederationFacts
from clients.core.ragged import cohort_of, label_counts_of, offsets_of
from clients.partition.long_tail import Thinning, thinned
from clients.partition.options import NaturalOptions, PartitionOptions
from clients.partition.partitions import partition
from clients.partition.table import PARTITIONS

_Types = tuple[torch.dtype, torch.dtype]  # of features, and of targets that are numbers


@dataclass(frozen=True)
class Pool:
    """Examples without owners.

    Attributes:
        name: for people.
        where: the file or setting that errors about these examples name.
        features: numbers (n, *feature_shape).
        targets: int (n,) labels, or numbers (n,) or (n, outputs).
        keys: arrays (n,) that a `natural` partition may use.
        test: features and targets of the data's own test set, or None.
        natural: the key that names the clients by default; empty where the data have none.
        channels: what the last axis of the features measures, where that is known.
        facts: for the record.
        thinning: how many training examples of each class are kept; central examples are not thinned.
        dtype: type of the features, such as int64 for token ids; None takes the run's.
        outputs: number of classes; None takes one for each label up to the largest.
        notices: sentences on what was guessed or converted.
    """

    name: str
    where: str
    features: Array
    targets: Array
    keys: Mapping[str, Array] = field(default_factory=dict)
    test: tuple[Array, Array] | None = None
    natural: str = ""
    channels: tuple[Channel, ...] = ()
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    thinning: Thinning = field(default_factory=Thinning)
    dtype: torch.dtype | None = None
    outputs: int | None = None
    notices: tuple[str, ...] = ()

    @property
    def wider(self) -> str:
        """How to give the features a wider type, for messages."""
        return WIDER_RUN if self.dtype in (None, torch.float64) else WIDER_ARRAYS


def hold_out(examples: int, validation: float, test: float, seed: int) -> tuple[I64, I64, I64]:
    """Split range(examples) into training, validation and test indices, each in increasing order.

    An example's own hash decides its part. Sizes are the rounded fractions; the test part does not depend on the
    validation fraction.

    Example:
        >>> [len(part) for part in hold_out(1797, 0.1, 0.1, seed=0)]
        [1437, 180, 180]
    """
    order = np.argsort(streams.hashes(streams.keys(seed, "hold out"), examples), kind="stable")
    tests, validations = round(test * examples), round(validation * examples)
    return np.sort(order[tests + validations :]), np.sort(order[tests : tests + validations]), np.sort(order[:tests])


def pooled_population(
    pool: Pool,
    options: PartitionOptions | None,
    held_out: HeldOutOptions,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> Population:
    """Make a population of a pool of examples.

    Args:
        pool: the examples.
        options: the partition; None takes the pool's natural clients, and is an error where it has none.
        held_out: the shares that are held out. No `test_fraction` takes the pool's own test set, or a tenth where it
            has none; where a share is given, the pool's own test set stays out of it. Each client's share is rounded
            down.
        seed: root seed.
        dtype: of the features, and of regression targets.

    Returns:
        The population. Integer targets with one axis are labels, everything else is regression.

    Raises:
        DataError: the examples cannot be used.
        PartitionError: the partition is missing or cannot be made.
    """
    if pool.natural and (options is None or options == NaturalOptions()):
        options = NaturalOptions(key=pool.natural)
    if options is None:
        fix = f"Give one of {', '.join(PARTITIONS)}, such as --set partition.kind=iid --set partition.clients=20."
        raise PartitionError("kind", f"data '{pool.name}' come without clients", fix=fix)
    own_test, test_fraction = None, held_out.test_fraction
    if test_fraction is None:
        own_test = pool.test
        test_fraction = 0.0 if own_test else 0.1
    types = (pool.dtype or dtype, dtype)
    computed = (min(types, key=lambda t: t.itemsize) if types[0].is_floating_point else types[0], dtype)
    task = _check(pool.features, pool.targets, pool.where, computed, fix=pool.wider)
    train, validation, test = hold_out(len(pool.features), held_out.validation_fraction, test_fraction, seed)
    if not len(train):
        raise DataError(pool.where, f"has {len(pool.features)} examples, and none is left to train on")
    if task == "classification":
        train = thinned(train, pool.targets[train], pool.thinning, seed)
    if own_test and len(own_test[0]):
        _check(*own_test, f"{pool.where} (test set)", computed, fix=pool.wider)
    outputs = _outputs(task, [pool.targets, *([own_test[1]] if own_test else [])], pool.outputs)
    keys = {name: key[train] for name, key in pool.keys.items()}
    parts = partition(options, pool.targets[train], keys, seed, pool.features[train])
    own_share = held_out.client_test_fraction
    rows, offsets, held_rows, held_offsets = _client_hold_out(parts.rows, parts.offsets, own_share, seed)

    record = {"examples_in_all": len(pool.features), "partition": options.kind, **pool.facts}
    facts = PARTITIONS.row_of(options).facts
    if facts is not None:
        record |= facts(options, pool.targets[train], pool.features[train], rows, offsets, seed)

    features, targets = _tensors(task, pool.features[train], pool.targets[train], types)
    cohort = cohort_of(features, targets, offsets, rows)

    names = parts.names
    return Population(
        spec=ExampleSpec(
            task=task, feature_shape=tuple(pool.features.shape[1:]), outputs=outputs, channels=pool.channels
        ),
        federation=FederationFacts(
            name=pool.name,
            sizes=np.diff(offsets).astype(np.int32),
            client_name=names.__getitem__ if names else str,
            record=record,
            notices=tuple(dict.fromkeys((*pool.notices, *_rounded(pool, task, computed)))),
        ),
        clients=ClientData(
            cohort=cohort,
            held_out=cohort_of(features, targets, held_offsets, held_rows) if own_share else None,
            label_counts=label_counts_of(cohort, outputs) if task == "classification" else None,
        ),
        central=CentralData(
            validation=_central(task, pool.features[validation], pool.targets[validation], types),
            test=_central(task, *(own_test or (pool.features[test], pool.targets[test])), types),
        ),
    )


def _check(features: Array, targets: Array, name: str, types: _Types, *, fix: str) -> Task:
    """Refuse unusable examples and return their task."""
    check_same_length(features, targets, name)
    check_numeric(features, name, "features")
    check_numeric(targets, name, "targets")
    check_finite(features, name, "features")
    check_finite(targets, name, "targets")
    check_fits(features, types[0], name, "features", fix=fix)
    if targets.ndim == 1 and targets.dtype.kind in "iu":
        check_labels(targets, None, name)
        return "classification"
    check_fits(targets, types[1], name, "targets", fix=WIDER_RUN)
    return "regression"


def _rounded(pool: Pool, task: Task, types: _Types) -> list[str]:
    """Return sentences on digits that features and targets lose."""
    found = [precision_notice(pool.features, types[0], "features", fix=pool.wider)]
    if task == "regression":
        found.append(precision_notice(pool.targets, types[1], "targets", fix=WIDER_RUN))
    return [sentence for sentence in found if sentence]


def _outputs(task: Task, targets: list[Array], classes: int | None) -> int:
    if task == "classification":
        return classes or 1 + max(int(t.max()) for t in targets if len(t))
    return int(np.prod(targets[0].shape[1:], dtype=np.int64))


def _tensors(task: Task, features: Array, targets: Array, types: _Types) -> tuple[Tensor, Tensor]:
    x = tensor_of(features, types[0])
    if task == "classification":
        return x, torch.from_numpy(targets.astype(np.int64))
    return x, tensor_of(targets.reshape(len(targets), -1).astype(np.float64), types[1])


def _central(task: Task, features: Array, targets: Array, types: _Types) -> CentralExamples | None:
    return CentralExamples(Examples(*_tensors(task, features, targets, types))) if len(features) else None


def _client_hold_out(rows: I64, offsets: I64, fraction: float, seed: int) -> tuple[I64, I64, I64, I64]:
    """Take floor(fraction * size) of each client's rows out, by the hash of the row: rows and offsets of both parts."""
    sizes = np.diff(offsets)
    held = np.floor(fraction * sizes).astype(np.int64)
    if not held.any():
        return rows, offsets, rows[:0], np.zeros_like(offsets)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    chance = streams.keys(seed, "client hold out", rows)
    order = np.lexsort((chance, owner))
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - np.repeat(offsets[:-1], sizes)
    out = rank < held[owner]
    return rows[~out], offsets_of(sizes - held), rows[out], offsets_of(held)
