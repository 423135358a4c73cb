"""Arrays as people bring them from Python, as NumPy arrays: tensors, data frames, lists, masked arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from clients.core.arrays import Array
from clients.core.checks import WIDER_ARRAYS, check_numeric, precision_notice
from clients.core.errors import DataError, require
from clients.core.examples import Task
from clients.sources.labels import class_labels

FROM_DATASET = "x = torch.stack([f for f, _ in dataset]); y = torch.tensor([t for _, t in dataset])"
"""Code that makes two tensors of a torch data set."""


def check_dtype(dtype: object) -> None:
    """Refuse a `dtype` that features cannot have.

    Raises:
        UserError: it is not one of torch's types of real numbers.
    """
    fine = isinstance(dtype, torch.dtype) and not dtype.is_complex and dtype != torch.bool
    fix = "Pass torch.float32, torch.float64, or torch.int64 for token ids."
    require(fine, "dtype", f"must be a torch type of numbers, got {dtype!r:.40}", fix=fix)


def check_outputs(outputs: Any) -> None:
    """Refuse a number of outputs that is not a whole number of at least 1.

    Raises:
        UserError: it is something else.
    """
    is_whole = isinstance(outputs, int | np.integer) and not isinstance(outputs, bool)
    require(is_whole and outputs >= 1, "outputs", f"must be a whole number, at least 1, got {outputs!r}")


def pair_of(pair: object, who: str) -> tuple[Array, Array]:
    """Return the user's features and targets as arrays of numbers with an axis of examples.

    Args:
        pair: (features, targets).
        who: what the error's field is.

    Raises:
        DataError: it is no pair, or holds something else.
    """
    if not isinstance(pair, tuple) or len(pair) != 2:
        fix = "Return a tuple: return x, y."
        fix = f"Return its arrays: {FROM_DATASET}." if isinstance(pair, Dataset | DataLoader) else fix
        raise DataError(who, f"must be (features, targets), got {type(pair).__name__}", fix=fix)
    check_paired(pair[0], pair[1], who)
    return as_array(pair[0], who, "features"), as_array(pair[1], who, "targets")


def as_array(values: object, field: str, what: str) -> Array:
    """Return an array of real numbers with an axis of examples.

    Args:
        values: an array, a tensor on any device, a data frame or a column of one, or lists.
        field: what the error's field is.
        what: what the values are, such as "features".

    Raises:
        DataError: it is something else; the message says what to write.

    Example:
        >>> as_array(torch.ones(2, requires_grad=True), "x", "features").tolist()
        [1.0, 1.0]
    """
    array = _converted(values, field, what)
    check_numeric(array, field, what)
    if array.ndim == 0:
        raise DataError(field, f"{what} must have an axis of examples, got a single number")
    return array


def check_paired(features: object, targets: object, field: str) -> None:
    """Refuse two parts of data frames whose row labels differ: rows would be paired by position.

    Raises:
        DataError: their indexes differ.
    """
    index, other = getattr(features, "index", None), getattr(targets, "index", None)
    equals = getattr(index, "equals", None)
    if not callable(equals) or not callable(getattr(other, "equals", None)) or equals(other):
        return
    fix = "Align them, y = y.loc[x.index], or pass x.to_numpy() and y.to_numpy() to pair rows by position."
    raise DataError(
        field, "features and targets have different indexes, so their rows may not belong together", fix=fix
    )


def _converted(values: Any, field: str, what: str) -> Array:
    if isinstance(values, Dataset | DataLoader):
        fix = "Pass dataset.tensors." if isinstance(values, TensorDataset) else f"Pass its arrays: {FROM_DATASET}."
        raise DataError(field, f"{what} must be an array or a tensor, got a {type(values).__name__}", fix=fix)
    if isinstance(values, Tensor):
        return _of_tensor(values, field, what)
    if isinstance(values, np.ma.MaskedArray):
        hidden = int(np.count_nonzero(np.ma.getmaskarray(values)))
        if hidden:
            fix = "Fill them, values.filled(0.0), or leave their rows out."
            raise DataError(field, f"{what} have {hidden} masked values", fix=fix)
        return np.asarray(values.data)
    if callable(getattr(values, "toarray", None)):
        raise DataError(field, f"{what} are sparse, a {type(values).__name__}", fix="Pass values.toarray().")
    if isinstance(values, str | bytes | dict | set) or callable(values) or values is None:
        got = "None" if values is None else f"a {type(values).__name__}"
        raise DataError(field, f"{what} must be an array or a tensor, got {got}", fix="Pass one row an example.")
    if hasattr(values, "columns") and callable(getattr(values, "to_numpy", None)):
        return _of_frame(values, field, what)
    try:
        if callable(getattr(values, "to_numpy", None)):
            return np.asarray(values.to_numpy())
        if isinstance(values, list | tuple) and values and isinstance(values[0], Tensor):
            return _of_tensor(torch.stack(list(values)), field, what)
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        fix = (
            "Examples must be of one shape: pad or cut them. Clients of their own: fs.custom_population(function, ...)."
        )
        words = " ".join(str(error).split())
        raise DataError(field, f"{what} must be an array or a tensor: {words}", fix=fix) from error


def _of_tensor(values: Tensor, field: str, what: str) -> Array:
    values = values.detach()
    if values.layout != torch.strided:
        raise DataError(field, f"{what} are a sparse tensor", fix="Pass values.to_dense().")
    if values.is_quantized:
        raise DataError(field, f"{what} are a quantised tensor", fix="Pass values.dequantize().")
    if values.is_floating_point() and values.dtype not in (torch.float16, torch.float32, torch.float64):
        values = values.float()  # bfloat16 and narrower types, which NumPy does not have
    return np.asarray(values.cpu().resolve_conj().resolve_neg().numpy())


def _of_frame(frame: Any, field: str, what: str) -> Array:
    """Return the columns of a data frame side by side; a column that is not numbers is named."""
    columns = [np.asarray(frame[name].to_numpy()) for name in frame.columns]
    for name, column in zip(frame.columns, columns, strict=True):
        if column.ndim != 1:
            raise DataError(field, f"{what} have several columns named {name!r}", fix="Rename them.")
        check_numeric(column, field, f"{what}, column {name!r},")
    if not columns:
        raise DataError(field, f"{what} are a data frame without columns")
    return np.column_stack(columns)


def conversions(
    features: Array, targets: Array, dtype: torch.dtype, target_dtype: torch.dtype, task: Task
) -> Iterator[str]:
    """Yield sentences on what a conversion of examples changes.

    Args:
        features: the user's numbers.
        targets: the user's targets.
        dtype: the type of features.
        target_dtype: the type of targets that are numbers.
        task: what is learnt.
    """
    if features.dtype.kind in "iu" and dtype.is_floating_point:
        is_bytes = features.dtype == np.uint8 and features.size and features.max() > 1
        token = "for token ids pass dtype=torch.int64"
        more = "bytes are not scaled, divide them by 255 for 0 to 1" if is_bytes else token
        yield f"features are whole numbers ({features.dtype}) and become floating-point numbers; {more}"
    rounded = precision_notice(features, dtype, "features", fix=WIDER_ARRAYS)
    if rounded:
        yield rounded
    if task == "classification":
        _, note = class_labels(targets, None, "targets")
        if note:
            yield note
    elif task == "regression":
        rounded = precision_notice(targets, target_dtype, "targets", fix=WIDER_ARRAYS)
        if rounded:
            yield rounded
