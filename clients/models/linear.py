"""Linear classifiers, started at zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.models.linear_options import LinearClassifierOptions


class TwoClasses(nn.Module):
    """[n, 1] scores of class 1 -> [n, 2] scores, with 0 for class 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of both classes."""
        return functional.pad(x, (1, 0))


def linear_classifier(
    o: LinearClassifierOptions, shape: tuple[int, ...], outputs: int, generator: torch.Generator | None
) -> nn.Module:
    """Build a linear classifier: one weight vector for two classes, else one a class."""
    flatten = [nn.Flatten()] if len(shape) > 1 else []
    layer = nn.Linear(math.prod(shape), 1 if outputs == 2 else outputs, bias=o.bias)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(*flatten, layer, *([TwoClasses()] if outputs == 2 else []))
