"""The sums behind a cohort's dispersion: by client and by layer, in one pass over the updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, Bool
from clients.core.numbers.norms import square_sums
from server.dispersion.differences import Differences

Layers = Sequence[tuple[str, int, int]]

ALIKE = 1e-6
"""Around the mean in float32, a layer's dispersion is exact to 1e-6 where it is at least this share of the squared
mean: rounding moves the mean by 6e-8 of itself."""
LEAST_SQUARE = 1e-30
"""Mean squares from which float32 holds the squares of numbers."""


class Sums(NamedTuple):
    """Sums of one set of clients: by client [K], and by layer around their own mean.

    Attributes:
        squares: squared norms (K,).
        distances: squared distances from the mean (K,).
        dots: products with the aggregate (K,).
        mean_square: squared norm of the mean in each layer.
        spread: weighted mean of the squared distances in each layer.
        aggregate_square: squared norm of the aggregate.
        mean: the mean (P,); None where it was not kept.
    """

    squares: F64
    distances: F64
    dots: F64
    mean_square: F64
    spread: F64
    aggregate_square: float
    mean: F64 | None = None


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
        found = _quick_sums(g, p, aggregate, layers)
        if _is_exact(found, p > 0, g.rows.shape[1]):
            return found
    return exact_sums(g, p, layers, aggregate)


def _is_exact(found: Sums, counted: Bool, size: int) -> bool:
    """Return whether sums in float32 neither overflow nor underflow, and no layer's clients are nearly equal."""
    values = (found.squares[counted], found.distances[counted], found.dots[counted], found.spread, found.mean_square)
    finite = all(bool(np.isfinite(v).all()) for v in values)
    is_large = bool(found.squares.max() >= LEAST_SQUARE * size)
    return finite and is_large and bool((found.spread >= ALIKE * found.mean_square).all())


def _quick_sums(g: Differences, p: F64, aggregate: Tensor | None, layers: Layers) -> Sums:
    """Compute all sums in float32, one block of columns at a time; blocks are added up in float64."""
    assert len(g.rows) == len(p), "one weight a client"
    starts(layers, g.rows.shape[1])
    shares = torch.from_numpy(p).float()
    left_out = None if (p > 0).all() else torch.from_numpy(p == 0)[:, None]
    squares, dots, distances = torch.zeros((3, len(p)), dtype=torch.float64)
    mean_square, spread = torch.zeros((2, len(layers)), dtype=torch.float64)
    aggregate_square = torch.zeros(1, dtype=torch.float64)
    for cut, block in g.blocks(torch.float32):
        here = (block if left_out is None else block.masked_fill(left_out, 0.0)).T.mv(shares)
        along = here if aggregate is None else aggregate[cut].float()
        aggregate_square += square_sums(along[None])
        squares += square_sums(block)
        dots += block.mv(along)
        distances += block.sub_(here).square_().sum(1)
        if left_out is not None:
            block.masked_fill_(left_out, 0.0)
        around = block.T.mv(shares)
        for number, (_, start, end) in enumerate(layers):
            if start < cut.stop and end > cut.start:
                part = slice(max(start, cut.start) - cut.start, min(end, cut.stop) - cut.start)
                mean_square[number] += square_sums(here[None, part])[0]
                spread[number] += around[part].sum(dtype=torch.float64)
    return Sums(
        squares.numpy(), distances.numpy(), dots.numpy(), mean_square.numpy(), spread.numpy(), float(aggregate_square)
    )


def exact_sums(g: Differences, p: F64, layers: Layers, aggregate: Tensor | None = None) -> Sums:
    """Return the sums in float64; see `sums_of`. Blocks of columns need little extra memory."""
    clients, size = g.rows.shape
    device = g.rows.device
    assert clients == len(p), "one weight a client"
    shares = torch.from_numpy(p).to(device)
    left_out = None if (p > 0).all() else (shares == 0)[:, None]
    by_client = torch.zeros((3, clients), dtype=torch.float64, device=device)
    mean, spread = torch.empty((2, size), dtype=torch.float64, device=device)
    aggregate_square = torch.zeros((), dtype=torch.float64, device=device)
    for cut, block in g.blocks(torch.float64):
        summed = block if left_out is None else block.masked_fill(left_out, 0.0)
        here = torch.mv(summed.T, shares, out=mean[cut])
        along = here if aggregate is None else aggregate[cut].to(block)
        aggregate_square += along.dot(along)
        by_client[0] += torch.linalg.vector_norm(block, dim=1).square_()
        by_client[1] += block.mv(along)
        block -= here
        block.square_()
        by_client[2] += block.sum(1)
        if left_out is not None:
            block.masked_fill_(left_out, 0.0)
        torch.mv(block.T, shares, out=spread[cut])
    squares, dots, distances = by_client.cpu().numpy()
    whole = mean.cpu().numpy()
    with np.errstate(all="ignore"):
        mean_square, around = by_layer(whole**2, layers), by_layer(spread.cpu().numpy(), layers)
    return Sums(squares, distances, dots, mean_square, around, float(aggregate_square), whole)


def by_layer(values: F64, layers: Layers) -> F64:
    """Return the sum of values [P] over each layer."""
    found: F64 = np.add.reduceat(values, starts(layers, len(values)))
    return found


def starts(layers: Layers, size: int) -> list[int]:
    """Return the start of each layer; assert that layers are in order, not empty and without gaps."""
    begins, ends = [start for _, start, _ in layers], [end for _, _, end in layers]
    assert [0, *ends] == [*begins, size], "layers follow each other without gaps"
    assert all(map(int.__lt__, begins, ends)), "no layer is empty"
    return begins
