"""Measures along a client's local path: client drift and gradient norms, at few steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64


def is_measured(step: int) -> bool:
    """Return whether local step `step` (from 1) is measured: 1, 2, 4, 8, ..."""
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
    """Measures client_drift by the trapezoid rule, and the largest gradient norm, for a stack of clients.

    During training it only stores tensors, so that no step waits for a device; results are computed when they are
    read. They use NumPy, whose calls on short arrays cost a quarter of torch's.
    """

    def __init__(self, num_clients: int) -> None:
        self._num_clients = num_clients
        self._gradients: list[Tensor] = []
        self._positions: list[tuple[I64 | int, Tensor]] = []

    def gradient(self, squared_norm: Tensor) -> None:
        """Store the squared gradient norms [k] of the first k clients; the tensor must not change afterwards."""
        self._gradients.append(squared_norm)

    def position(self, steps: I64 | int, squared_distance: Tensor) -> None:
        """Store the squared distances from the anchor [k] of the first k clients after `steps` local steps."""
        self._positions.append((steps, squared_distance))

    def gradient_norm(self) -> F64:
        """Return the largest stored gradient norm, float64 (K,)."""
        largest = np.zeros(self._num_clients)
        for squared_norm in self._gradients:
            k = len(squared_norm)
            np.maximum(largest[:k], np.sqrt(squared_norm.cpu().numpy()), out=largest[:k])
        return largest

    def drift(self) -> F64:
        """Return the mean squared distance over the stored steps, float64 (K,); 0 for a client without steps."""
        last_step, last_distance, area = np.zeros((3, self._num_clients))
        for steps, squared_distance in self._positions:
            k, distance = len(squared_distance), squared_distance.cpu().numpy()
            with np.errstate(invalid="ignore", over="ignore"):
                area[:k] += 0.5 * (steps - last_step[:k]) * (last_distance[:k] + distance)
            last_step[:k], last_distance[:k] = steps, distance
        drift: F64 = area / np.maximum(last_step, 1)  # without steps the area is 0
        return drift
