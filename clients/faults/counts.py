"""Fault counts: by fault, the share of each client's readings or labels that it changed, and its effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from clients.core.arrays import F64, Array
from clients.core.examples import FaultCounts


def fault_counts(faults: Iterable[str], changed: Mapping[str, F64], effect: Mapping[str, F64]) -> FaultCounts:
    """Return the counts of some clients, with faults in a given order.

    Values are rounded to float32, which is the precision that records have.

    Args:
        faults: names, in order.
        changed: by fault, shares (K,).
        effect: by fault, effects (K,).
    """
    names = list(faults)
    return FaultCounts({n: _rounded(changed[n]) for n in names}, {n: _rounded(effect[n]) for n in names})


def _rounded(values: F64) -> F64:
    return values.astype(np.float32).astype(np.float64)


def changed_share(mask: Array, measured: npt.ArrayLike = True) -> F64:
    """Return the share of each client's readings (or labels) that a fault changed, float64 (K,).

    Args:
        mask: the readings (K, T, C) or labels (K, n) that it changed.
        measured: the channels that a sensor measures, bool (C,); shares are of their readings.

    Example:
        >>> changed_share(np.array([[True, False], [False, False]])).tolist()
        [0.5, 0.0]
    """
    channels = np.asarray(measured)
    if mask.ndim == 3 and channels.ndim:
        mask = mask[:, :, channels]
    of_client = tuple(range(1, mask.ndim))
    return np.asarray(mask.sum(axis=of_client) / max(1, int(np.prod(mask.shape[1:]))), np.float64)
