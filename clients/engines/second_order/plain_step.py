"""A second-order step of one client, whose parameters and gradients are those of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from clients.engines.batch import Batch
from clients.engines.second_order.stacked_step import StackedStep


def precondition(
    step: StackedStep, named: Mapping[str, nn.Parameter], batch: Batch, backward: Callable[[], object]
) -> None:
    """Replace the gradients of parameters by what a second-order optimiser steps along.

    Args:
        step: of a stack of one client.
        named: the trainable parameters by name, with their corrected gradients; their values stay as they are.
        batch: the client's batch, [1, b, ...].
        backward: adds the gradient of that batch's loss to the parameters'.
    """
    here = {n: p.detach().clone()[None] for n, p in named.items()}

    def gradients() -> dict[str, Tensor]:
        return {n: (p.grad if p.grad is not None else torch.zeros_like(p))[None] for n, p in named.items()}

    def gradients_at(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        for name, p in named.items():
            p.copy_(params[name][0])
            p.grad = None
        with torch.enable_grad():
            backward()
        return gradients()

    found = step.preconditioned(here, gradients(), batch, gradients_at)
    for name, p in named.items():
        p.copy_(here[name][0])
        p.grad = found[name][0]
