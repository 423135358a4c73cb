"""The Hessian of a loss over weighted examples at one model: its products with vectors, by two backward passes.

Products have the task's type: convolutions of float64 are many times as slow. `torch.func.grad` would import torch's
compiler, for several seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from clients.core.arrays import F64
from clients.engines.many.examples import ExampleSet, WeightedExamples
from clients.modules.copies import copy_module
from clients.training.losses import trained_losses
from clients.training.optimizers import penalties

KEPT_BYTES = 1 << 28
"""Features that are kept between products; beyond, clients' data are made again for each."""


class LossHessian:
    """The Hessian of sum_i a_i loss_i at a model, in evaluation mode; of the objective with l2 |w|^2 / 2.

    Losses are those of training, with class weights, focal loss and margins. The penalty l1 has no curvature.

    Args:
        examples: the examples of the loss.
        params: the model's parameters [P].
        buffers: its buffers [Q].

    Attributes:
        products: Hessian-vector products computed so far.
        rounding: values below this share of the largest are rounding.
    """

    def __init__(self, examples: ExampleSet, params: Tensor, buffers: Tensor) -> None:
        self.examples, self._task = examples, examples.task
        task = self._task
        self._module = copy_module(task.module).eval().to(task.device).requires_grad_(False)
        self._params, self._buffers = params.detach().to(task.device, task.dtype), buffers.to(task.device, task.dtype)
        self._ridge = penalties(task.local)[1] if examples.shares is not None else 0.0
        self._kept: list[WeightedExamples] | None = None
        self.products = 0
        self.rounding = 1e-9 if task.dtype == torch.float64 else 1e-5

    @property
    def size(self) -> int:
        """P."""
        return self._params.numel()

    def product(self, v: Tensor) -> Tensor:
        """Return H v [P] for v [P], both float64."""
        self.products += 1
        total, along = self._ridge * v, v.to(self._params)
        with torch.enable_grad():
            for chunk in self._chunks():
                point = self._params.clone().requires_grad_(True)
                losses = self._losses(chunk, point)
                (slope,) = torch.autograd.grad(losses @ chunk.weights.to(losses), point, create_graph=True)
                if slope.requires_grad:  # a linear loss has no curvature
                    (bent,) = torch.autograd.grad(slope @ along, point, allow_unused=True)
                    total = total + (0.0 if bent is None else bent.cpu().double())
        return total

    def by_client(self, v: Tensor) -> F64:
        """Return v' H_k v of each client of `examples.clients` (K,), by a third pass along the weights of the losses.

        v' H(a) v is linear in the weights a of the losses, so its derivatives by them are the curvatures of the losses
        along v. Second differences would be wrong where they cross a kink, as of ReLU or of a margin.

        Args:
            v: [P].
        """
        shares = self.examples.shares
        assert shares is not None, "central examples have no clients"
        assert self.examples.by_client, "the examples of a client have its weight"
        clients, along = self.examples.clients, v.to(self._params)
        total = np.zeros(len(clients))
        with torch.enable_grad():
            for chunk in self._chunks():
                each = self._along(chunk, along).double().cpu() * chunk.weights.cpu()
                total += np.bincount(chunk.owners, weights=each.numpy(), minlength=len(total))
        found: F64 = total / (shares[clients] / shares[clients].sum()) + self._ridge * float(v @ v)
        return found

    def _along(self, chunk: WeightedExamples, along: Tensor) -> Tensor:
        """Return v' H_i v of the loss of each example of a chunk [n]."""
        point = self._params.clone().requires_grad_(True)
        losses = self._losses(chunk, point)
        factors = torch.ones_like(losses, requires_grad=True)
        nothing = torch.zeros_like(losses)
        (slope,) = torch.autograd.grad(losses @ factors, point, create_graph=True)
        (bent,) = torch.autograd.grad(slope @ along, point, create_graph=True, allow_unused=True)
        if bent is None or not bent.requires_grad:
            return nothing
        (found,) = torch.autograd.grad(bent @ along, factors, allow_unused=True)
        return nothing if found is None else found

    def _losses(self, chunk: WeightedExamples, point: Tensor) -> Tensor:
        """Return the loss of each example of a chunk at a point."""
        task = self._task
        named = task.parameters.views(point) | task.buffers.views(self._buffers)
        outputs = functional_call(self._module, named, (chunk.features,))
        gamma = task.local.focal_gamma if chunk.remedy is not None else 0.0
        return trained_losses(outputs, chunk.targets, task.population.task, gamma, chunk.remedy, task.local.loss)

    def _chunks(self) -> Iterator[WeightedExamples]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[WeightedExamples] | None = []
        size = 0
        for chunk in self.examples:
            size += chunk.features.nbytes
            if kept is not None:
                kept = [*kept, chunk] if size <= KEPT_BYTES else None
            yield chunk
        self._kept = kept
