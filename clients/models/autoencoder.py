"""The autoencoder: layers down to a code and back."""

from __future__ import annotations

import math

import torch
from torch import nn

from clients.core.errors import UserError
from clients.models.build import ACTIVATIONS, initialised
from clients.models.network_options import AutoencoderOptions


def autoencoder(
    o: AutoencoderOptions, shape: tuple[int, ...], outputs: int, generator: torch.Generator | None
) -> nn.Module:
    """Build an autoencoder of flattened features; weights start as Glorot and Bengio 2010 draw them.

    Raises:
        UserError: the targets do not have the features' size (field `kind`).
    """
    inputs = math.prod(shape)
    if outputs != inputs:
        raise UserError(
            "kind",
            f"'autoencoder' reproduces its {inputs} features, and the data have {outputs} targets",
            fix="Use data that reconstruct, as data.kind = 'bridge' with data.task = 'reconstruct', or another model.",
        )
    widths = (inputs, *o.hidden, o.code, *reversed(o.hidden), outputs)
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    for i in range(1, len(widths)):
        layers.append(nn.Linear(widths[i - 1], widths[i]))
        if i not in (len(o.hidden) + 1, len(widths) - 1):
            layers.append(ACTIVATIONS[o.activation]())
    return initialised(nn.Sequential(*layers), "xavier", generator)
