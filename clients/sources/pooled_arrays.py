"""Pooled examples from Python: arrays that the scenario's partition deals out to clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clients.core.arrays import Array
from clients.core.checks import check_finite, check_same_length
from clients.core.errors import DataError, unknown_name
from clients.core.population import Population
from clients.partition.options import PartitionOptions
from clients.partition.pooled import Pool, pooled_population
from clients.sources.labels import class_labels, is_one_hot, unused_classes
from clients.sources.options import ThinnedOptions
from clients.sources.user_arrays import FROM_DATASET, as_array, check_dtype, check_outputs, check_paired, conversions

PooledTask = Literal["classification", "regression"]


@dataclass(frozen=True, kw_only=True)
class ArraysOptions(ThinnedOptions):
    """How pooled arrays are held out and thinned; see `arrays`."""

    kind: str = "arrays"
    validation_fraction: float = 0.1
    test_fraction: float | None = None
    client_test_fraction: float = 0.0
    long_tail: float = 1.0
    rare_classes: tuple[int, ...] = ()
    rare_share: float = 0.1


@dataclass(frozen=True)
class PooledArrays:
    """Examples from Python without owners; `[partition]` deals them out. `arrays` makes them.

    Attributes:
        pool: the examples.
        options: how they are held out and thinned.
    """

    pool: Pool
    options: ArraysOptions

    def __repr__(self) -> str:
        """Return the number of examples and their shape; the values may be many."""
        shape = tuple(self.pool.features.shape[1:])
        return f"<PooledArrays: {len(self.pool.features)} examples of shape {shape}>"

    def deal(self, partition: PartitionOptions | None, *, seed: int, dtype: torch.dtype = torch.float32) -> Population:
        """Deal the examples out to clients.

        Args:
            partition: which client holds which example.
            seed: root seed.
            dtype: type of the features, unless the arrays have one of their own.

        Raises:
            PartitionError: the partition is missing or cannot be made.
        """
        return pooled_population(self.pool, partition, self.options, seed=seed, dtype=dtype)


def arrays(
    x: object,
    y: object = None,
    *,
    outputs: int | None = None,
    task: PooledTask | None = None,
    test: object = None,
    keys: object = None,
    validation_fraction: float = 0.1,
    test_fraction: float | None = None,
    client_test_fraction: float = 0.0,
    long_tail: float = 1.0,
    rare_classes: Sequence[int] = (),
    rare_share: float = 0.1,
    name: str = "arrays",
    dtype: torch.dtype | None = None,
) -> PooledArrays:
    """Pool labelled arrays; the scenario's `[partition]` deals them out to clients, as it does digits.

    Args:
        x: features (n, ...): an array, a tensor, a data frame or lists.
        y: targets: labels (n,) from 0, one-hot rows, or numbers (n,) or (n, outputs).
        outputs: number of classes; None takes one for each label up to the largest.
        task: "classification" or "regression"; None takes whole numbers and one-hot rows as classes.
        test: (features, targets) of a central test set of its own.
        keys: dictionary of arrays (n,) by name, for `partition.kind = "natural"`: each value of a key is a client.
        validation_fraction: share held centrally for criteria.
        test_fraction: share held centrally for the end; None takes `test`, or a tenth without it.
        client_test_fraction: share of its own examples each client holds out.
        long_tail: imbalance factor of an exponential profile over classes in the training examples.
        rare_classes: classes thinned to `rare_share` of their training examples.
        rare_share: see `rare_classes`.
        name: the data's name for people.
        dtype: type of the features; None takes the run's. `torch.int64` keeps token ids whole.

    Returns:
        The examples, for `simulate(data=...)`, `describe_data(data=...)` and `population(data=...)`.

    Raises:
        DataError: the arrays cannot be used; the message says what to write.

    Example:
        >>> pooled = arrays(np.zeros((20, 3)), np.arange(20) % 2)
        >>> from clients.partition.options import IidOptions
        >>> pooled.deal(IidOptions(clients=2), seed=0).sizes.tolist()
        [8, 8]
    """
    _check_arguments(outputs, task, dtype)
    features, targets = _pair(x, y, "x", "y")
    chosen: PooledTask = task or _task_of(targets)
    labels, note = _targets(targets, chosen, outputs, "y")
    central = None if test is None else _central(test, features.shape[1:], chosen, outputs)
    options = ArraysOptions(
        validation_fraction=validation_fraction, test_fraction=test_fraction, client_test_fraction=client_test_fraction,
        long_tail=long_tail, rare_classes=tuple(rare_classes), rare_share=rare_share,
    )  # fmt: skip
    # What the run's type rounds is known only when the pool is dealt out, and is stated then.
    exact = dtype if dtype is not None and not dtype.is_floating_point else torch.float64
    notices = [*conversions(features, targets, exact, torch.float64, chosen), note]
    if chosen == "classification":
        together = labels if central is None else np.concatenate([labels, central[1]])
        notices.append(unused_classes(together, outputs, "y"))
    if task is None:
        notices.append(_guess(targets, labels, chosen))
    known = _keys({} if keys is None else keys, len(features))
    sentences = tuple(dict.fromkeys(words for words in notices if words))
    pool = Pool(name, "data", features, labels, known, central, thinning=options.thinning(), dtype=dtype,
                outputs=outputs, notices=sentences)  # fmt: skip
    return PooledArrays(pool, options)


def _check_arguments(outputs: object, task: object, dtype: object) -> None:
    if dtype is not None:
        check_dtype(dtype)
    if task is not None and task not in get_args(PooledTask):
        raise DataError("task", unknown_name(task, get_args(PooledTask), "a task"))
    if outputs is not None:
        check_outputs(outputs)


def _central(test: object, shape: tuple[int, ...], task: PooledTask, outputs: int | None) -> tuple[Array, Array]:
    """Return features and targets of the test set."""
    if not isinstance(test, tuple | list) or len(test) != 2:
        fix = "Pass test=(x_test, y_test)."
        raise DataError("test", f"must be (features, targets), got {type(test).__name__}", fix=fix)
    features, targets = _pair(test[0], test[1], "test", "test")
    if features.shape[1:] != shape:
        shapes = f"{list(features.shape[1:])} an example, and x has {list(shape)}"
        raise DataError("test", f"features have shape {shapes}")
    return features, _targets(targets, task, outputs, "test")[0]


def _pair(x: object, y: object, x_name: str, y_name: str) -> tuple[Array, Array]:
    if y is None:
        is_set = isinstance(x, Dataset | DataLoader)
        fix = f"Pass the arrays of the data set: {FROM_DATASET}." if is_set else "Pass fs.arrays(features, targets)."
        raise DataError(y_name, "is missing", fix=fix)
    check_paired(x, y, x_name)
    features, targets = as_array(x, x_name, "features"), as_array(y, y_name, "targets")
    check_same_length(features, targets, x_name)
    check_finite(features, x_name, "features")
    check_finite(targets, y_name, "targets")
    if not len(features):
        raise DataError(x_name, "has no examples")
    return features, targets


def _task_of(targets: Array) -> PooledTask:
    """Guess the task: whole numbers and one-hot rows are classes."""
    flat = targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets
    return "classification" if is_one_hot(targets) or (flat.ndim == 1 and flat.dtype.kind in "iub") else "regression"


def _guess(targets: Array, labels: Array, task: PooledTask) -> str:
    """Return a sentence on a guessed task, with the other where the targets may mean it."""
    if task == "regression":
        whole = targets.dtype.kind != "f" or bool((targets == np.floor(targets)).all())
        classes = (
            "; task='classification' takes whole ones as classes" if whole and targets.size == len(targets) else ""
        )
        return f"targets are numbers to predict, {labels.shape[1]} an example{classes}"
    found = len(np.unique(labels))
    numbers = "; task='regression' predicts numbers" if found > max(20, len(labels) // 4) else ""
    return f"targets are taken as {found:,} classes{numbers}"


def _targets(targets: Array, task: PooledTask, outputs: int | None, field: str) -> tuple[Array, str]:
    """Return labels as integers, or numbers to predict as float64 (n, outputs)."""
    if task == "classification":
        return class_labels(targets, outputs, field)
    numbers = targets.reshape(len(targets), -1).astype(np.float64)
    if outputs is not None and numbers.shape[1] != outputs:
        problem = f"has {numbers.shape[1]} numbers an example, and outputs is {outputs}"
        raise DataError(field, problem, fix="Leave outputs out.")
    return numbers, ""


def _keys(keys: object, examples: int) -> dict[str, Array]:
    """Return the keys as arrays (n,) of distinct values that can be sorted."""
    if not isinstance(keys, Mapping):
        fix = 'Pass keys={"user": users}.'
        raise DataError("keys", f"must be arrays by name, got {type(keys).__name__}", fix=fix)
    found = {}
    for name, values in keys.items():
        if isinstance(values, Tensor):
            values = values.detach().cpu().numpy()
        column = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
        field = f"keys[{name!r}]"
        if column.ndim != 1 or len(column) != examples:
            raise DataError(field, f"must have one value for each of {examples} examples, got shape {column.shape}")
        missing = column != column if column.dtype.kind == "f" else np.array([v is None for v in column])
        if missing.any():
            row = int(np.flatnonzero(missing)[0])
            raise DataError(field, f"must name a client for every example, and row {row} is {column[row]}")
        found[str(name)] = column.astype(str) if column.dtype.kind == "O" else column
    return found
