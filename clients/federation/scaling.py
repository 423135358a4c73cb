"""Converts readings between their channels' units and deviations from their nominal means, in place; bounds outliers.

The conversions work on rows of many steps: rows of a single step's few channels would make slow inner loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clients.core.arrays import F32, F64
from clients.core.channels import Channel

OUTLIER = 10.0
"""Deviations from the median beyond which a reading is an outlier; a normal one is there once in 10^23 times."""
NORMAL = 1.4826
"""Standard deviation of a normal number over its median absolute deviation."""
_ROW = 4096  # numbers, at least
_BLOCK = 1 << 20  # numbers


def standardise(values: F32, channels: Sequence[Channel]) -> None:
    """Convert readings (..., C), contiguous, to nominal deviations from their nominal means.

    Example:
        >>> values = np.array([[12.0], [8.0]], np.float32)
        >>> standardise(values, [Channel(name="temperature", mean=10.0, deviation=2.0)])
        >>> values.tolist()
        [[1.0], [-1.0]]
    """
    _in_rows(values, channels, np.subtract, "mean")
    _in_rows(values, channels, np.divide, "deviation")


def restore(values: F32, channels: Sequence[Channel]) -> None:
    """Convert standardised readings (..., C), contiguous, to their channels' units."""
    _in_rows(values, channels, np.multiply, "deviation")
    _in_rows(values, channels, np.add, "mean")


def inliers(flat: F64) -> F64:
    """Return features (n, d) with outliers moved to a bound, so that one cannot set a fault's size.

    The bound is `OUTLIER` robust deviations from the feature's median, or `OUTLIER` times the root mean square of all
    features' robust deviations where that is more. A robust deviation is 1.4826 x the median absolute deviation. For
    features where that is 0, such as one-hot ones, it is the median of their deviations that are not 0. All other
    values stay as they are, to the bit.
    """
    middle, scale, rare = np.empty(flat.shape[1]), np.empty(flat.shape[1]), [np.zeros(0)]
    step = max(1, _BLOCK // len(flat))
    cuts = [slice(j, j + step) for j in range(0, flat.shape[1], step)]
    for cut in cuts:  # blocks of features need little extra memory
        middle[cut] = np.median(flat[:, cut], axis=0)
        away = np.abs(flat[:, cut] - middle[cut])
        scale[cut] = NORMAL * np.median(away, axis=0)
        varies_rarely = away[:, scale[cut] == 0]
        rare.append(varies_rarely[varies_rarely > 0])
    if any(map(len, rare)):
        scale[scale == 0] = np.median(np.concatenate(rare))
    bound = OUTLIER * np.maximum(scale, np.sqrt(np.mean(scale**2)))
    if not any((np.abs(flat[:, cut] - middle[cut]) > bound[cut]).any() for cut in cuts):
        return flat
    return np.asarray(np.clip(flat, middle - bound, middle + bound))


def _in_rows(values: F32, channels: Sequence[Channel], operation: Callable[..., Any], attribute: str) -> None:
    assert values.flags.c_contiguous
    assert values.shape[-1] == len(channels)
    row = np.tile(np.array([getattr(c, attribute) for c in channels], np.float32), -(-_ROW // len(channels)))
    flat = values.reshape(-1)
    whole = len(flat) // len(row) * len(row)
    some, rest = flat[:whole].reshape(-1, len(row)), flat[whole:]
    operation(some, row, out=some)
    operation(rest, row[: len(rest)], out=rest)
