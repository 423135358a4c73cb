"""Checks of numbers from users, worded alike: the examples of every data source, the results of algorithms."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, Array, Bool
from clients.core.errors import DataError, StrategyError

_ROUGH = 1e-4  # rounding above this share of a column's range is worth a notice
_BLOCK = 2**20  # numbers that are compared at once
_EXACT = 2**24  # whole numbers up to here are exact in float32

_NOT_NUMBERS = {
    "M": "Make them numbers: (t - t.min()) / np.timedelta64(1, 's') are seconds since the first.",
    "m": "Make them numbers: t / np.timedelta64(1, 's') are seconds.",
    "c": "Pass the real and the imaginary part as two features.",
    "V": "Pass one array of numbers: numpy.lib.recfunctions.structured_to_unstructured(values).",
}
WIDER_RUN = 'Set run.dtype = "float64".'
"""The fix for examples in the type of the run."""
WIDER_ARRAYS = "Pass dtype=torch.float64, and run with run.dtype = 'float64'."
"""The fix for examples from Python that have a type of their own."""
_TEXT = "Number the names from 0: names, numbers = np.unique(values, return_inverse=True)."


def check_finite(values: Array, field: str, place: str) -> None:
    """Refuse NaN and infinities.

    Args:
        values: (n, ...) numbers; rows are on the first axis.
        field: what the error's field is, such as a file or a client.
        place: what the values are, such as "features".

    Raises:
        DataError: naming the first row, and the column for 2-D values (index on the other axes for more).
    """
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    at, value = _first(values, ~np.isfinite(values))
    bad = int((~np.isfinite(values)).sum())
    raise DataError(
        field,
        f"{place} must be finite, and {at} is {value} ({bad} such values in all)",
        fix="Remove or fill them before the run.",
    )


def check_labels(labels: Array, outputs: int | None, field: str, place: str = "labels") -> None:
    """Refuse labels that are not integers from 0 to `outputs` - 1.

    Args:
        labels: (n,) labels.
        outputs: number of classes, None for no upper limit.
        field: what the error's field is.
        place: what the values are called.

    Raises:
        DataError: naming the first label at fault.
    """
    if labels.ndim != 1:
        raise DataError(field, f"{place} must have one axis, got shape {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise DataError(field, f"{place} must be integers, got {labels.dtype}", fix="Convert them with astype(int).")
    bad = labels < 0
    if outputs is not None:
        bad |= labels >= outputs
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        limit = "at least 0" if outputs is None else f"from 0 to {outputs - 1} ({outputs} outputs)"
        fix = f"Number the classes from 0: values, {place.split()[-1]} = np.unique(..., return_inverse=True)."
        raise DataError(field, f"{place} must be {limit}, and row {row} is {labels[row]}", fix=fix)


def check_numeric(values: Array, field: str, place: str) -> None:
    """Refuse what is not an array of real numbers (objects, text, times, complex numbers)."""
    kind = values.dtype.kind
    if kind in "iufb":
        return
    got = f"got an array of {values.dtype}"
    if kind == "O" and values.size:
        numbers = (int, float, np.integer, np.floating, np.bool_)
        flat = values.reshape(-1)
        odd = np.array([not isinstance(value, numbers) for value in flat]).reshape(values.shape)
        if not odd.any():
            raise DataError(field, f"{place} must be real numbers, {got}", fix="Convert them with astype(float).")
        at, value = _first(values, odd) if values.ndim else ("it", values[()])
        got += f"; {at} is {value!r:.40}"
        kind = "U" if isinstance(value, str) else kind
    fix = _TEXT if kind in "US" else _NOT_NUMBERS.get(kind, "Pass an array of numbers, one row an example.")
    raise DataError(field, f"{place} must be real numbers, {got}", fix=fix)


def check_same_length(features: Array, targets: Array, field: str) -> None:
    """Refuse features and targets of different length."""
    if len(features) != len(targets):
        rows = f"has {len(features)} rows of features and {len(targets)} targets"
        raise DataError(field, f"{rows}; the two numbers must be equal")


def check_fits(values: Array, dtype: torch.dtype, field: str, place: str, *, fix: str) -> None:
    """Refuse numbers that a type cannot hold: beyond its range, or fractions in a type of whole numbers.

    Args:
        values: (n, ...) finite numbers.
        dtype: what they will be converted to.
        field: what the error's field is.
        place: what the values are.
        fix: how to use another type.

    Raises:
        DataError: naming a number at fault.
    """
    if not values.size or values.dtype.kind == "b":
        return
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    if not dtype.is_floating_point and values.dtype.kind == "f" and (fractions := values != np.floor(values)).any():
        at, value = _first(values, fractions)
        raise DataError(field, f"{place} must be whole numbers for dtype={dtype}, and {at} is {value}", fix=fix)
    low, high = values.min().item(), values.max().item()
    if low < limits.min or high > limits.max:
        at, value = _first(values, values == (low if low < limits.min else high))
        largest = f"{limits.max:.3g}" if dtype.is_floating_point else f"{limits.max}"
        name = str(dtype).removeprefix("torch.")
        raise DataError(field, f"{place} must fit into {name}, at most {largest}, and {at} is {value}", fix=fix)


def precision_notice(values: Array, dtype: torch.dtype, place: str, *, fix: str) -> str:
    """Return a sentence where the conversion to a type loses digits that tell examples apart; else an empty one.

    These are whole numbers that change (ids, time stamps), and columns whose rounding is visible in their range.

    Args:
        values: (n, ...) finite numbers that fit into the type.
        dtype: what they will be converted to.
        place: what the values are.
        fix: how to use another type.

    Example:
        >>> stamps = np.array([[0.5, 1.7e9], [0.25, 1.7e9 + 1]])
        >>> precision_notice(stamps, torch.float32, "features", fix="Use float64.").partition(":")[0]
        'features, column 1'
    """
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8 and values.size and dtype == torch.float64:
        top = max(abs(int(values.min())), abs(int(values.max())))
        exact = "float64 keeps them exact up to 2**53 only. Number ids from 0."
        return f"{place}: whole numbers up to {top:,}, and {exact}" if top > 2**53 else ""
    wide = values.dtype.itemsize > 4 or (values.dtype.kind in "iu" and values.dtype.itemsize == 4)
    if not wide or not values.size or dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return ""
    error, low, high, whole = _column_losses(values.reshape(len(values), -1), dtype)
    largest = np.maximum(np.abs(low), np.abs(high))
    ids = (error >= 0.5) & (largest >= _EXACT) & whole
    rough = ids | (error > _ROUGH * (high - low)) & (high > low)
    if not rough.any():
        return ""
    worst = int(np.flatnonzero(ids)[0]) if ids.any() else int(np.argmax(np.where(rough, error, -1)))
    index = np.unravel_index(worst, values.shape[1:]) if values.ndim > 1 else ()
    column = f", column {worst}" if len(index) == 1 else f", index {tuple(map(int, index))}" if index else ""
    more = f" (and {int(rough.sum()) - 1} more)" if rough.sum() > 1 else ""
    kept_to = f"{str(dtype).removeprefix('torch.')} keeps them to within {error[worst]:.3g} only"
    return f"{place}{column}{more}: numbers from {low[worst]:.10g} to {high[worst]:.10g}, and {kept_to}. {fix}"


def _column_losses(columns: Array, dtype: torch.dtype) -> tuple[F64, F64, F64, Bool]:
    """Return, by column, the largest change by the conversion, smallest and largest value, and whether all are whole.

    It takes blocks of rows, so that large arrays need little more memory.
    """
    width = columns.shape[1]
    error, low, high = np.zeros(width), np.full(width, np.inf), np.full(width, -np.inf)
    whole = np.ones(width, np.bool_)
    rows = max(1, _BLOCK // max(1, width))
    for start in range(0, len(columns), rows):
        block = columns[start : start + rows].astype(np.float64)
        kept = torch.from_numpy(block).to(dtype).to(torch.float64).numpy()
        error = np.maximum(error, np.abs(block - kept).max(0))
        low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
        whole &= (block == np.floor(block)).all(0)
    return error, low, high, whole


def tensor_of(values: Array, dtype: torch.dtype) -> Tensor:
    """Copy numbers that fit into a type to a tensor of it, from any byte order, layout and width."""
    if values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    native = np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(native).to(dtype)


def _first(values: Array, bad: Array) -> tuple[str, object]:
    """Return the place of the first value at fault in words, and the value."""
    row, *rest = (int(i) for i in np.argwhere(bad)[0])
    column = f", column {rest[0]}" if len(rest) == 1 else f", index {tuple(rest)}" if rest else ""
    return f"row {row}{column}", values[(row, *rest)]


def require_shape(found: object, like: Tensor, owner: str, function: str) -> Tensor:
    """Return what a function of a user's algorithm returned, if it is a tensor of the shape of `like`.

    Args:
        found: what it returned.
        like: a tensor of the right shape.
        owner: the name of the part of the algorithm.
        function: the name of the function.

    Raises:
        StrategyError: it is something else.
    """
    if isinstance(found, Tensor) and found.shape == like.shape:
        return found
    got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    problem = f"{function} of {owner!r} must return a tensor of shape {tuple(like.shape)}, returned {got}"
    raise StrategyError("algorithm", problem)
