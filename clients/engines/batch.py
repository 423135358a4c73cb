"""The interface of gradient programs for stacked clients: batches, the program protocol, the loss's derivative."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from clients.core.examples import Task
from clients.training.losses import MARGIN_LOSSES, focal, focal_slope, margin_error

Tensors = dict[str, Tensor]

FEW_OUTPUTS = 16
"""Up to this many outputs, softmax runs over the first axis; over the last axis short rows cost 20 times as much."""


@dataclass(frozen=True)
class Batch:
    """One batch for each client.

    Attributes:
        features: [k, b, *feature_shape].
        targets: [k, b] or [k, b, outputs].
        weights: [k, b], each row sums to 1 over its real examples and is 0 on padding; None means 1/b everywhere.
        masks: dropout masks by site name, [k, b, *shape].
        remedy: factors of the losses, and the classes examples were mixed with, [k, b] each; see
            `losses.trained_losses`.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor | None
    masks: Tensors
    remedy: Tensors = field(default_factory=dict)


class Program(Protocol):
    """Computes gradients of a stack of clients."""

    masks_padding: bool
    """Whether weights of 0 hide padding exactly (no example of a batch changes another's output)."""

    def width(self, k: int) -> int:
        """Return the number of clients to compute for the first k: k, or more where that saves a compilation."""

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients [k, *shape], example losses [k, b], outputs [k, b, ...] and new buffers."""


def output_error(
    outputs: Tensor, batch: Batch, task: Task, gamma: float = 0.0, loss: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Return example losses [k, b], and the derivative of their weighted sum by the outputs, [k, b, outputs].

    Args:
        outputs: model outputs [k, b, outputs].
        batch: targets and weights.
        task: classification (cross-entropy) or regression (squared error averaged over outputs).
        gamma: exponent of the focal loss; 0 is cross-entropy.
        loss: one of `LocalOptions.loss`; "auto" is the task's.
    """
    if loss in MARGIN_LOSSES:
        return _margin_error(outputs, batch, loss)
    if gamma or batch.remedy:
        return _remedied_error(outputs, batch, gamma)
    weights = batch.weights.unsqueeze(2) if batch.weights is not None else 1.0 / outputs.shape[1]
    if task == "classification":
        few = outputs.shape[2] <= FEW_OUTPUTS
        axis = 0 if few else 2
        log_p = functional.log_softmax(outputs.movedim(2, axis), axis)
        index = batch.targets.unsqueeze(axis)
        losses = log_p.gather(axis, index).squeeze(axis).neg_()
        d = log_p.exp_()
        d.scatter_add_(axis, index, d.new_full((), -1.0).expand(index.shape))
        return losses, d.movedim(axis, 2).mul_(weights)
    away = outputs - batch.targets.view_as(outputs)
    return away.square().mean(2), away.mul_(2.0 / outputs.shape[2]).mul_(weights)


def _margin_error(outputs: Tensor, batch: Batch, loss: str) -> tuple[Tensor, Tensor]:
    """Compute `output_error` for a loss of the margin, weighted or mixed or neither."""
    weights = batch.weights.unsqueeze(2) if batch.weights is not None else 1.0 / outputs.shape[1]
    losses, d = margin_error(outputs, batch.targets, loss)
    if batch.remedy:
        scales = batch.remedy["scales"]
        losses, d = losses * scales, d * scales.unsqueeze(2)
    if "others" in batch.remedy:
        scales = batch.remedy["other_scales"]
        others, by_others = margin_error(outputs, batch.remedy["others"], loss)
        losses, d = losses + others * scales, d + by_others * scales.unsqueeze(2)
    return losses, d * weights


def _remedied_error(outputs: Tensor, batch: Batch, gamma: float) -> tuple[Tensor, Tensor]:
    """Compute `output_error` for a focal, weighted or mixed loss."""
    weights = batch.weights if batch.weights is not None else 1.0 / outputs.shape[1]
    log_p = functional.log_softmax(outputs, 2)
    parts = [(batch.targets, batch.remedy.get("scales"))]
    if "others" in batch.remedy:
        parts.append((batch.remedy["others"], batch.remedy["other_scales"]))
    losses, d = torch.zeros_like(outputs[:, :, 0]), torch.zeros_like(outputs)
    for targets, scales in parts:
        index = targets.unsqueeze(2)
        own = log_p.gather(2, index).squeeze(2)
        loss, slope = focal(own, gamma), focal_slope(own, gamma) * weights
        if scales is not None:
            loss, slope = loss * scales, slope * scales
        losses += loss
        slope = slope.unsqueeze(2)
        d.addcmul_(log_p.exp(), slope).scatter_add_(2, index, -slope)
    return losses, d
