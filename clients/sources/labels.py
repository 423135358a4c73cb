"""Class labels as people have them: whole numbers of any type, truth values, one column, one-hot."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import I64, Array
from clients.core.checks import check_finite, check_labels, check_numeric
from clients.core.errors import DataError

MOST_EMPTY = 20
"""Labels that would make more than this many outputs for each class that occurs are refused ..."""
MANY_OUTPUTS = 10_000
"""... where they would make more outputs than this."""


def class_labels(targets: Array, outputs: int | None, field: str, place: str = "labels") -> tuple[I64, str]:
    """Return labels as integers (n,), and a sentence on what was converted, which may be empty.

    Args:
        targets: integers, whole floating-point numbers or truth values, (n,) or (n, 1); or one-hot rows (n, classes).
        outputs: number of classes, None for no upper limit.
        field: what the error's field is.
        place: what the values are called.

    Raises:
        DataError: naming the first label at fault.

    Example:
        >>> class_labels(np.array([[0, 1], [1, 0]]), None, "y")[0].tolist()
        [1, 0]
    """
    check_numeric(targets, field, place)
    check_finite(targets, field, place)
    note = ""
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    elif is_one_hot(targets):
        targets, note = targets.argmax(1), f"{place} are one-hot: the place of the 1 is the class"
    if targets.ndim != 1:
        raise DataError(field, f"{place} must have one axis, got shape {targets.shape}",
                        fix="Pass one class an example; for numbers to predict pass task='regression'.")  # fmt: skip
    if targets.dtype.kind == "f":
        fractions = np.flatnonzero(targets != np.floor(targets))
        if len(fractions):
            row = int(fractions[0])
            raise DataError(field, f"{place} must be integers, and row {row} is {targets[row]}",
                            fix="For numbers to predict pass task='regression'.")  # fmt: skip
    if targets.dtype.kind in "fb" or targets.dtype.kind == "u":
        targets = targets.astype(np.int64)
    check_labels(targets, outputs, field, place)
    return targets.astype(np.int64), note


def is_one_hot(targets: Array) -> bool:
    """Return whether rows hold one 1 and else 0, in at least two columns."""
    if targets.ndim != 2 or targets.shape[1] < 2 or not len(targets) or targets.dtype.kind not in "iufb":
        return False
    return bool(((targets == 0) | (targets == 1)).all() and (targets.sum(1) == 1).all())


def unused_classes(labels: I64, outputs: int | None, field: str, place: str = "labels") -> str:
    """Return a sentence on classes without an example; empty where each has one.

    Args:
        labels: (n,) labels, at least one.
        outputs: number of classes; None makes one for each label up to the largest.
        field: what the error's field is.
        place: what the values are called.

    Raises:
        DataError: labels are ids: without `outputs` they would make very many for few classes.

    Example:
        >>> unused_classes(np.array([0, 3, 3]), None, "y")
        'labels have 2 different values and make 4 outputs; classes 1, 2 have no example'
    """
    found, is_given = np.unique(labels), outputs is not None
    outputs = outputs or 1 + int(labels.max(initial=0))
    if len(found) == outputs:
        return ""
    values = f"{place} have {len(found):,} different values and make {outputs:,} outputs"
    fix = "Number the classes from 0: values, y = np.unique(y, return_inverse=True)."
    if not is_given and outputs > MANY_OUTPUTS and outputs > MOST_EMPTY * len(found):
        raise DataError(field, f"{values} (0 to {outputs - 1:,})", fix=fix)
    empty = np.setdiff1d(np.arange(min(outputs, int(found.max(initial=0)) + 8)), found)[:6]
    missing = outputs - len(found)
    listed = ", ".join(map(str, empty)) + (", ..." if missing > len(empty) else "")
    return f"{values}; " + (f"class {listed} has no example" if missing == 1 else f"classes {listed} have no example")
