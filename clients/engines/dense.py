"""Hand-written gradients of stacked perceptrons.

There is no graph and no gradient of the first layer's input. For plain SGD the step is fused into the weight gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.core.examples import Task
from clients.engines.batch import Batch, Tensors, output_error
from clients.engines.native.dense import DenseKernel
from clients.engines.native.kernel import WithKernel
from clients.models.linear import TwoClasses
from clients.modules.dropout import Dropout, DropoutSite
from clients.training.task import LearningTask


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer with its activation and dropout: parameter names, activation name, dropout site.

    The activation of the last layer is None, or "two classes" (`clients.models.linear.TwoClasses`).
    """

    weight: str
    bias: str | None
    activation: str | None
    site: DropoutSite | None


_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", TwoClasses: "two classes",
}  # fmt: skip


def dense_layers(task: LearningTask) -> tuple[DenseLayer, ...] | None:
    """Return a module as linear layers, each with an activation and a dropout; None if it has another form."""
    if task.population.task == "objective" or type(task.module) is not nn.Sequential:
        return None
    sites = iter(task.sites)  # a Sequential calls its parts in order
    known = {id(module): name for name, module in task.module.named_modules()}
    layers: list[DenseLayer] = []
    for name, module in task.module.named_modules(remove_duplicate=False):
        last = layers[-1] if layers else None
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        if type(module) in (nn.Sequential, nn.Identity) or (_flattens(module) and last is None):
            continue
        if last is not None and last.activation == "two classes":
            return None
        if type(module) is nn.Linear and (last is None or last.activation):
            layers.append(DenseLayer(f"{name}.weight", f"{name}.bias" if module.bias is not None else None, None, None))
        elif type(module) in _ACTIVATIONS and last and not last.activation and not last.site:
            layers[-1] = replace(last, activation=_ACTIVATIONS[type(module)])
        elif type(module) is Dropout and module.p == 0:
            continue
        elif type(module) is Dropout and last and last.activation and not last.site:
            site = next(sites, None)
            if module.kind != "Dropout" or site is None or not site.is_usual or site.name != known[id(module)]:
                return None
            layers[-1] = replace(last, site=site)
        else:
            return None
    names = [n for layer in layers for n in (layer.weight, layer.bias) if n]
    ends_linear = bool(layers) and layers[-1].activation in (None, "two classes") and layers[-1].site is None
    return tuple(layers) if ends_linear and tuple(names) == task.parameters.names else None


def _flattens(module: nn.Module) -> bool:
    return type(module) is nn.Flatten and module.start_dim == 1 and module.end_dim == -1


class DenseProgram(WithKernel):
    """Linear layers with ReLU, tanh or sigmoid and dropout between them; cross-entropy (or focal) or squared error.

    Args:
        layers: the model.
        task: what the outputs are.
        gamma: exponent of the focal loss; 0 is cross-entropy.
        kernel: takes all steps of plain SGD in one call; None computes them with torch.
        loss: one of `LocalOptions.loss`; "auto" is the task's.
    """

    masks_padding = True

    def __init__(
        self,
        layers: tuple[DenseLayer, ...],
        task: Task,
        gamma: float = 0.0,
        kernel: DenseKernel | None = None,
        loss: str = "auto",
    ) -> None:
        self.layers, self.task, self.gamma, self.kernel, self.loss = layers, task, gamma, kernel, loss

    def width(self, k: int) -> int:
        """Return k."""
        return k

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients, losses, outputs and the unchanged buffers (there are none)."""
        out: Tensors = {}

        def keep(layer: DenseLayer, d: Tensor, h: Tensor) -> None:
            out[layer.weight] = torch.bmm(d.transpose(1, 2), h)
            if layer.bias:
                out[layer.bias] = d.sum(1)

        inputs, outputs = self._forward(params, batch)
        losses, d = output_error(outputs, batch, self.task, self.gamma, self.loss)
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
        losses, d = output_error(outputs, batch, self.task, self.gamma, self.loss)
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
            elif layer.activation == "two classes":
                z = functional.pad(z, (1, 0))
            elif layer.activation:
                z = z.tanh_() if layer.activation == "tanh" else z.sigmoid_()
            mask = _mask(layer, batch)
            h = z if mask is None else z * mask
        return inputs, h

    def _backward(
        self,
        params: Tensors,
        batch: Batch,
        inputs: list[Tensor],
        d: Tensor,
        use: Callable[[DenseLayer, Tensor, Tensor], None],
    ) -> None:
        """Call `use(layer, d, h)` for each layer, last to first; `use` may change the layer's parameters."""
        d = d[:, :, 1:] if self.layers[-1].activation == "two classes" else d
        for i in reversed(range(len(self.layers))):
            below = torch.bmm(d, params[self.layers[i].weight]) if i else d
            use(self.layers[i], d, inputs[i])
            if i:
                d = self._through(self.layers[i - 1], below, inputs[i], batch)

    def _through(self, layer: DenseLayer, d: Tensor, h: Tensor, batch: Batch) -> Tensor:
        """Propagate a derivative back through a layer's dropout and activation, with their output h."""
        mask = _mask(layer, batch)
        if mask is not None:
            d = d.mul_(mask)
        if layer.activation == "relu":
            out: Tensor = torch.ops.aten.threshold_backward(d, h, 0)
            return out
        a = h if mask is None else torch.where(mask > 0, h / mask.clamp_min(1.0), 0.0)
        return d.mul_(1 - a * a) if layer.activation == "tanh" else d.mul_(a * (1 - a))


def _mask(layer: DenseLayer, batch: Batch) -> Tensor | None:
    return batch.masks.get(layer.site.key) if layer.site else None
