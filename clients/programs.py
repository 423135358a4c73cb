"""Gradients of a stack of clients: one tensor program for K models on K batches.

`DenseProgram` writes the backward pass of linear layers and activations out by hand: no graph, no gradient of the
first layer's input, and for plain SGD the step is fused into the weight gradient. `VmapProgram` serves any other
module through `torch.func`. Both take parameters [k, *shape] and batches [k, b, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from clients.dropout import Dropout, DropoutSite
from clients.losses import example_losses
from clients.population import Task
from clients.task import LearningTask

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """One batch a client.

    Attributes:
        features: [k, b, *feature_shape].
        targets: [k, b] or [k, b, outputs].
        weights: [k, b], each row sums to 1 over its real examples and is 0 on padding; None means 1/b everywhere.
        masks: dropout masks by site name, [k, b, *shape].
    """

    features: Tensor
    targets: Tensor
    weights: Tensor | None
    masks: Tensors


class Program(Protocol):
    """Computes gradients of a stack of clients."""

    masks_padding: bool
    """Whether weights of 0 hide padding exactly (no example of a batch changes another's output)."""

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients [k, *shape], example losses [k, b], outputs [k, b, ...] and new buffers."""


def _example_weights(batch: Batch, like: Tensor) -> Tensor | float:
    return batch.weights if batch.weights is not None else 1.0 / like.shape[1]


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer and what follows it: parameter names, activation name, dropout site."""

    weight: str
    bias: str | None
    activation: str | None
    site: DropoutSite | None


_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}


def dense_layers(task: LearningTask) -> tuple[DenseLayer, ...] | None:
    """Read a module as linear layers, each with an activation and a dropout; None if it is anything else."""
    if task.population.task == "objective" or not isinstance(task.module, nn.Sequential):
        return None
    sites = {s.name: s for s in task.sites}
    layers: list[DenseLayer] = []
    for name, module in task.module.named_modules():
        last = layers[-1] if layers else None
        if isinstance(module, nn.Sequential | nn.Identity) or (isinstance(module, nn.Flatten) and last is None):
            continue
        if type(module) is nn.Linear and (last is None or last.activation):
            layers.append(DenseLayer(f"{name}.weight", f"{name}.bias" if module.bias is not None else None, None, None))
        elif type(module) in _ACTIVATIONS and last and not last.activation and not last.site:
            layers[-1] = DenseLayer(last.weight, last.bias, _ACTIVATIONS[type(module)], None)
        elif isinstance(module, Dropout) and last and last.activation and not last.site:
            layers[-1] = DenseLayer(last.weight, last.bias, last.activation, sites.get(name))
        else:
            return None
    names = {n for layer in layers for n in (layer.weight, layer.bias) if n}
    ends_linear = bool(layers) and layers[-1].activation is None and layers[-1].site is None
    return tuple(layers) if ends_linear and names == set(task.parameters.names) else None


class DenseProgram:
    """Linear layers with ReLU, tanh or sigmoid and dropout between them; cross-entropy or squared error."""

    masks_padding = True

    def __init__(self, layers: tuple[DenseLayer, ...], task: Task) -> None:
        self.layers, self.task = layers, task

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients, losses, outputs and the buffers given (there are none)."""
        out: Tensors = {}

        def keep(layer: DenseLayer, d: Tensor, h: Tensor) -> None:
            out[layer.weight] = torch.bmm(d.transpose(1, 2), h)
            if layer.bias:
                out[layer.bias] = d.sum(1)

        inputs, outputs = self._forward(params, batch)
        losses, d = self._error(outputs, batch)
        self._backward(params, batch, inputs, d, keep)
        return out, losses, outputs, buffers

    def descend(self, params: Tensors, batch: Batch, lr: float, shrink: float) -> tuple[Tensor, Tensor]:
        """Take one SGD step in place, w <- shrink w - lr gradient. Returns losses and outputs."""

        def step(layer: DenseLayer, d: Tensor, h: Tensor) -> None:
            params[layer.weight].baddbmm_(d.transpose(1, 2), h, beta=shrink, alpha=-lr)
            if layer.bias:
                bias = params[layer.bias] if shrink == 1 else params[layer.bias].mul_(shrink)
                bias.sub_(d.sum(1), alpha=lr)

        inputs, outputs = self._forward(params, batch)
        losses, d = self._error(outputs, batch)
        self._backward(params, batch, inputs, d, step)
        return losses, outputs

    def _forward(self, params: Tensors, batch: Batch) -> tuple[list[Tensor], Tensor]:
        h = batch.features.flatten(2)
        inputs: list[Tensor] = []
        for layer in self.layers:
            inputs.append(h)
            weight = params[layer.weight].transpose(1, 2)
            z = torch.baddbmm(params[layer.bias].unsqueeze(1), h, weight) if layer.bias else torch.bmm(h, weight)
            if layer.activation == "relu":
                z = z.relu_()
            elif layer.activation:
                z = z.tanh_() if layer.activation == "tanh" else z.sigmoid_()
            mask = _mask(layer, batch)
            h = z if mask is None else z * mask
        return inputs, h

    def _error(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return example losses and the derivative of their weighted sum by the outputs."""
        weights = _example_weights(batch, outputs)
        if isinstance(weights, Tensor):
            weights = weights.unsqueeze(2)
        if self.task == "classification":
            log_p = functional.log_softmax(outputs, 2)
            index = batch.targets.unsqueeze(2)
            losses = log_p.gather(2, index).squeeze(2).neg_()
            d = log_p.exp_()
            d.scatter_add_(2, index, d.new_full((), -1.0).expand(index.shape))
            return losses, d.mul_(weights)
        away = outputs - batch.targets.view_as(outputs)
        return away.square().mean(2), away.mul_(2.0 / outputs.shape[2]).mul_(weights)

    def _backward(
        self,
        params: Tensors,
        batch: Batch,
        inputs: list[Tensor],
        d: Tensor,
        use: Callable[[DenseLayer, Tensor, Tensor], None],
    ) -> None:
        """Call `use(layer, d, h)` for each layer from the last, before moving below it (`use` may change the layer)."""
        for i in reversed(range(len(self.layers))):
            below = torch.bmm(d, params[self.layers[i].weight]) if i else d
            use(self.layers[i], d, inputs[i])
            if i:
                d = self._through(self.layers[i - 1], below, inputs[i], batch)

    def _through(self, layer: DenseLayer, d: Tensor, h: Tensor, batch: Batch) -> Tensor:
        """Pull a derivative back through a layer's dropout and activation, given their output h."""
        mask = _mask(layer, batch)
        if mask is not None:
            d = d.mul_(mask)
        if layer.activation == "relu":
            return d.mul_(h > 0)
        a = h if mask is None else torch.where(mask > 0, h / mask.clamp_min(1.0), 0.0)
        return d.mul_(1 - a * a) if layer.activation == "tanh" else d.mul_(a * (1 - a))


def _mask(layer: DenseLayer, batch: Batch) -> Tensor | None:
    return batch.masks.get(layer.site.name) if layer.site else None


class VmapProgram:
    """Any module, through `vmap(grad(functional_call))`; compiled when the planner says so."""

    def __init__(self, task: LearningTask, *, masks_padding: bool) -> None:
        self.masks_padding = masks_padding
        self._module, self._task = task.module, task.population.task
        self._sites = task.sites
        masks = {f"{n}.mask" for n, m in task.module.named_modules() if isinstance(m, Dropout)}
        self._whole = [n for n, _ in task.module.named_buffers() if n not in masks and n not in task.buffers.names]
        self._gradients: Callable[..., Any] = vmap(grad(self._loss, has_aux=True))

    def compile(self) -> None:
        """Compile the gradient function; shapes seen first are the ones made fast."""
        self._gradients = torch.compile(vmap(grad(self._loss, has_aux=True)), dynamic=False)

    def _loss(
        self, params: Tensors, buffers: Tensors, masks: Tensors, features: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensors]]:
        """Weighted loss of one client's batch, with its example losses, outputs and new buffers."""
        now = {n: b.clone() for n, b in buffers.items()}
        own = dict(self._module.named_buffers())
        inputs: Mapping[str, Tensor] = {
            **params,
            **now,
            **{n: own[n].clone() for n in self._whole},
            **{f"{n}.mask": m for n, m in masks.items()},
        }
        outputs = functional_call(self._module, dict(inputs), (features,))
        losses = example_losses(outputs, targets, self._task)
        return (losses * weights).sum(), (losses, outputs, now)

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients, losses, outputs and new buffers."""
        first = batch.features
        weights = batch.weights
        if weights is None:
            like = next(iter(params.values()))
            weights = like.new_full((1, 1), 1.0 / first.shape[1]).expand(first.shape[0], first.shape[1])
        grads, (losses, outputs, new) = self._gradients(params, buffers, batch.masks, first, batch.targets, weights)
        return grads, losses.detach(), outputs.detach(), {n: b.detach() for n, b in new.items()}


def examples_are_independent(task: LearningTask, features: Tensor) -> bool:
    """Say whether changing one example of a batch leaves the others' outputs exactly as they were, in training mode."""
    module = task.module
    if task.buffers.names or task.sites:
        own_kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        if any(isinstance(m, own_kinds) for m in module.modules()):
            return False
    changed = features.clone()
    changed[-1] = changed[-1].flip(-1) * 0.5 if changed.is_floating_point() else changed[0]
    with torch.no_grad():
        return bool(torch.equal(module(features)[:-1], module(changed)[:-1]))


def make_program(task: LearningTask, features: Tensor) -> DenseProgram | VmapProgram:
    """Choose the program for a task; `features` [n >= 2, ...] are a probe batch."""
    layers = dense_layers(task)
    if layers is not None:
        return DenseProgram(layers, task.population.task)
    return VmapProgram(task, masks_padding=examples_are_independent(task, features))
