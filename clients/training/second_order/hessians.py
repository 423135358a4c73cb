"""Hessians of clients' losses by `torch.func`, and the curvature that an algorithm's correction adds to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from clients.core.examples import Task
from clients.core.parameters import Layout
from clients.modules.copies import copy_module
from clients.training.losses import trained_losses
from clients.training.rules import Correct

AT_ONCE = 1 << 24
"""Numbers of Hessians, and of the outputs differentiated for them, that are computed together."""


class LossHessians:
    """The Hessian of a batch's mean loss by all parameters.

    Args:
        module: the model, in training mode; it is copied.
        layout: its P parameters.
        task: what its outputs are.
        gamma: exponent of the focal loss.
        device: where it is computed.
        loss: of an example, as in `losses.example_losses`.
    """

    def __init__(
        self,
        module: nn.Module,
        layout: Layout,
        task: Task,
        gamma: float = 0.0,
        device: torch.device = torch.device("cpu"),  # noqa: B008 (immutable)
        loss: str = "auto",
    ) -> None:
        self._module = copy_module(module).to(device)
        self._layout, self._task, self._gamma, self._kind = layout, task, gamma, loss
        # Twice backwards: torch.func.hessian goes forwards, for which torch compiles scripts, with a warning.
        self._hessian: Callable[..., Any] = jacrev(grad(self._loss))

    def of(
        self,
        params: Tensor,
        features: Tensor,
        targets: Tensor,
        weights: Tensor | None = None,
        remedy: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the Hessians of k clients, [k, P, P].

        Args:
            params: [k, P].
            features: [k, b, ...].
            targets: [k, b, ...].
            weights: of the examples in the mean [k, b]; None for 1 / b.
            remedy: factors of the losses, [k, b] each; see `losses.trained_losses`.
        """
        k, size = params.shape
        if weights is None:
            weights = params.new_full(features.shape[:2], 1.0 / features.shape[1])
        inputs = (params, features, targets, weights, dict(remedy or {}))
        if k == 1:  # without vmap, which a user's model may not allow
            first = {name: factor[0] for name, factor in inputs[4].items()}
            alone: Tensor = self._hessian(*(tensor[0] for tensor in inputs[:4]), first)
            return alone.detach()[None]
        together = max(1, AT_ONCE // (size * max(size, features[0].numel())))
        found: Tensor = vmap(self._hessian, chunk_size=together)(*inputs)
        return found.detach()

    def _loss(
        self, flat: Tensor, features: Tensor, targets: Tensor, weights: Tensor, remedy: Mapping[str, Tensor]
    ) -> Tensor:
        outputs = functional_call(self._module, self._layout.views(flat), (features,)).to(flat.dtype)
        return (trained_losses(outputs, targets, self._task, self._gamma, remedy, self._kind) * weights).sum()


def rule_curvature(
    correct: Correct,
    gradient: Tensor,
    params: Tensor,
    anchor: Tensor,
    broadcast: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> Tensor:
    """Return the derivative of a local rule's correction by the parameters, elementwise as the rule is.

    It is mu for the proximal term mu (w - anchor), and 0 for control variates. All tensors are as in `rules.Correct`.
    """
    with torch.enable_grad():
        w = params.detach().clone().requires_grad_()
        corrected = correct(gradient.clone(), w, anchor, broadcast, state)
        if not corrected.requires_grad:
            return torch.zeros_like(params)
        (slope,) = torch.autograd.grad(corrected.sum(), w)
    return slope
