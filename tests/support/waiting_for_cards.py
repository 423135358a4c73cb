"""Finds what makes a process wait for a card, without one: torch's device `meta`, whose tensors have no data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CARD = torch.device("meta")
"""Takes the part of a card: engines treat every device but the CPU alike."""
_READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique2")


class WaitsForCard(AssertionError):
    """An operation waits for the card, or mixes tensors of two devices."""


class _Watch(TorchDispatchMode):
    """Raises where an operation would wait: a number read back, a blocking copy, an index of booleans."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        problem = _problem(func.overloadpacket.__name__, args, kwargs)
        if problem:
            raise WaitsForCard(problem)
        return func(*args, **kwargs)


def _problem(name, args, kwargs) -> str:
    """Return why an operation waits; empty if it does not."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in tensors if t.device.type != "cpu"]
    if name in ("_to_copy", "copy_"):
        source, target = (args[0], args[0]) if name == "_to_copy" else (args[1], args[0])
        if not isinstance(source, Tensor):
            return ""  # a number of Python
        ends = source.device.type, torch.device(kwargs.get("device") or target.device).type
        is_free = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        return "" if ends[0] == ends[1] or (is_free and ends[1] != "cpu") else f"a copy from {ends[0]} to {ends[1]}"
    if not there:
        return ""
    if name in _READS:
        return f"{name} reads a number back"
    if name in ("index", "index_put_", "index_put") and any(t is not None and not t.dtype.is_signed for t in args[1]):
        return "an index of booleans has as many elements as the card finds"
    if any(t.dim() for t in tensors if t.device.type == "cpu"):
        return f"{name} of tensors on two devices"
    return ""


@contextmanager
def waiting_refused() -> Iterator[None]:
    """Raise `WaitsForCard` where an operation would wait for `CARD`."""
    with _Watch():
        yield
