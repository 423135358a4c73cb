"""Splits labelled rows into a training, a validation and a test part, at random or by a column.

A random split works client by client. It takes each stratum (class) of a client in proportion, and a client keeps at
least one training row. Numbers of rows that are not whole are rounded so that the sum over clients is right: of many
clients with three rows, some give a test row and some do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clients.core import streams
from clients.core.arrays import I64, Bool
from clients.core.errors import DataError, listed

I8 = npt.NDArray[np.int8]

TRAINING, VALIDATION, TEST = np.int8(0), np.int8(1), np.int8(2)
"""The parts of rows."""
PART_NAMES = {
    "train": TRAINING, "training": TRAINING,
    "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""The words for parts in a column."""


def random_parts(owner: I64, clients: int, strata: I64, validation: float, test: float, seed: int) -> I8:
    """Return the part of each row, (n,). The test part does not depend on the validation share.

    Args:
        owner: each row's client, (n,).
        clients: how many there are.
        strata: each row's class, or zeros, (n,).
        validation: share of each client's rows.
        test: the same for the test part.
        seed: root seed.

    Example:
        >>> owner = np.repeat([0, 1], [10, 1])
        >>> random_parts(owner, 2, np.zeros(11, np.int64), 0.2, 0.3, seed=0).tolist().count(2)
        3
    """
    parts = np.full(len(owner), TRAINING)
    sizes = np.bincount(owner, minlength=clients).astype(np.int64)
    order = np.lexsort((streams.keys(seed, "part of row", np.arange(len(owner))), strata, owner))
    left = sizes
    for part, share, name in ((TEST, test, "test"), (VALIDATION, validation, "validation")):
        wanted = np.minimum(
            _rounded(sizes, share, streams.keys(seed, f"clients of {name}", np.arange(clients))), left - 1
        )
        taken = _evenly(left, np.maximum(wanted, 0), streams.keys(seed, f"rows of {name}", np.arange(clients)))
        parts[order[taken]] = part
        order = order[~taken]
        left = left - np.maximum(wanted, 0)
    return parts


def _rounded(sizes: I64, share: float, chance: npt.NDArray[np.uint64]) -> I64:
    """Return `share` of each size, rounded up or down so that the sum is the rounded share of the sum."""
    order = np.argsort(chance, kind="stable")
    ends = np.floor(np.cumsum(sizes[order]) * share + 0.5).astype(np.int64)
    counts = np.empty_like(sizes)
    counts[order] = np.diff(ends, prepend=0)
    return counts


def _evenly(sizes: I64, wanted: I64, chance: npt.NDArray[np.uint64]) -> Bool:
    """Mark `wanted[k]` of the `sizes[k]` successive rows of client k, evenly spaced from a random start."""
    n, t = np.repeat(sizes, sizes), np.repeat(wanted, sizes)
    place = np.arange(len(n)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    start = np.repeat((chance % np.maximum(sizes, 1).astype(np.uint64)).astype(np.int64), sizes)
    marked: Bool = ((place + 1) * t + start) // n > (place * t + start) // n
    return marked


def named_parts(codes: I64, values: Sequence[str], column: str, where: str) -> I8:
    """Return the part of each row, (n,), by a column of words such as "train" and "test".

    Args:
        codes: position in `values` of each row's word, -1 where it is missing.
        values: the words.
        column: the column's name.
        where: the file or files, for errors.

    Raises:
        DataError: a word is no part.
    """
    unknown = [v for v in values if v.strip().lower() not in PART_NAMES]
    if unknown or (codes < 0).any():
        got = f"{unknown[0]!r} in column {column!r}" if unknown else f"nothing in a row of column {column!r}"
        problem = f"{where}: {got} is not a part of the data; the parts are {', '.join(PART_NAMES)}"
        raise DataError("split_column", problem, fix="Correct it, or leave out split_column to split at random.")
    return np.array([PART_NAMES[v.strip().lower()] for v in values], np.int8)[codes]


def split_notice(parts: I8, how: str, empty: Sequence[str]) -> str:
    """Describe a split for people: how it was made, its sizes, and the clients without a training row."""
    counts = [f"{int((parts == p).sum()):,} {n}" for p, n in
              ((TRAINING, "training"), (VALIDATION, "validation"), (TEST, "test"))]  # fmt: skip
    text = f"split {how}: {', '.join(counts)} rows"
    if empty:
        text += f"; clients without a training row, which never train: {listed(empty)}"
    return text
