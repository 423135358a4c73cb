"""Checks of a user's module before any pass: tensors that cannot be trained, and what is changed without asking."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from clients.core.errors import UserError

MOST_NAMES = 4
"""The most names that a message lists."""


def check_tensors(module: nn.Module) -> None:
    """Refuse complex parameters and buffers.

    Raises:
        UserError: there are some; the message names them.
    """
    complex_ones = [name for name, value in _tensors(module) if value.is_complex()]
    if complex_ones:
        problem = f"has complex parameters or buffers ({listed(complex_ones)}), and all are averaged as real numbers"
        fix = "Keep real and imaginary parts as two real tensors, and join them in forward with torch.complex."
        raise UserError("model", problem, fix=fix)


def check_dense_gradients(module: nn.Module) -> None:
    """Refuse embeddings with sparse gradients.

    Raises:
        UserError: there are some; the message names them.
    """
    kinds = (nn.Embedding, nn.EmbeddingBag)
    sparse = [name for name, part in module.named_modules() if isinstance(part, kinds) and part.sparse]
    if sparse:
        problem = f"has embeddings with sparse gradients ({listed(sparse)}), and gradients here are dense"
        raise UserError("model", problem, fix="Make them with sparse=False.")


def cast_notice(module: nn.Module, dtype: torch.dtype) -> str:
    """Return a sentence if casting a module to `dtype` changes a type that its author chose; empty otherwise.

    Parameters in torch's default type are cast to `run.dtype` without a notice: the scenario names it.
    """
    expected = {dtype, torch.get_default_dtype()}
    others = {value.dtype for _, value in _tensors(module) if value.is_floating_point()} - expected
    if not others:
        return ""
    names = " and ".join(sorted(str(other).removeprefix("torch.") for other in others))
    return f"The model's {names} parameters and buffers are cast to {str(dtype).removeprefix('torch.')} (run.dtype)."


def listed(names: Iterable[str]) -> str:
    """Return names for a message, at most `MOST_NAMES` of them.

    Example:
        >>> listed("abcdef")
        'a, b, c, d and 2 more'
    """
    every = list(names)
    more = f" and {len(every) - MOST_NAMES} more" if len(every) > MOST_NAMES else ""
    return ", ".join(every[:MOST_NAMES]) + more


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
