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


def dropout_keys(seed: int, round_index: int, clients: streams.I64, steps: int, sites: int) -> streams.U64:
    """Return what a round's masks are drawn from, one key a site, local step and client: (sites, steps, K)."""
    step, site = np.arange(steps)[None, :, None], np.arange(sites)[:, None, None]
    return streams.keys(seed, "dropout", round_index, clients[None, None, :], step, site)


def dropout_mask(site: DropoutSite, keys: streams.U64, batch: int, dtype: torch.dtype) -> Tensor:
    """Return the masks [K, batch, *site.shape] of one local step for K clients.

    p is rounded to 1/65536, so that one 64-bit hash serves four elements, eight where p is a multiple of 1/256, and
    64 where p is 1/2. Example i of a batch has the same mask whatever the batch's length.

    Args:
        site: the dropout module.
        keys: of `dropout_keys` for this site and step, (K,).
        batch: examples in a batch.
        dtype: of the masks.
    """
    bits = 1 if site.p == 0.5 else 8 if (site.p * 256).is_integer() else 16
    width, lanes = int(np.prod(site.shape, dtype=np.int64)), 64 // bits
    words = -(-width // lanes)
    drawn = streams.hashes(keys, words * batch)
    threshold = min(round(site.p * 2**bits), 2**bits - 1)
    lane = np.unpackbits(drawn.view(np.uint8)) if bits == 1 else drawn.view(f"u{bits // 8}")
    kept = lane if bits == 1 else lane >= lane.dtype.type(threshold)
    kept = kept.reshape(len(keys), batch, words * lanes)[:, :, :width]
    wide = np.float64 if dtype == torch.float64 else np.float32
    mask = torch.from_numpy(np.multiply(kept, 2**bits / (2**bits - threshold), dtype=wide))
    return mask.to(dtype).view(len(keys), batch, *site.shape)
