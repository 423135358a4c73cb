"""Measures along a client's local path: client drift and gradient norms.

client_drift is (1/S) sum of d_s over the local steps s = 1, ..., S, where d_s is the squared distance from the
broadcast parameters after s steps. d_s is measured at each of the first 16 steps, so the mean is exact for S <= 16.
Beyond, it is measured at 32, 64, ... and the last step and interpolated linearly between two of these (the trapezoid
rule of a sum). An interval of n steps then errs by at most (n^3 - n) / 12 times the largest second difference of d
within it. A straight path at constant speed, d_s = s^2, is overestimated by less than 1/14.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.core.numbers.norms import LONG, square_sums
from clients.core.parameters import Layout

EXACT_STEPS = 16
"""The first local steps, whose distances from the broadcast parameters are all measured."""


def is_measured(step: int) -> bool:
    """Return whether the gradient of local step `step` (from 1) is measured: 1, 2, 4, 8, ..."""
    return step & (step - 1) == 0


def is_placed(step: int) -> bool:
    """Return whether the distance after local step `step` (from 1) is measured: 1, 2, ..., 16, 32, 64, ..."""
    return step <= EXACT_STEPS or is_measured(step)


@cache
def measured_steps(last: int) -> tuple[int, ...]:
    """Return the local steps up to `last` whose gradients are measured."""
    return tuple(filter(is_measured, range(1, last + 1)))


@cache
def placed_steps(last: int) -> tuple[int, ...]:
    """Return the local steps up to `last` after which the distance is measured."""
    return tuple(filter(is_placed, range(1, last + 1)))


def distances(params: Mapping[str, Tensor], layout: Layout, anchor: Tensor) -> Tensor:
    """Return the distances of k clients' parameters, by name [k, *shape], from `anchor` [P], [k].

    One subtraction and one norm for all tensors cost less than a pair for each of them, where they are small.
    """
    if anchor.numel() < LONG:
        found: Tensor = torch.linalg.vector_norm(layout.flatten(params, lead=1).sub_(anchor), dim=1)
        return found
    start = layout.views(anchor)
    return squared_norms({n: p - start[n] for n, p in params.items()}).sqrt().to(anchor.dtype)


def squared_norms(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the squared norm over all tensors [k, ...] of each of k clients, float64 [k]."""
    total: Tensor | None = None
    for t in tensors.values():
        part = square_sums(t.flatten(1) if t.dim() > 1 else t.unsqueeze(1))
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


class PathMeter:
    """Measures client_drift, and the largest gradient norm, for a stack of clients.

    During training it only stores tensors, so that no step waits for a device; results are computed when they are
    read. They use NumPy, whose calls on short arrays cost a quarter of torch's.
    """

    def __init__(self, num_clients: int) -> None:
        self._num_clients = num_clients
        self._gradients: list[Tensor] = []
        self._steps: list[I64 | int] = []
        self._distances: list[Tensor] = []

    def gradient(self, squared_norm: Tensor) -> None:
        """Store the squared gradient norms [k] of the first k clients; the tensor must not change afterwards."""
        self._gradients.append(squared_norm)

    def position(self, steps: I64 | int, distance: Tensor) -> None:
        """Store the distances from the anchor [k] of the first k clients after `steps` local steps, in their order.

        A distance at the same step as the client's last one is ignored.
        """
        self._steps.append(steps)
        self._distances.append(distance)

    def gradient_norm(self) -> F64:
        """Return the largest stored gradient norm, float64 (K,)."""
        largest = np.zeros(self._num_clients)
        for squared_norm in _parted(_joined(self._gradients), self._gradients):
            k = len(squared_norm)
            np.maximum(largest[:k], np.sqrt(squared_norm), out=largest[:k])
        return largest

    def drift(self) -> F64:
        """Return the mean squared distance over the local steps, float64 (K,); 0 for a client without steps."""
        last_step, last, total = np.zeros((3, self._num_clients))
        with np.errstate(invalid="ignore", over="ignore"):
            for index, (steps, square) in enumerate(zip(self._steps, self._squares(), strict=True), start=1):
                k = len(square)
                if isinstance(steps, int) and steps == index:  # each step so far is stored
                    total[:k] += square
                else:
                    passed = steps - last_step[:k]
                    total[:k] += np.where(passed > 0, _between(passed, last[:k], square), 0.0)
                last[:k], last_step[:k] = square, steps
        drift: F64 = total / np.maximum(last_step, 1)
        return drift

    def _squares(self) -> list[F64]:
        """Return the stored distances, squared."""
        flat = _joined(self._distances).astype(np.float64)
        flat *= flat
        return _parted(flat, self._distances)


@dataclass(frozen=True)
class MeasuredPaths:
    """The measures of K clients whose local steps were all taken at once, in decreasing order of steps.

    Attributes:
        steps: local steps of each, int64 (K,).
        gradients: squared gradient norms at the measured steps, float64 (M, K); 0 after a client's last step.
        distances: distances from the start after the placed steps, float64 (Q, K); likewise.
        ends: distances after each client's last step, float64 (K,).
    """

    steps: I64
    gradients: F64
    distances: F64
    ends: F64

    def gradient_norm(self) -> F64:
        """Return the largest measured gradient norm, float64 (K,)."""
        largest: F64 = np.sqrt(self.gradients.max(axis=0, initial=0.0))
        return largest

    def drift(self) -> F64:
        """Return the mean squared distance over the local steps, float64 (K,); the same bits as `PathMeter.drift`."""
        steps = self.steps
        if not len(self.distances):
            return np.zeros(len(steps))
        with np.errstate(invalid="ignore", over="ignore"):
            squares = self.distances * self.distances
            # Step after step: `sum` would pair the numbers of a single client.
            total = np.add.accumulate(squares[:EXACT_STEPS], axis=0)[-1].copy()
            passed = np.minimum(steps, EXACT_STEPS)
            last = squares[passed - 1, np.arange(len(steps))]
            for place, step in enumerate(placed_steps(int(steps[0]))[EXACT_STEPS:], EXACT_STEPS):
                reached, square = steps >= step, squares[place]
                total += np.where(reached, _between(step - passed, last, square), 0.0)
                passed, last = np.where(reached, step, passed), np.where(reached, square, last)
            total += np.where(steps > passed, _between(steps - passed, last, self.ends * self.ends), 0.0)
        drift: F64 = total / np.maximum(steps, 1)
        return drift


def _between(passed: I64 | F64, last: F64, square: F64) -> F64:
    """Return the sum of squared distances over the steps since the last one that was placed, by trapezoids."""
    found: F64 = np.where(passed > 1, 0.5 * (passed - 1) * (last + square), 0.0) + square
    return found


def _joined(stored: list[Tensor]) -> F64:
    """Return stored tensors as one array, one after another: they leave the device together."""
    return torch.cat(stored).cpu().numpy() if stored else np.zeros(0)


def _parted(flat: F64, stored: list[Tensor]) -> list[F64]:
    """Return the parts of `_joined`, one for each stored tensor."""
    ends = accumulate(map(len, stored), initial=0)
    return [flat[start:end] for start, end in pairwise(ends)]
