"""Measures taken along a client's local path: drift from the anchor and gradient norms, at few steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


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
    """Accumulates client_drift by the trapezoid rule, and the largest gradient norm, for a stack of clients."""

    def __init__(self, num_clients: int) -> None:
        self._step = torch.zeros(num_clients, dtype=torch.float64)
        self._distance = torch.zeros(num_clients, dtype=torch.float64)
        self._area = torch.zeros(num_clients, dtype=torch.float64)
        self.gradient_norm = torch.zeros(num_clients, dtype=torch.float64)

    def gradient(self, squared_norm: Tensor) -> None:
        """Note the squared gradient norms [k] of the first k clients."""
        k = len(squared_norm)
        norm = squared_norm.sqrt()
        self.gradient_norm[:k] = torch.maximum(self.gradient_norm[:k], norm)

    def position(self, steps: Tensor | int, squared_distance: Tensor) -> None:
        """Note the squared distances from the anchor [k] of the first k clients after `steps` local steps."""
        k = len(squared_distance)
        gap = steps - self._step[:k]
        self._area[:k] += 0.5 * gap * (self._distance[:k] + squared_distance)
        self._step[:k], self._distance[:k] = torch.as_tensor(steps, dtype=torch.float64), squared_distance

    def drift(self) -> Tensor:
        """Return the mean squared distance over the steps noted so far, float64 [K]; 0 for a client without steps."""
        return torch.where(self._step > 0, self._area / self._step.clamp_min(1), 0.0)
