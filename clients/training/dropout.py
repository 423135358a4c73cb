"""Dropout with masks addressed by (seed, round, client, local step), so that all engines use the same masks."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.core import streams
from clients.core.arrays import I64, U64


class Dropout(nn.Module):
    """Dropout that multiplies by a mask set from outside (`mask`); without a mask it is the identity.

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
    """Return a copy of `module` whose `nn.Dropout` children are this module's `Dropout`, under the same names."""
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


def dropout_keys(seed: int, round_index: int, clients: I64, steps: int, sites: int) -> U64:
    """Return the keys of a round's masks, one for each site, local step and client: (sites, steps, K)."""
    step, site = np.arange(steps)[None, :, None], np.arange(sites)[:, None, None]
    return streams.keys(seed, "dropout", round_index, clients[None, None, :], step, site)


def dropout_mask(site: DropoutSite, keys: U64, batch: int, dtype: torch.dtype) -> Tensor:
    """Return the masks [K, batch, *site.shape] of one local step for K clients.

    A 64-bit hash serves 64 elements where p is 1/2, and eight otherwise. In the second case a client's step drops with
    one of the two multiples of 1/256 around p, chosen at random so that every element is dropped with probability p
    (rounded to 2**-24). The mask of example i does not depend on the length of the batch.

    Args:
        site: the dropout module.
        keys: from `dropout_keys`, for this site and step, (K,).
        batch: examples in a batch.
        dtype: of the masks.
    """
    width, lanes = math.prod(site.shape), 64 if site.p == 0.5 else 8
    words = -(-width // lanes)
    drawn = streams.hashes(keys, words * batch).view(np.uint8)
    kept = np.unpackbits(drawn) if lanes == 64 else _kept(drawn.reshape(len(keys), -1), keys, site.p)
    kept = kept.reshape(len(keys), batch, words * lanes)[:, :, :width]
    mask = torch.from_numpy(kept).to(dtype).mul_(1 / (1 - site.p) if site.p < 1 else 0.0)
    return mask.view(len(keys), batch, *site.shape)


def _kept(drawn: npt.NDArray[np.uint8], keys: U64, p: float) -> npt.NDArray[np.uint8]:
    """Return which bytes [K, n] keep their element: those not below 256 p, rounded by the low bits of each key."""
    below, rest = divmod(round(p * 2**24), 2**16)
    threshold = (below + ((keys & np.uint64(0xFFFF)) < rest))[:, None]
    narrow = np.uint8 if below < 255 else np.uint16  # compare bytes with bytes unless a threshold may be 256
    kept = drawn >= threshold.astype(narrow)
    return kept.view(np.uint8)
