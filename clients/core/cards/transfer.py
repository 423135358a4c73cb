"""Copies from main memory to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of main memory on a device; the CPU's is the tensor itself.

    The copy to a card starts from page-locked memory, so this process does not wait for it; work that is queued on the
    card later does.
    """
    if device.type == "cpu":
        return tensor
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
