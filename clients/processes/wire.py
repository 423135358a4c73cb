"""Messages between processes: a JSON head and named tensors, in one tensor of bytes. No object is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_ALIGNED = 64
_TYPES = {
    str(t).removeprefix("torch."): t
    for t in (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16,
              torch.int8, torch.uint8, torch.bool)
}  # fmt: skip


@dataclass(frozen=True)
class Message:
    """A message.

    Attributes:
        head: what JSON can express.
        tensors: named tensors of any shape; those on a card travel through main memory.
    """

    head: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def pack(message: Message) -> Tensor:
    """Return a message as bytes, uint8 [n].

    Example:
        >>> sent = Message({"job": "train"}, {"clients": torch.tensor([3, 5])})
        >>> received = unpack(pack(sent))
        >>> received.head["job"], received.tensors["clients"].tolist()
        ('train', [3, 5])
    """
    flat = {name: t.detach().cpu().contiguous() for name, t in message.tensors.items()}
    listed = [(name, str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in flat.items()]
    head = json.dumps([message.head, listed]).encode()
    start = _aligned(8 + len(head))
    size = start + sum(_aligned(_bytes(t)) for t in flat.values())
    out = torch.empty(size, dtype=torch.uint8)
    out[:8] = torch.tensor([len(head)]).view(torch.uint8)
    out[8 : 8 + len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
    for t in flat.values():
        if t.numel():
            out[start : start + _bytes(t)] = t.reshape(-1).view(torch.uint8)
        start += _aligned(_bytes(t))
    return out


def unpack(data: Tensor) -> Message:
    """Return the message in some bytes; its tensors share their memory."""
    length = int(data[:8].view(torch.int64))
    head, listed = json.loads(data[8 : 8 + length].numpy().tobytes())
    start, tensors = _aligned(8 + length), {}
    for name, kind, shape in listed:
        empty = torch.empty(0, dtype=_TYPES[kind])
        size = empty.element_size() * torch.Size(shape).numel()
        tensors[name] = data[start : start + size].view(_TYPES[kind]).view(shape)
        start += _aligned(size)
    return Message(head, tensors)


def _bytes(t: Tensor) -> int:
    return t.numel() * t.element_size()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
