"""Dropout with masks addressed by (seed, round, client, local step), so that all engines use the same masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from clients.core import streams
from clients.core.arrays import I64, U64
from clients.core.cards import streams as device_streams
from clients.modules.copies import copy_module

KINDS: tuple[type[nn.Module], ...] = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout
)  # fmt: skip
"""The modules of torch whose masks are addressed. Subclasses are not: they may draw anything."""
_HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
          "_backward_hooks", "_backward_pre_hooks")  # fmt: skip
_ALPHA = -1.7580993408473766
"""What alpha dropout sets dropped values to: the negative limit of SELU."""


class Dropout(nn.Module):
    """Any of torch's dropout modules, with a mask set from outside; without a mask it is the identity.

    A mask holds 0 or 1/(1-p). The stacked engine passes masks as buffers, so they may carry a client axis under
    `torch.func`: `mask` for the first call of a pass, `mask_2` for the second and so on. The plain engine sets `draw`.

    Args:
        p: the probability of dropping.
        kind: the name of torch's module.
        inplace: whether it changes its input, as in torch.

    Attributes:
        draw: (module, input) -> mask; None takes the buffers.
        calls: calls in one pass, for which there are buffers.
        count: calls in this pass so far; counted only where there are several.
    """

    mask: Tensor

    def __init__(self, p: float, kind: str = "Dropout", *, inplace: bool = False) -> None:
        super().__init__()
        self.p, self.kind, self.inplace = p, kind, inplace
        self.draw: Callable[[Dropout, Tensor], Tensor] | None = None
        self.calls, self.count = 1, 0
        self.register_buffer("mask", torch.ones(()), persistent=False)

    def reserve(self, calls: int) -> None:
        """Make buffers for the masks of several calls in one pass."""
        self.calls = calls
        for call in range(1, calls):
            self.register_buffer(mask_name(call), torch.ones(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the mask to `x` while training."""
        if not self.training or self.p == 0:
            return x
        mask = self.draw(self, x) if self.draw is not None else self._passed()
        if mask.dim() == 0:
            return x
        if mask.dtype != x.dtype and x.is_floating_point():
            mask = mask.to(x.dtype)
        if x.dim() == 0:
            mask = mask[0]
        if "Alpha" not in self.kind or self.p == 1:
            return x.mul_(mask) if self.inplace else x * mask
        scale = ((1 - self.p) * (1 + self.p * _ALPHA**2)) ** -0.5
        kept = (mask != 0).to(mask.dtype)
        shift = _ALPHA * (1 - kept) * scale - scale * _ALPHA * self.p
        return x.mul_(kept * scale).add_(shift) if self.inplace else x * (kept * scale) + shift

    def _passed(self) -> Tensor:
        """Return the mask of this call from the buffers."""
        if self.calls == 1:
            return self.mask
        if self.count >= self.calls:
            raise RuntimeError(f"a Dropout module is called more than {self.calls} times in this pass")
        self.count += 1
        mask: Tensor = getattr(self, mask_name(self.count - 1))
        return mask

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of the mask for an input: one number for each element, or for each channel."""
        shape = tuple(x.shape) or (1,)
        if self.kind in ("Dropout", "AlphaDropout"):
            return shape
        unbatched = {"Dropout1d": 2, "Dropout3d": 4}.get(self.kind) == len(shape)  # torch takes axis 0 for channels
        kept = 1 if unbatched else 2
        return shape[:kept] + (1,) * (len(shape) - kept)

    def extra_repr(self) -> str:
        """Show p, and the kind if it is not `Dropout`."""
        return f"p={self.p}" + ("" if self.kind == "Dropout" else f", kind={self.kind}")


def mask_name(call: int) -> str:
    """Return the name of the buffer that holds the mask of a call, counted from 0."""
    return "mask" if call == 0 else f"mask_{call + 1}"


@dataclass(frozen=True)
class DropoutSite:
    """One call of a dropout module in a pass.

    Attributes:
        name: the module's name in the model.
        p: the probability of dropping.
        shape: the shape of the mask without its batch axis.
        call: the call's number among those of the same module, from 0.
        axis: the batch axis of the mask; None if the shape does not depend on the batch.
        rows: how many times as long as the batch that axis is: 10 where batches of 10 steps are flattened.
    """

    name: str
    p: float
    shape: tuple[int, ...]
    call: int = 0
    axis: int | None = 0
    rows: int = 1

    @property
    def key(self) -> str:
        """A name for its mask: the module's, with "#2" for its second call and so on."""
        return self.name if self.call == 0 else f"{self.name}#{self.call + 1}"

    @property
    def buffer(self) -> str:
        """The name of the buffer that takes its mask."""
        return f"{self.name}.{mask_name(self.call)}"

    @property
    def is_usual(self) -> bool:
        """Whether the mask is [batch, *shape]."""
        return self.axis == 0 and self.rows == 1

    @property
    def by_example(self) -> bool:
        """Whether a part of the mask belongs to one example, wherever it is in the batch."""
        return self.rows == 1

    def mask_shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of the mask for a batch."""
        if self.axis is None:
            return self.shape
        return (*self.shape[: self.axis], batch * self.rows, *self.shape[self.axis :])


def with_addressed_dropout(module: nn.Module) -> nn.Module:
    """Return a copy of `module` whose dropout parts (`KINDS`) are this module's `Dropout`, under the same names.

    A part in several places stays one part.
    """
    module = copy_module(module)
    made: dict[int, Dropout] = {}
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if type(child) in KINDS and isinstance(child, _DropoutNd):
                if id(child) not in made:
                    made[id(child)] = _addressed(child)
                setattr(parent, name, made[id(child)])
    return module


def _addressed(part: _DropoutNd) -> Dropout:
    """Return our dropout in place of torch's, with its hooks."""
    ours = Dropout(part.p, type(part).__name__, inplace=part.inplace).train(part.training)
    for name in _HOOKS:
        setattr(ours, name, getattr(part, name))
    return ours


def dropout_keys(seed: int, round_index: int, clients: I64, steps: int, sites: int) -> U64:
    """Return the keys of a round's masks, one for each site, local step and client: (sites, steps, K)."""
    step, site = np.arange(steps)[None, :, None], np.arange(sites)[:, None, None]
    return streams.keys(seed, "dropout", round_index, clients[None, None, :], step, site)


def dropout_mask(site: DropoutSite, keys: U64 | Tensor, batch: int, dtype: torch.dtype) -> Tensor:
    """Return the masks [K, *site.mask_shape(batch)] of one local step for K clients.

    A 64-bit hash serves 64 elements where p is 1/2, and eight otherwise. In the second case a client's step drops with
    one of the two multiples of 1/256 around p, chosen at random so that every element is dropped with probability p
    (rounded to 2**-24). The part of example i does not depend on the length of the batch, unless `site.rows` differs
    from 1: then rows may be in any order.

    Args:
        site: the call of a dropout module.
        keys: from `dropout_keys`, for this site and step, (K,); or the same on a device, int64, which then has the same
            masks.
        batch: examples in a batch.
        dtype: of the masks.
    """
    width, lanes = math.prod(site.shape) * site.rows, 64 if site.p == 0.5 else 8
    parts = batch if site.axis is not None else 1
    words = -(-width // lanes)
    if isinstance(keys, Tensor):
        kept = _kept_there(keys, words * parts, site.p, lanes)
    else:
        drawn = streams.hashes(keys, words * parts).view(np.uint8)
        kept = torch.from_numpy(
            np.unpackbits(drawn) if lanes == 64 else _kept(drawn.reshape(len(keys), -1), keys, site.p)
        )
    kept = kept.view(len(keys), parts, words * lanes)[:, :, :width]
    mask = kept.to(dtype).mul_(1 / (1 - site.p) if site.p < 1 else 0.0)
    if site.is_usual:
        return mask.view(len(keys), batch, *site.shape)
    axis = site.axis or 0
    return mask.view(len(keys), -1, *site.shape).movedim(1, axis + 1).reshape(len(keys), *site.mask_shape(batch))


def _kept(drawn: npt.NDArray[np.uint8], keys: U64, p: float) -> npt.NDArray[np.uint8]:
    """Return which bytes [K, n] keep their element: those not below 256 p, rounded by the low bits of each key."""
    below, rest = divmod(round(p * 2**24), 2**16)
    threshold = (below + ((keys & np.uint64(0xFFFF)) < rest))[:, None]
    narrow = np.uint8 if below < 255 else np.uint16  # compare bytes with bytes unless a threshold may be 256
    kept = drawn >= threshold.astype(narrow)
    return kept.view(np.uint8)


def _kept_there(keys: Tensor, words: int, p: float, lanes: int) -> Tensor:
    """Return which elements of each key are kept, uint8 [K, words * lanes], on the device of the keys."""
    drawn = device_streams.hashes(keys, words)
    if lanes == 64:
        return device_streams.bits(drawn)
    below, rest = divmod(round(p * 2**24), 2**16)
    threshold = below + ((keys & 0xFFFF) < rest).to(torch.int16)
    return (drawn.view(torch.uint8) >= threshold.unsqueeze(1)).to(torch.uint8)
