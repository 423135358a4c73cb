"""Networks of radial basis functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clients.core.errors import UserError
from clients.models.network_options import RbfOptions


class RadialBasis(nn.Module):
    """Gaussians around centres [m, d] with the logarithms of their widths [m]; linear read-out, [n, outputs]."""

    def __init__(self, centres: Tensor, width: float, outputs: int, *, all_trained: bool) -> None:
        super().__init__()
        self.centres = nn.Parameter(centres, requires_grad=all_trained)
        widths = torch.full_like(centres[:, 0], math.log(width))
        self.log_widths = nn.Parameter(widths, requires_grad=all_trained)
        self.readout = nn.Linear(len(centres), outputs)

    def basis(self, x: Tensor) -> Tensor:
        """Return the value of each Gaussian at features [n, ...], [n, m]."""
        squares = (x.flatten(1).unsqueeze(1) - self.centres).square().sum(2)
        return torch.exp(-0.5 * squares * torch.exp(-2 * self.log_widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs [n, outputs]."""
        out: Tensor = self.readout(self.basis(x))
        return out


def rbf(o: RbfOptions, shape: tuple[int, ...], outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the network; its read-out starts at zero.

    Raises:
        UserError: given centres do not have as many numbers as an example.
    """
    inputs = math.prod(shape)
    if isinstance(o.centres, int):
        drawn = torch.empty(o.centres, inputs)
        centres = drawn if drawn.is_meta else drawn.normal_(0.0, o.spread, generator=generator)
    else:
        if len(o.centres[0]) != inputs:
            problem = f"have {len(o.centres[0])} numbers each, and an example has {inputs}"
            raise UserError("centres", problem, fix="Give a number for each feature, or how many centres to draw.")
        centres = torch.tensor(o.centres, dtype=torch.float64)
    module = RadialBasis(centres, o.width, outputs, all_trained=o.trained == "all")
    for parameter in module.readout.parameters():
        nn.init.zeros_(parameter)
    return module
