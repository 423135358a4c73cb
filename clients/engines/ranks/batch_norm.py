"""Batch normalisation over all ranks: the statistics are those of the whole batch, as on one device.

`torch.nn.SyncBatchNorm` refuses tensors in main memory. This module has the same rule on processors and cards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.engines.ranks.team import Team

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all ranks. Its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, team: Team) -> Tensor:
        ctx.team = team
        return team.add(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.team.add(gradients[0].clone()), None


def _summed(tensor: Tensor, team: Team) -> Tensor:
    found: Tensor = _Sum.apply(tensor, team)  # type: ignore[no-untyped-call]
    return found


class SharedBatchNorm(nn.Module):
    """A batch normalisation whose batch is spread over ranks.

    Attributes:
        counts: whether the examples of this pass belong to the batch. A rank without a share passes one example so that
            all ranks take part in the sums; it does not count.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, of: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, team: Team) -> None:
        super().__init__()
        self.eps, self.momentum, self.counts, self._team = float(of.eps), of.momentum, True, team
        for name, p in of._parameters.items():
            self.register_parameter(name, p)
        for name, b in of._buffers.items():
            self.register_buffer(name, b)
        self.train(of.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [b, channels, ...] by the mean and the variance of the whole batch."""
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        mean, var = self.running_mean, self.running_var
        if not self.training and mean is not None and var is not None:
            return functional.batch_norm(x, mean, var, weight, bias, False, 0.0, self.eps)
        mean, var, count = self._statistics(x)
        self._track(mean.detach(), var.detach(), count)
        shape = (1, -1, *[1] * (x.dim() - 2))
        normal = (x - mean.to(x.dtype).view(shape)) * torch.rsqrt(var + self.eps).to(x.dtype).view(shape)
        if weight is None or bias is None:
            return normal
        return normal * weight.to(x.dtype).view(shape) + bias.to(x.dtype).view(shape)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and biased variance of each channel over all ranks, and the number of values of a channel."""
        dims, own = [0, *range(2, x.dim())], float(self.counts)
        values = x.double() if x.dtype == torch.float64 else x.float()
        number = values.new_full((1,), own * (x.numel() // x.shape[1]))
        sums = _summed(torch.cat([values.sum(dims) * own, number]), self._team)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean.view(1, -1, *[1] * (x.dim() - 2))
        squares = _summed(centred.square().sum(dims) * own, self._team)
        return mean, squares / count, count

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Move the running statistics, as torch does: with the unbiased variance."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1.0 / float(self.num_batches_tracked) if share is None else share
        factor = 0.1 if share is None else share
        unbiased = var * (count / (count - 1))
        for held, now in ((self.running_mean, mean), (self.running_var, unbiased)):
            held.mul_(1 - factor).add_(now.to(held.dtype), alpha=factor)


def has_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises over its batch by torch's modules."""
    return any(isinstance(part, KINDS) for part in module.modules())


def share_statistics(module: nn.Module, team: Team) -> list[SharedBatchNorm]:
    """Replace every batch normalisation of a module, under the same names; return the new ones."""
    made: dict[int, SharedBatchNorm] = {}
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, KINDS):
                if id(child) not in made:
                    made[id(child)] = SharedBatchNorm(child, team)
                setattr(parent, name, made[id(child)])
    return list(made.values())
