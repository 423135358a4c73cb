"""Norms of long vectors: added up in pieces, since one sum of a million float32 numbers may be off by a thousandth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LONG = 1 << 14
"""Numbers from which squares are added up in pieces of `PIECE`; below, float32 is off by 1e-5 at most."""
PIECE = 1 << 10


def square_sums(rows: Tensor) -> Tensor:
    """Return the squared norm of each row of [k, n], float64 [k].

    On a CUDA card torch adds up in a tree, which needs no pieces.

    Example:
        >>> square_sums(torch.tensor([[3.0, 4.0], [0.0, 2.0]])).tolist()
        [25.0, 4.0]
    """
    whole = rows.shape[1] // PIECE * PIECE
    if rows.shape[1] < LONG or rows.device.type != "cpu":
        return _squares(rows)
    return _squares(rows[:, :whole].reshape(len(rows), -1, PIECE)).sum(1).add_(_squares(rows[:, whole:]))


def _squares(rows: Tensor) -> Tensor:
    """Return the squared norms over the last axis, float64."""
    found: Tensor = torch.linalg.vector_norm(rows, dim=-1)
    return found.double().square_()


def norm(vector: Tensor) -> float:
    """Return the norm of a vector [n].

    Example:
        >>> norm(torch.tensor([3.0, 4.0]))
        5.0
    """
    if len(vector) >= LONG:
        return float(square_sums(vector[None]).sqrt())
    found = float(torch.linalg.vector_norm(vector[None], dim=-1))
    return math.sqrt(found * found)  # as of `square_sums`, without its small tensors
