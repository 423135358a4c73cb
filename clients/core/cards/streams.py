"""The random numbers of `clients.core.streams`, made by torch on any device.

Hashes are integers, so they have the bits of NumPy's. torch has no arithmetic of unsigned 64-bit integers on cards:
hashes are int64 with the same bits, whose sums and products wrap around alike. Uniform numbers follow exactly. Normal
numbers go through the device's logarithm and cosine, and agree to a few units in the last place.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import U64


def signed(value: int) -> int:
    """Return the signed integer with the same 64 bits.

    Example:
        >>> signed(2**64 - 1), signed(5)
        (-1, 5)
    """
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = signed(0xBF58476D1CE4E5B9), signed(0x94D049BB133111EB)


def as_signed(keys: U64) -> Tensor:
    """Return keys as an int64 tensor of the same bits, in main memory."""
    return torch.from_numpy(np.ascontiguousarray(keys).view(np.int64))


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros, as an unsigned integer is."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def hashes(keys: Tensor, count: int) -> Tensor:
    """Return `count` hashes of each key, int64 [*keys.shape, count]: the bits of `streams.hashes`."""
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device).mul_(_GOLDEN)
    z = keys.unsqueeze(-1) + counter
    z ^= _shifted(z, 30)
    z *= _FIRST
    z ^= _shifted(z, 27)
    z *= _SECOND
    z ^= _shifted(z, 31)
    return z


def uniforms(keys: Tensor, count: int) -> Tensor:
    """Return `count` uniform numbers in (0, 1) of each key, float64: the bits of `streams.uniforms`."""
    return _shifted(hashes(keys, count), 11).double().add_(0.5).mul_(2.0**-53)


def normals(keys: Tensor, count: int) -> Tensor:
    """Return `count` standard normal numbers of each key, float64: `streams.normals` up to rounding."""
    half = (count + 1) // 2
    pairs = uniforms(keys, 2 * half)
    radius = pairs[..., :half].log().mul_(-2.0).sqrt_()
    angle = pairs[..., half:].mul(2.0 * math.pi)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=-1)[..., :count]


def bits(words: Tensor) -> Tensor:
    """Return the bits of int64 words [..., n], uint8 [..., 64 n], in the order of `numpy.unpackbits` on their bytes."""
    parts = words.contiguous().view(torch.uint8)
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=words.device)
    return ((parts.unsqueeze(-1) >> places) & 1).flatten(-2)
