"""The sums behind a cohort's dispersion: by client, and by coordinate around the mean, in one pass over the updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, Bool
from clients.core.numbers.norms import square_sums
from server.dispersion.differences import Differences

Floats = np.ndarray[tuple[int], np.dtype[np.floating[Any]]]
Layers = Sequence[tuple[str, int, int]]

ALIKE = 1e-6
"""Around the mean in float32, a layer's dispersion is exact to 1e-6 where it is at least this share of the squared
mean: rounding moves the mean by 6e-8 of itself."""
LEAST_SQUARE = 1e-30
"""Mean squares from which float32 holds the squares of numbers."""


class Sums(NamedTuple):
    """Sums of one set of clients: by client [K], and by coordinate [P] around their own mean."""

    squares: F64
    distances: F64
    dots: F64
    mean: Floats
    spread: Floats
    aggregate_square: float


def sums_of(g: Differences, p: F64, aggregate: Tensor | None, layers: Layers) -> Sums:
    """Return the sums of large float32 updates on a CPU in float32 where that is exact to 1e-6, others in float64.

    Within a block sums are float32, of at most a few thousand numbers; blocks are added up in float64.

    Args:
        g: pseudo-gradients [K, P].
        p: weights [K] with sum 1. A row of weight 0 has its own squares, distances and dots, and is left out of the
            rest: 0 times nan is nan.
        aggregate: along which the dots are taken [P]; None for the mean.
        layers: (name, start, end) of each layer.
    """
    if g.is_large and g.rows.dtype == torch.float32 and g.rows.device.type == "cpu":
        found = _sums(g, p, aggregate, torch.float32)
        if _is_exact(found, p > 0, layers):
            return found
    return exact_sums(g, p, aggregate)


def exact_sums(g: Differences, p: F64, aggregate: Tensor | None = None) -> Sums:
    """Return the sums in float64; see `sums_of`."""
    return _sums(g, p, aggregate, torch.float64)


def _is_exact(found: Sums, counted: Bool, layers: Layers) -> bool:
    """Return whether sums in float32 neither overflow nor underflow, and no layer's clients are nearly equal."""
    with np.errstate(all="ignore"):
        spread, mean_square = by_layer(found.spread, layers), by_layer(found.mean**2, layers)
        values = (found.squares[counted], found.distances[counted], found.dots, spread, mean_square)
        finite = all(bool(np.isfinite(v).all()) for v in values)
        large = bool(found.squares.max() >= LEAST_SQUARE * len(found.mean))
        return finite and large and bool((spread >= ALIKE * mean_square).all())


def _sums(g: Differences, p: F64, aggregate: Tensor | None, dtype: torch.dtype) -> Sums:
    """Compute all sums in one pass, one block of columns at a time: blocks need little extra memory."""
    clients, size = g.rows.shape
    device = g.rows.device
    assert clients == len(p), "one weight a client"
    shares = torch.from_numpy(p).to(device, dtype)
    left_out = None if (p > 0).all() else torch.from_numpy(p == 0).to(device)[:, None]
    by_client = torch.zeros((3, clients), dtype=torch.float64, device=device)
    mean, spread = torch.empty((2, size), dtype=dtype, device=device)
    aggregate_square = torch.zeros((), dtype=torch.float64, device=device)
    for cut, block in g.blocks(dtype):
        summed = block if left_out is None else block.masked_fill(left_out, 0.0)
        here = torch.mv(summed.T, shares, out=mean[cut])
        along = here if aggregate is None else aggregate[cut].to(block)
        aggregate_square += along.double().square().sum() if dtype != torch.float64 else along.dot(along)
        by_client[0] += square_sums(block) if dtype != torch.float64 else _squares(block)
        by_client[1] += block.mv(along)
        block -= here
        block.square_()
        by_client[2] += block.sum(1)
        if left_out is not None:
            block.masked_fill_(left_out, 0.0)
        torch.mv(block.T, shares, out=spread[cut])
    squares, dots, distances = by_client.cpu().numpy()
    return Sums(squares, distances, dots, mean.cpu().numpy(), spread.cpu().numpy(), float(aggregate_square))


def _squares(block: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(block, dim=1).square_()
    return found


def by_layer(values: Floats, layers: Layers) -> F64:
    """Return the sum of values [P] over each layer, float64."""
    found: F64 = np.add.reduceat(values, starts(layers, len(values)), dtype=np.float64)
    return found


def starts(layers: Layers, size: int) -> list[int]:
    """Return the start of each layer; assert that layers are in order, not empty and without gaps."""
    begins, ends = [start for _, start, _ in layers], [end for _, _, end in layers]
    assert [0, *ends] == [*begins, size], "layers follow each other without gaps"
    assert all(map(int.__lt__, begins, ends)), "no layer is empty"
    return begins
