"""Intervals for paired differences: one draw proves nothing where a claim is statistical."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import stats


def low(differences: Iterable[float], level: float = 0.975) -> float:
    """Return the lower end of Student's interval for the mean difference: above 0, the first is larger beyond chance.

    Example:
        >>> low([1.0, 1.1, 0.9, 1.0]) > 0, low([1.0, -1.1, 0.9, -1.0]) > 0
        (True, False)
    """
    d = np.asarray(list(differences), np.float64)
    return float(d.mean() - stats.t.ppf(level, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)))
