"""Uplinks: how clients compress their updates, and the bytes they send."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.core.errors import UserError, require_numbers

RESIDUAL = "uplink_residual"
"""The client state that holds what the uplink left out of the last update."""


@dataclass(frozen=True)
class Uplink:
    """How pseudo-gradients travel from clients to the server.

    Attributes:
        name: for display, and for messages between machines: different uplinks have different names.
        compress: pseudo-gradients [K, P] -> what the server receives, [K, P]; None sends them whole.
        size: (parameters P, bytes of a number) -> bytes that one client sends.
        keeps_residual: whether a client adds to each update what was left out of its last one (error feedback).
    """

    name: str
    compress: Callable[[Tensor], Tensor] | None
    size: Callable[[int, int], int]
    keeps_residual: bool = False

    @property
    def client_state(self) -> tuple[str, ...]:
        """Names of the vectors that a client keeps for it."""
        return (RESIDUAL,) if self.keeps_residual else ()


IDENTITY = Uplink("identity", None, lambda parameters, itemsize: parameters * itemsize)


def top_k(fraction: float, *, error_feedback: bool = True) -> Uplink:
    """Send the largest entries of each update with their positions (32 bits each); the others become 0.

    With error feedback the client keeps what was left out and adds it to its next update. Source: Stich et al. 2018
    (NeurIPS), algorithm 1.

    Args:
        fraction: share of the entries that are sent, in (0, 1]; at least one entry is sent.
        error_feedback: whether clients keep what was left out.

    Raises:
        UserError: the fraction is outside (0, 1].

    Example:
        >>> top_k(0.5).compress(torch.tensor([[3.0, -1.0, 0.5, -4.0]]))
        tensor([[ 3., -0.,  0., -4.]])
    """
    require_numbers(fraction=fraction)
    if not 0 < fraction <= 1:
        raise UserError("fraction", f"must be in (0, 1], got {fraction}")

    def kept(parameters: int) -> int:
        return max(1, math.ceil(fraction * parameters))

    def compress(rows: Tensor) -> Tensor:
        index = rows.abs().topk(kept(rows.shape[1]), dim=1).indices
        return rows * torch.zeros_like(rows).scatter_(1, index, 1.0)

    name = f"top_k {fraction!r}{'' if error_feedback else ' without error feedback'}"
    return Uplink(name, compress, lambda p, itemsize: kept(p) * (itemsize + 4), error_feedback)
