"""The recursion of every quantity in the city that has a memory: y_t = gain x_t + stay y_(t-1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from clients.core.arrays import F64


def recursion(values: F64, stay: float, *, gain: float = 1.0, before: float | None = None, axis: int = -1) -> F64:
    """Return y_t = gain x_t + stay y_(t-1) along an axis, float64 of the shape of `values`.

    With noise for x it is an AR(1) process, with gain 1 - stay an exponential smoother.

    Args:
        values: x.
        stay: share of the previous value that is kept.
        gain: of x.
        before: y before the first value, of one series; None for 0.
        axis: time.

    Example:
        >>> recursion(np.array([1.0, 0.0, 0.0]), 0.5).tolist()
        [1.0, 0.5, 0.25]
        >>> recursion(np.array([8.0, 8.0]), 0.75, gain=0.25, before=8.0).tolist()
        [8.0, 8.0]
    """
    from scipy.signal import lfilter  # the import takes half a second, and reading a scenario does not need it

    if before is None:
        return np.asarray(lfilter([gain], [1.0, -stay], values, axis=axis))
    found: tuple[Any, Any] = lfilter([gain], [1.0, -stay], values, axis=axis, zi=[stay * before])
    return np.asarray(found[0])
