"""Which of many things are shown or timed, where not all can be."""

from __future__ import annotations

import numpy as np

from clients.core.arrays import I64


def evenly_spaced(count: int, most: int) -> I64:
    """Return at most `most` of the places 0 ... count - 1, evenly spaced, with the first and, from two on, the last.

    Example:
        >>> evenly_spaced(3, 5).tolist(), evenly_spaced(101, 3).tolist(), evenly_spaced(7, 1).tolist()
        ([0, 1, 2], [0, 50, 100], [0])
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
