"""A small transformer.

Attention is written out: torch's `scaled_dot_product_attention` has no batching rule for a stack of clients on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.models.build import initialised
from clients.models.sequence_options import TransformerOptions


class Block(nn.Module):
    """Attention and a feed-forward layer, each on normalised input and added to it, [n, time, width]."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the representations after the block."""
        x = x + self.joined(self._attended(self.queries_keys_values(self.before_attention(x))))
        out: Tensor = x + self.narrow(functional.gelu(self.wide(self.before_forward(x))))
        return out

    def _attended(self, mixed: Tensor) -> Tensor:
        """Return softmax(Q K' / sqrt(d)) V of each head, side by side; `mixed` has Q, K and V."""
        n, time, _ = mixed.shape
        q, k, v = mixed.reshape(n, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        joined: Tensor = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return joined


class Transformer(nn.Module):
    """Blocks over [n, time, channels] (or [n, time]); linear read-out of the mean over steps, [n, outputs]."""

    def __init__(self, time: int, channels: int, outputs: int, o: TransformerOptions) -> None:
        super().__init__()
        self.sinusoidal = o.positions == "sinusoidal"
        self.embedded = nn.Linear(channels, o.width)
        self.places = nn.Parameter(torch.zeros(time, o.width)) if o.positions == "learned" else None
        self.blocks = nn.Sequential(*(Block(o.width, o.heads, o.feed_forward) for _ in range(o.layers)))
        self.norm, self.readout = nn.LayerNorm(o.width), nn.Linear(o.width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs [n, outputs]."""
        h = self.embedded(x if x.dim() == 3 else x.unsqueeze(-1))
        if self.places is not None:
            h = h + self.places
        if self.sinusoidal:
            h = h + sinusoids(h)
        out: Tensor = self.readout(self.norm(self.blocks(h)).mean(1))
        return out


def sinusoids(like: Tensor) -> Tensor:
    """Return sin(t / 10000^(2i/width)) and cos of the same, [time, width], for a tensor [n, time, width]."""
    time, width = like.shape[-2:]
    pairs = torch.arange(0, width, 2, device=like.device, dtype=like.dtype)
    angle = torch.arange(time, device=like.device, dtype=like.dtype)[:, None] * 10_000.0 ** (-pairs / width)
    return torch.cat([angle.sin(), angle.cos()], 1)


def transformer(
    o: TransformerOptions, shape: tuple[int, ...], outputs: int, generator: torch.Generator | None
) -> nn.Module:
    """Build the transformer; weights start as Glorot and Bengio 2010 draw them, learned positions near zero."""
    module = Transformer(shape[0], shape[1] if len(shape) > 1 else 1, outputs, o)
    if module.places is not None and not module.places.is_meta:
        nn.init.normal_(module.places, std=0.02, generator=generator)
    return initialised(module, "xavier", generator)
