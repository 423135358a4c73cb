"""A card made of main memory: tensors that say they are on another device, and have their numbers.

torch's device `meta` gives its name; a mode makes tensors on it, and a subclass computes with hidden tensors of main
memory. An operation of tensors on two devices raises, as on a real card; so does one that NumPy reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CARD = torch.device("meta")


class OnCard(Tensor):
    """A tensor on the card; `hidden` has its numbers."""

    hidden: Tensor

    @staticmethod
    def __new__(cls, hidden: Tensor) -> OnCard:
        made = Tensor._make_wrapper_subclass(
            cls, hidden.shape, strides=hidden.stride(), storage_offset=hidden.storage_offset(), dtype=hidden.dtype,
            device=CARD,
        )  # fmt: skip
        made.hidden = hidden
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, dict(kwargs or {}))

    def __repr__(self, *_, **__) -> str:
        return f"OnCard({self.hidden!r})"


class _Card(TorchDispatchMode):
    """Makes tensors on the card where one is named."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        return _computed(func, args, kwargs)


def _computed(func, args, kwargs):
    """Run an operation on hidden tensors, and return its result on the device that torch would give it."""
    name = func.overloadpacket.__name__
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in tensors if isinstance(t, OnCard)]
    device = kwargs.get("device")
    to_card = bool(there) if device is None else torch.device(device) == CARD
    if name not in ("copy_", "_to_copy") and there and any(t.dim() for t in tensors if not isinstance(t, OnCard)):
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}")
    if device is not None and to_card:
        kwargs["device"] = torch.device("cpu")
    plain_args, plain_kwargs = tree_map_only(OnCard, lambda t: t.hidden, (args, kwargs))
    out = func(*plain_args, **plain_kwargs)
    if name == "_to_copy" and out is plain_args[0]:
        out = out.clone()
    known = {id(t.hidden): t for t in there} | {id(t): t for t in tensors if not isinstance(t, OnCard)}
    wrap = (lambda t: known[id(t)] if id(t) in known else OnCard(t)) if to_card else (lambda t: t)
    return tree_map_only(Tensor, wrap, out)


@contextmanager
def made_card() -> Iterator[torch.device]:
    """Have tensors made on a card of main memory; yield the device."""
    with _Card():
        yield CARD
