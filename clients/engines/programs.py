"""Gradients of a stack of clients: one tensor program for K models on K batches.

`DenseProgram`, `GruProgram`, `LstmProgram` and `QuadraticProgram` are written by hand for their models. `VmapProgram`
runs any other module through `torch.func`. All take parameters [k, *shape] and batches [k, b, ...].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from clients.core.errors import EngineError
from clients.engines.batch import Batch, Program, Tensors
from clients.engines.dense import DenseProgram, dense_layers
from clients.engines.native.choice import conv_kernel, dense_kernel
from clients.engines.native.gru import NativeGruProgram, gru_kernel
from clients.engines.native.kernel import Kernel, WithKernel
from clients.engines.quadratics import QuadraticProgram, is_quadratic
from clients.engines.recurrent import GruProgram, LstmProgram, is_gru_forecaster, is_lstm_forecaster
from clients.modules.copies import copy_module
from clients.modules.dropout_sites import dropouts_of
from clients.modules.randomness import generators_restored
from clients.training.losses import trained_losses
from clients.training.options import SECOND_ORDER
from clients.training.task import LearningTask, autocast


class VmapProgram(WithKernel):
    """Runs any module through `vmap(grad(functional_call))`; the planner may compile it for chosen shapes.

    Args:
        task: the model, and what its outputs are.
        masks_padding: see `Program`.
        kernel: takes all steps of plain SGD in one call; None computes them with torch.
    """

    def __init__(self, task: LearningTask, *, masks_padding: bool, kernel: Kernel | None = None) -> None:
        self.masks_padding, self.kernel = masks_padding, kernel
        self._module = copy_module(task.module).to(task.device)  # passes may leave something in it
        self._learning, self._task, self._gamma = task, task.population.task, task.local.focal_gamma
        self._dropouts = dropouts_of(self._module)
        for name, part in self._dropouts.items():
            part.reserve(sum(site.name == name for site in task.sites) or 1)
        self._mask_names = {site.key: site.buffer for site in task.sites}
        named = [n for n, _ in self._module.named_buffers() if n.rpartition(".")[0] not in self._dropouts]
        self._whole = [n for n in named if n not in task.buffers.names]
        self._gradients: Callable[..., Any] = vmap(grad(self._loss, has_aux=True))
        self._compiled: Callable[..., Any] | None = None
        self._widths: tuple[int, ...] = ()
        self._length = 0

    def compile(self, widths: Iterable[int], length: int) -> None:
        """Compile for batches [k, length, ...] with k in `widths`, each at its first use.

        Other shapes stay eager: the compiler gives up on all shapes after too many new ones.
        """
        self._widths, self._length = tuple(sorted(set(widths))), length
        limits: dict[str, Any] = {"recompile_limit": len(self._widths), "isolate_recompiles": True}  # not in its types
        self._compiled = torch.compile(vmap(grad(self._loss, has_aux=True)), dynamic=False, fullgraph=True, **limits)

    def width(self, k: int) -> int:
        """Return the smallest compiled number of clients that is >= k, else k."""
        return next((w for w in self._widths if w >= k), k)

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients (dense, without shared memory), losses, outputs and new buffers."""
        k, b = batch.features.shape[:2]
        weights = batch.weights
        if weights is None:
            weights = next(iter(params.values())).new_full((k, b), 1.0 / b)
        arguments = (params, buffers, batch.masks, batch.features, batch.targets, weights, batch.remedy)
        if self._compiled is not None and k in self._widths and b == self._length:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler warns about its own choices at the first call
                grads, (losses, outputs, new) = self._compiled(*arguments)
        else:
            grads, (losses, outputs, new) = self._gradients(*arguments)
        return _apart(grads, params), losses.detach(), outputs.detach(), {n: t.detach() for n, t in new.items()}

    def _loss(
        self,
        params: Tensors,
        buffers: Tensors,
        masks: Tensors,
        features: Tensor,
        targets: Tensor,
        weights: Tensor,
        remedy: Tensors,
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensors]]:
        """Return the weighted loss of one client's batch, with example losses, outputs and new buffers."""
        for part in self._dropouts.values():
            part.count = 0
        now = {n: b.clone() for n, b in buffers.items()}
        own = dict(self._module.named_buffers())
        inputs: Mapping[str, Tensor] = {
            **params,
            **now,
            **{n: own[n].clone() for n in self._whole},
            **{self._mask_names[n]: m for n, m in masks.items()},
        }
        with autocast(self._learning):
            outputs = functional_call(self._module, dict(inputs), (features,))
        outputs = outputs.to(self._learning.dtype)
        losses = trained_losses(outputs, targets, self._task, self._gamma, remedy, self._learning.local.loss)
        return (losses * weights).sum(), (losses, outputs, now)


def _apart(grads: Tensors, params: Tensors) -> Tensors:
    """Copy gradients that are expanded or share memory, as those of a and b in a + b do: steps write to them."""
    seen = {p.untyped_storage()._cdata for p in params.values()}
    out: Tensors = {}
    for name, g in grads.items():
        place = g.untyped_storage()._cdata
        out[name] = g.clone(memory_format=torch.contiguous_format) if place in seen or not g.is_contiguous() else g
        seen.add(place)
    return out


def examples_are_independent(task: LearningTask, features: Tensor) -> bool:
    """Return whether, in training mode, an example of a batch changes neither other outputs nor any buffer."""
    features = features if len(features) > 1 else torch.cat((features, features))
    changed = features.clone()
    if features.is_floating_point():
        changed[-1] += torch.linspace(0.5, 1.5, changed[-1].numel(), dtype=features.dtype).view_as(changed[-1])
    else:
        changed[-1] = changed[0]
    outputs, modules = [], []
    with torch.no_grad(), generators_restored():
        for batch in (features, changed):
            torch.manual_seed(0)
            modules.append(copy_module(task.module))
            outputs.append(modules[-1](batch)[:-1])
    same_buffers = all(
        torch.equal(a, b) for a, b in zip(modules[0].buffers(), modules[1].buffers(), strict=True) if a.shape == b.shape
    )
    return torch.equal(outputs[0], outputs[1]) and same_buffers


def make_program(task: LearningTask, features: Tensor, *, native: bool = False) -> Program:
    """Choose the program for a task; `features` [n, ...] are a probe batch.

    With `native`, the program has a kernel in C where there is one: see `native.choice.kernel_of`.

    Raises:
        EngineError: clients can only be trained one by one.
    """
    if task.passes.only_plain:
        problem = f"'stacked' cannot run this model: {task.passes.only_plain}"
        raise EngineError("engine.kind", problem, fix="Set engine.kind = 'plain' (or 'auto').")
    layers = dense_layers(task) if not task.bf16 else None
    if layers is not None:
        dense = dense_kernel(layers, task)[0] if native else None
        return DenseProgram(layers, task.population.task, task.local.focal_gamma, dense, task.local.loss)
    if is_gru_forecaster(task) and not task.bf16:
        gru, kind, local = gru_kernel(task)[0] if native else None, task.population.task, task.local
        if gru is None:
            return GruProgram(kind, local.focal_gamma, local.loss)
        return NativeGruProgram(kind, local.focal_gamma, gru, local.loss)
    if is_lstm_forecaster(task) and not task.bf16:
        return LstmProgram(task.population.task, task.local.focal_gamma, task.local.loss)
    if is_quadratic(task) and task.local.optimizer not in SECOND_ORDER:
        return QuadraticProgram(task.parameters.size)
    independent = all(site.by_example for site in task.sites) and examples_are_independent(task, features)
    if task.local.optimizer in SECOND_ORDER and not independent:
        problem = f"{task.local.optimizer!r} stacks clients only where no example of a batch changes another's output"
        raise EngineError("engine.kind", problem, fix="Set engine.kind = 'plain' (or 'auto').")
    kernel = conv_kernel(task)[0] if native else None
    return VmapProgram(task, masks_padding=independent, kernel=kernel)
