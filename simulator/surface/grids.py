"""The places at which a surface is measured: a grid around points of a plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64

MARGIN = 0.25
"""What is added around the points, as a share of their extent, on each side."""
NARROWEST = 0.1
"""The least half of an axis, as a share of the other axis."""


@dataclass(frozen=True)
class PlaneGrid:
    """A grid of places in a plane.

    Attributes:
        x: float64 (size,), increasing.
        y: likewise.
    """

    x: F64
    y: F64

    def places(self, start: int, end: int) -> F64:
        """Return the places number `start` to `end` of size x size, row after row of one y, (end - start, 2)."""
        rows, columns = np.divmod(np.arange(start, end), len(self.x))
        return np.stack([self.x[columns], self.y[rows]], axis=1)


def grid_around(places: F64, size: int) -> PlaneGrid:
    """Return a grid of size x size around places (n, 2), with a margin.

    Example:
        >>> grid = grid_around(np.array([[0.0, 0.0], [4.0, 1.0]]), 3)
        >>> grid.x.tolist(), grid.y.tolist()
        ([-1.0, 2.0, 5.0], [-0.25, 0.5, 1.25])
    """
    low, high = places.min(0), places.max(0)
    half = (0.5 + MARGIN) * (high - low)
    half = np.maximum(half, NARROWEST * half.max())
    half = np.where(half > 0, half, 1.0)
    return _grid((low + high) / 2, half, size)


def unit_grid(size: int) -> PlaneGrid:
    """Return the grid from -1 to 1 in both directions."""
    return _grid(np.zeros(2), np.ones(2), size)


def _grid(middle: F64, half: F64, size: int) -> PlaneGrid:
    steps = np.linspace(-1.0, 1.0, size)
    return PlaneGrid(middle[0] + half[0] * steps, middle[1] + half[1] * steps)
