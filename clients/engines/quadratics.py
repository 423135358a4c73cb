"""Hand-written gradients of stacked quadratics, H (w - w*): the batch of a step is one quadratic again.

Plain gradient descent takes many steps in one call: with a = w - w*, a step is a <- a - lr H a, one `baddbmm`. The
losses of all steps are one product afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clients.engines.batch import Batch, Tensors
from clients.models.build import Quadratic
from clients.training.task import LearningTask


def is_quadratic(task: LearningTask) -> bool:
    """Return whether the module is `Quadratic`, unchanged."""
    module = task.module
    hooked = module._forward_hooks or module._forward_pre_hooks
    return type(module) is Quadratic and task.parameters.names == ("w",) and not hooked


@dataclass(frozen=True)
class Bowls:
    """The objective of a batch for each of some clients: (w - c)' H (w - c) / 2 + tilt' (w - c) + level.

    Attributes:
        hessians: H, symmetric [k, d, d].
        centres: c [k, d, 1].
        tilts: gradient at the centre [k, d, 1]; None for 0.
        levels: value at the centre [k]; None for 0.
    """

    hessians: Tensor
    centres: Tensor
    tilts: Tensor | None
    levels: Tensor | None

    def take(self, chosen: slice) -> Bowls:
        """Return the bowls of some clients."""
        tilts = None if self.tilts is None else self.tilts[chosen]
        levels = None if self.levels is None else self.levels[chosen]
        return Bowls(self.hessians[chosen], self.centres[chosen], tilts, levels)

    def losses(self, away: Tensor, bent: Tensor) -> Tensor:
        """Return the values [..., k] at c + away [..., k, d, 1], where `bent` = H away."""
        inner = bent * 0.5 if self.tilts is None else bent * 0.5 + self.tilts
        values = (away * inner).sum((-2, -1))
        return values if self.levels is None else values + self.levels

    def slope(self, bent: Tensor) -> Tensor:
        """Return the gradient [..., k, d] where H away = `bent`."""
        return (bent if self.tilts is None else bent + self.tilts).squeeze(-1)


def parts_of(features: Tensor, d: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return H, symmetric [..., d, d], w* [..., d] and the linear term [..., d] (None without one) of features."""
    h = features[..., : d * d].reshape(*features.shape[:-1], d, d)
    h = (h + h.transpose(-2, -1)) * 0.5
    linear = features[..., d * d + d :]
    return h, features[..., d * d : d * d + d], linear if linear.shape[-1] else None


def bowls_of(features: Tensor, weights: Tensor | None, d: int) -> Bowls:
    """Return the objectives of batches: features [k, b, d * d + d (+ d)]; weights [k, b], or None for 1 / b."""
    h, c, linear = parts_of(features, d)
    centre = c[:, 0]
    if c.shape[1] == 1:
        if linear is None:
            return Bowls(h[:, 0], centre.unsqueeze(2), None, None)
        return Bowls(h[:, 0], centre.unsqueeze(2), linear[:, 0].unsqueeze(2), (linear[:, 0] * centre).sum(1))
    w = torch.full_like(c[:, :, 0], 1.0 / c.shape[1]) if weights is None else weights
    apart = c - centre.unsqueeze(1)
    pull = torch.matmul(h, apart.unsqueeze(3)).squeeze(3)
    tilts = -(pull * w.unsqueeze(2)).sum(1)
    levels = 0.5 * ((pull * apart).sum(2) * w).sum(1)
    if linear is not None:
        mean = (linear * w.unsqueeze(2)).sum(1)
        tilts, levels = tilts + mean, levels + (mean * centre).sum(1)
    return Bowls((h * w[:, :, None, None]).sum(1), centre.unsqueeze(2), tilts.unsqueeze(2), levels)


class QuadraticProgram:
    """Quadratic objectives of one parameter vector.

    Args:
        dimension: d.
    """

    masks_padding = True

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def width(self, k: int) -> int:
        """Return k."""
        return k

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients, losses, outputs (the losses) and the unchanged buffers (there are none)."""
        h, c, linear = parts_of(batch.features, self.dimension)
        away = params["w"].unsqueeze(1) - c
        slopes = torch.matmul(h, away.unsqueeze(3)).squeeze(3)
        losses = 0.5 * (away * slopes).sum(2)
        if linear is not None:
            losses, slopes = losses + (linear * params["w"].unsqueeze(1)).sum(2), slopes + linear
        weights = 1.0 / c.shape[1] if batch.weights is None else batch.weights.unsqueeze(2)
        return {"w": (slopes * weights).sum(1)}, losses, losses, buffers

    @staticmethod
    def descend(bowls: Bowls, w: Tensor, steps: int, lr: float, l2: float) -> tuple[Tensor, Tensor, Tensor]:
        """Take steps of gradient descent in place, w <- w - lr (gradient + l2 w), w [k, d].

        Returns:
            The way a = w - w* before each step and after the last [steps + 1, k, d, 1], H a before each step
            [steps, k, d, 1], and the losses before each step [steps, k].
        """
        way = w.new_empty(steps + 1, *w.shape, 1)
        torch.sub(w.unsqueeze(2), bowls.centres, out=way[0])
        constant = bowls.tilts
        if l2:
            constant = bowls.centres * l2 if constant is None else constant + bowls.centres * l2
        places, shrink = way.unbind(0), 1 - lr * l2
        for i in range(steps):
            torch.baddbmm(places[i], bowls.hessians, places[i], beta=shrink, alpha=-lr, out=places[i + 1])
            if constant is not None:
                places[i + 1].sub_(constant, alpha=lr)
        w.copy_((places[-1] + bowls.centres).squeeze(2))
        bent = torch.matmul(bowls.hessians, way[:-1])
        return way, bent, bowls.losses(way[:-1], bent)
