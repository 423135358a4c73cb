"""Dropout whose masks are addressed by (seed, round, client, local step), the same in every engine."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from clients import streams


class Dropout(nn.Module):
    """Dropout that multiplies by a mask set from outside (`mask`), and is the identity without one.

    Masks hold 0 or 1/(1-p). An engine passes them as a buffer, so they may carry a client axis under `torch.func`.
    """

    mask: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("mask", torch.ones(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply `x` by the mask while training."""
        return x * self.mask if self.training else x

    def extra_repr(self) -> str:
        """Show p."""
        return f"p={self.p}"


@dataclass(frozen=True)
class DropoutSite:
    """One dropout module: its name, probability, and the shape of one example's activations there."""

    name: str
    p: float
    shape: tuple[int, ...]


def with_addressed_dropout(module: nn.Module) -> nn.Module:
    """Return a copy of `module` whose `nn.Dropout` children are ours (the same module name, no parameters)."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
    return module


def dropout_sites(module: nn.Module, example: Tensor) -> tuple[DropoutSite, ...]:
    """Find the dropout modules with p > 0 and their shapes by one forward pass in evaluation mode.

    Args:
        module: as returned by `with_addressed_dropout`.
        example: one batch of features [n, *feature_shape].
    """
    found: dict[str, DropoutSite] = {}

    def watch(name: str, site: Dropout) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert name not in found, f"dropout module {name} is used twice in one forward pass"
            found[name] = DropoutSite(name, site.p, tuple(inputs[0].shape[1:]))

        return site.register_forward_pre_hook(hook)

    sites = {n: m for n, m in module.named_modules() if isinstance(m, Dropout) and m.p > 0}
    if not sites:
        return ()
    handles = [watch(n, m) for n, m in sites.items()]
    was_training = module.training
    module.eval()
    with torch.no_grad():
        module(example)
    module.train(was_training)
    for handle in handles:
        handle.remove()
    return tuple(found.values())


def dropout_mask(
    site: DropoutSite,
    index: int,
    *,
    seed: int,
    round_index: int,
    clients: streams.I64,
    step: int,
    batch: int,
    dtype: torch.dtype,
) -> Tensor:
    """Return masks [K, batch, *site.shape] of local step `step` (from 0) for K clients.

    p is rounded to 1/65536, so that one 64-bit hash serves four elements. Example i of a batch has the same
    mask whatever the batch's length.
    """
    width = int(np.prod(site.shape, dtype=np.int64))
    words = -(-width // 4)
    key = streams.keys(seed, "dropout", round_index, clients, step * 1024 + index)
    lanes = streams.hashes(key, words * batch).view(np.uint16).reshape(len(clients), batch, words * 4)[:, :, :width]
    threshold = min(round(site.p * 65536), 65535)
    keep = torch.from_numpy(lanes >= np.uint16(threshold)).to(dtype)
    return keep.mul_(65536.0 / (65536 - threshold)).view(len(clients), batch, *site.shape)
