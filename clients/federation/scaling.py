"""Converts readings between their channels' units and deviations from their nominal means, in place.

The conversions work on rows of many steps: rows of a single step's few channels would make slow inner loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clients.core.arrays import F32
from clients.core.channels import Channel

_ROW = 4096  # numbers, at least


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


def _in_rows(values: F32, channels: Sequence[Channel], operation: Callable[..., Any], attribute: str) -> None:
    assert values.flags.c_contiguous
    assert values.shape[-1] == len(channels)
    row = np.tile(np.array([getattr(c, attribute) for c in channels], np.float32), -(-_ROW // len(channels)))
    flat = values.reshape(-1)
    whole = len(flat) // len(row) * len(row)
    some, rest = flat[:whole].reshape(-1, len(row)), flat[whole:]
    operation(some, row, out=some)
    operation(rest, row[: len(rest)], out=rest)
