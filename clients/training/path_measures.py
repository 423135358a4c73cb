"""Measures taken along a client's local path: drift from the anchor and gradient norms, at few steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64


def is_measured(step: int) -> bool:
    """Say whether local step `step` (from 1) is measured: 1, 2, 4, 8, ..."""
    return step & (step - 1) == 0


def squared_norms(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the squared norm over all tensors [k, ...] of each of k clients, float64 [k]."""
    total: Tensor | None = None
    for t in tensors.values():
        flat = t.flatten(1) if t.dim() > 1 else t.unsqueeze(1)
        part = torch.linalg.vector_norm(flat, dim=1).double().square_()
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


class PathMeter:
    """Accumulates client_drift by the trapezoid rule, and the largest gradient norm, for a stack of clients.

    In NumPy, whose calls on one number a client cost a quarter of torch's.
    """

    def __init__(self, num_clients: int) -> None:
        self._step, self._distance, self._area = np.zeros((3, num_clients))
        self.gradient_norm: F64 = np.zeros(num_clients)

    def gradient(self, squared_norm: Tensor) -> None:
        """Note the squared gradient norms [k] of the first k clients."""
        k = len(squared_norm)
        np.maximum(self.gradient_norm[:k], np.sqrt(squared_norm.numpy()), out=self.gradient_norm[:k])

    def position(self, steps: I64 | int, squared_distance: Tensor) -> None:
        """Note the squared distances from the anchor [k] of the first k clients after `steps` local steps."""
        k, distance = len(squared_distance), squared_distance.numpy()
        with np.errstate(invalid="ignore", over="ignore"):
            self._area[:k] += 0.5 * (steps - self._step[:k]) * (self._distance[:k] + distance)
        self._step[:k], self._distance[:k] = steps, distance

    def drift(self) -> F64:
        """Return the mean squared distance over the steps noted so far, float64 (K,); 0 for a client without steps."""
        drift: F64 = self._area / np.maximum(self._step, 1)  # without a step the area is 0
        return drift
