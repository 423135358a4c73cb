"""Checks of a user's module before any pass: tensors that cannot be trained, and what is changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clients.core.errors import UserError, listed

_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Attributes that hold the hooks of `register_hook` and `register_post_accumulate_grad_hook`."""


def check_tensors(module: nn.Module) -> None:
    """Refuse complex parameters and buffers.

    Raises:
        UserError: there are some; the message names them.
    """
    complex_ones = [name for name, value in named_tensors(module) if value.is_complex()]
    if complex_ones:
        problem = f"has complex parameters or buffers ({listed(complex_ones)}), and all are averaged as real numbers"
        fix = "Keep real and imaginary parts as two real tensors, and join them in forward with torch.complex."
        raise UserError("model", problem, fix=fix)


def check_copyable(module: nn.Module) -> None:
    """Refuse what copies of a module would lose without an error: hooks on its parameters, TorchScript.

    Raises:
        UserError: there is some; the message names it.
    """
    scripts = [name or type(part).__name__ for name, part in module.named_modules()
               if isinstance(part, torch.jit.ScriptModule)]  # fmt: skip
    if scripts:
        problem = f"is or contains TorchScript ({listed(scripts)}), whose passes cannot be followed"
        raise UserError("model", problem, fix="Pass the torch.nn.Module that it was made from.")
    hooked = [name for name, p in module.named_parameters() if any(getattr(p, kind, None) for kind in _HOOKS)]
    if hooked:
        problem = f"has hooks on the gradients of parameters ({listed(hooked)}), which copies of the model do not have"
        fix = "Freeze parameters with requires_grad_(False); change gradients in a local rule, fs.local_rule."
        raise UserError("model", problem, fix=fix)


def probability_notice(outputs: Tensor) -> str:
    """Return a sentence if the outputs [n, classes] of a classifier look like probabilities; empty otherwise."""
    if outputs.ndim < 2 or outputs.shape[1] < 2 or not outputs.isfinite().all():
        return ""
    rows = outputs.detach().double()
    if bool((rows < 0).any()) or not torch.allclose(rows.sum(1), torch.ones(len(rows), dtype=rows.dtype), atol=1e-3):
        return ""
    return (
        "The model's outputs look like probabilities: none is below 0, and each row adds up to 1. The loss takes "
        "logits and applies softmax itself: leave the softmax out of forward."
    )


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
    others = {value.dtype for _, value in named_tensors(module) if value.is_floating_point()} - expected
    if not others:
        return ""
    names = " and ".join(sorted(str(other).removeprefix("torch.") for other in others))
    return f"The model's {names} parameters and buffers are cast to {str(dtype).removeprefix('torch.')} (run.dtype)."


def named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters and buffers of a module with their names."""
    return [*module.named_parameters(), *module.named_buffers()]
