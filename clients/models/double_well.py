"""The parameter vector of a double well: a model with two minima and a saddle."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clients.models.options import DoubleWellModelOptions
from clients.models.starts import start_vector


class DoubleWell(nn.Module):
    """F(w; h, a, b) = h (w_1^2 - 1)^2 / 4 + a (w_2^2 + ... + w_d^2) / 2 + b' w, one value an example.

    Features are [h, a, b].
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the objective of each example, [n], from features [n, 2 + d]."""
        squares, d = self.w.square(), self.w.shape[-1]
        shape = x[:, 0] * (squares[0] - 1).square() / 4 + x[:, 1] * squares[1:].sum() / 2
        return shape + x[:, 2 : 2 + d] @ self.w


def double_well(
    o: DoubleWellModelOptions, shape: tuple[int, ...], outputs: int, generator: torch.Generator | None
) -> nn.Module:
    """Build the model of a double well in `outputs` dimensions."""
    return DoubleWell(start_vector(o.start, outputs))
