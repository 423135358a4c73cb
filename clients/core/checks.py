"""Checks of the examples that a model trains on. Every data source uses them, so their errors are worded alike."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import Array
from clients.core.errors import DataError


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
    row, *rest = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
    column = f", column {rest[0]}" if len(rest) == 1 else f", index {tuple(rest)}" if rest else ""
    bad = int((~np.isfinite(values)).sum())
    raise DataError(
        field,
        f"{place} must be finite, and row {row}{column} is {values[(row, *rest)]} ({bad} such values in all)",
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
        raise DataError(field, f"{place} must be {limit}, and row {row} is {labels[row]}")


def check_numeric(values: Array, field: str, place: str) -> None:
    """Refuse what is not an array of real numbers (objects, strings, complex)."""
    if values.dtype.kind not in "iufb":
        raise DataError(field, f"{place} must be real numbers, got an array of {values.dtype}")


def check_same_length(features: Array, targets: Array, field: str) -> None:
    """Refuse features and targets of different length."""
    if len(features) != len(targets):
        rows = f"has {len(features)} rows of features and {len(targets)} targets"
        raise DataError(field, f"{rows}; the two numbers must be equal")
