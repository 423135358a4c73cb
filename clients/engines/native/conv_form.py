"""Which modules are convolutional networks that the kernel in C covers, read part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod

from torch import nn

from clients.models.convolutions import MeanOverTime, SwapTimeAndChannels
from clients.modules.dropout import Dropout
from clients.training.task import LearningTask

MOST_CONVOLUTIONS, MOST_LAYERS = 16, 16
"""Limits of conv.c."""
_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}


@dataclass(frozen=True)
class Convolution:
    """A convolution with its pool and ReLU: a row of `shapes` in conv.c."""

    filters: int
    kernel_h: int
    kernel_w: int
    stride: int
    pad_h: int
    pad_w: int
    pool_h: int
    pool_w: int
    relu: bool
    has_bias: bool


@dataclass(frozen=True)
class ConvForm:
    """A convolutional network.

    Attributes:
        shape: channels, height and width of an example; a series has height 1.
        channels_last: whether channels are an example's last axis.
        convolutions: the convolutions.
        mean: whether linear layers see each channel's mean over positions.
        widths: inputs of the linear layers, then the outputs of each.
        activations: of each linear layer.
        biases: whether each linear layer has a bias.
    """

    shape: tuple[int, int, int]
    channels_last: bool
    convolutions: tuple[Convolution, ...]
    mean: bool
    widths: tuple[int, ...]
    activations: tuple[str | None, ...]
    biases: tuple[bool, ...]


class _UncoveredError(Exception):
    """Why the kernel does not cover a module, as the end of a sentence."""


def conv_form(task: LearningTask) -> tuple[ConvForm | None, str]:
    """Return a module's form, or None and why the kernel does not cover it; None and "" without convolutions."""
    if task.population.task == "objective" or type(task.module) is not nn.Sequential:
        return None, ""
    parts = [(n, m) for n, m in task.module.named_modules(remove_duplicate=False) if type(m) is not nn.Sequential]
    if not any(isinstance(m, nn.Conv1d | nn.Conv2d) for _, m in parts):
        return None, ""
    reading = _Reading(tuple(task.population.feature_shape))
    try:
        for name, module in parts:
            reading.read(name, module)
        form = reading.form()
    except _UncoveredError as obstacle:
        return None, str(obstacle)
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in task.module.modules())
    if hooked or tuple(reading.names) != task.parameters.names:
        return None, "it covers modules without hooks, all of whose parameters are trained, each in one place"
    return form, ""


@dataclass
class _Reading:
    """What has been read of a module; `shape` is that of the parts' input, then of what they put out."""

    shape: tuple[int, ...]
    names: list[str] = field(default_factory=list)
    image: tuple[int, int, int] | None = None
    last_axis: bool = False
    convolutions: list[Convolution] = field(default_factory=list)
    is_flat: bool = False
    mean: bool = False
    linear: list[nn.Linear] = field(default_factory=list)
    activations: list[str | None] = field(default_factory=list)

    def read(self, name: str, module: nn.Module) -> None:
        """Read the next part."""
        kind = type(module)
        known: dict[type[nn.Module], Callable[[str, nn.Module], bool]] = {
            nn.Unflatten: self._unflatten, SwapTimeAndChannels: self._swap, nn.Conv1d: self._convolve,
            nn.Conv2d: self._convolve, nn.MaxPool1d: self._pool, nn.MaxPool2d: self._pool, nn.Flatten: self._flatten,
            MeanOverTime: self._average, nn.Linear: self._multiply, **dict.fromkeys(_ACTIVATIONS, self._activate),
        }  # fmt: skip
        if kind is nn.Identity or (isinstance(module, Dropout) and module.p == 0):
            return
        if isinstance(module, Dropout):
            raise _UncoveredError("it covers no dropout")
        if kind not in known:
            raise _UncoveredError(f"in convolutional networks it covers no {kind.__name__}")
        if not known[kind](name, module):
            raise _UncoveredError(f"in convolutional networks it does not cover {name} ({module}) at its place")

    def form(self) -> ConvForm:
        """Return the form of what has been read."""
        if not self.linear or self.activations[-1] is not None or self.image is None:
            raise _UncoveredError("it covers convolutional networks that end in a linear layer")
        if len(self.convolutions) > MOST_CONVOLUTIONS or len(self.linear) > MOST_LAYERS:
            raise _UncoveredError(f"it covers {MOST_CONVOLUTIONS} convolutions and {MOST_LAYERS} linear layers at most")
        widths = (self.linear[0].in_features, *(layer.out_features for layer in self.linear))
        biases = tuple(layer.bias is not None for layer in self.linear)
        return ConvForm(
            self.image, self.last_axis, tuple(self.convolutions), self.mean, widths, tuple(self.activations), biases
        )  # fmt: skip

    def _note(self, name: str, module: nn.Conv1d | nn.Conv2d | nn.Linear) -> None:
        self.names += [f"{name}.weight", *([f"{name}.bias"] if module.bias is not None else [])]

    def _unflatten(self, _: str, module: nn.Module) -> bool:
        assert isinstance(module, nn.Unflatten)
        sizes = tuple(module.unflattened_size)
        if module.dim != 1 or self.convolutions or prod(sizes) != self.shape[0] or min(sizes) < 1:
            return False
        self.shape = (*sizes, *self.shape[1:])
        return True

    def _swap(self, _: str, module: nn.Module) -> bool:
        if self.convolutions or self.last_axis or len(self.shape) != 2:
            return False
        self.shape, self.last_axis = (self.shape[1], self.shape[0]), True
        return True

    def _convolve(self, name: str, module: nn.Module) -> bool:
        assert isinstance(module, nn.Conv1d | nn.Conv2d)
        axes = 2 if isinstance(module, nn.Conv2d) else 1
        stride, padding, kernel = module.stride, module.padding, tuple(module.kernel_size)
        if padding == "same" and all(k % 2 for k in kernel):
            padding = tuple(k // 2 for k in kernel)
        if isinstance(padding, str):
            padding = (0,) * axes if padding == "valid" else ()
        usual = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
        if len(self.shape) != axes + 1 or self.is_flat or not usual or len(set(stride)) != 1 or not padding:
            return False
        if self.shape[0] != module.in_channels:
            return False
        if self.image is None:
            channels, height, width = (*self.shape[:1], *([1] if axes == 1 else []), *self.shape[1:])
            self.image = (channels, height, width)
        (pad_h, pad_w), (kernel_h, kernel_w) = (0, *padding)[-2:], (1, *kernel)[-2:]
        sizes = tuple((n + 2 * p - k) // stride[0] + 1 for n, p, k in zip(self.shape[1:], padding, kernel, strict=True))
        self.shape = (module.out_channels, *sizes)
        self.convolutions.append(
            Convolution(module.out_channels, kernel_h, kernel_w, stride[0], pad_h, pad_w, 1, 1, False,
                        module.bias is not None)
        )  # fmt: skip
        self._note(name, module)
        return min(sizes) >= 1

    def _pool(self, _: str, module: nn.Module) -> bool:
        assert isinstance(module, nn.MaxPool1d | nn.MaxPool2d)
        axes = 2 if isinstance(module, nn.MaxPool2d) else 1

        def pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
            return (value,) * axes if isinstance(value, int) else tuple(value)

        kernel = pair(module.kernel_size)
        usual = pair(module.stride) == kernel and not any(pair(module.padding)) and set(pair(module.dilation)) == {1}
        usual = usual and not module.ceil_mode and not module.return_indices and set(kernel) <= {1, 2}
        if not usual or not self.convolutions or self.is_flat or len(self.shape) != axes + 1:
            return False
        last = self.convolutions[-1]
        if (last.pool_h, last.pool_w) != (1, 1):
            return False
        pool_h, pool_w = (1, *kernel)[-2:]
        self.convolutions[-1] = replace(last, pool_h=pool_h, pool_w=pool_w)
        self.shape = (self.shape[0], *(n // k for n, k in zip(self.shape[1:], kernel, strict=True)))
        return min(self.shape) >= 1

    def _activate(self, _: str, module: nn.Module) -> bool:
        if self.linear:
            if self.activations[-1] is not None:
                return False
            self.activations[-1] = _ACTIVATIONS[type(module)]
            return True
        if not self.convolutions or type(module) is not nn.ReLU or self.mean:
            return False
        self.convolutions[-1] = replace(self.convolutions[-1], relu=True)
        return True

    def _flatten(self, _: str, module: nn.Module) -> bool:
        assert isinstance(module, nn.Flatten)
        if (module.start_dim, module.end_dim) != (1, -1) or self.linear or not self.convolutions:
            return False
        self.shape, self.is_flat = (prod(self.shape),), True
        return True

    def _average(self, _: str, module: nn.Module) -> bool:
        if not self.convolutions or self.is_flat or len(self.shape) != 2:
            return False
        self.shape, self.is_flat, self.mean = self.shape[:1], True, True
        return True

    def _multiply(self, name: str, module: nn.Module) -> bool:
        assert isinstance(module, nn.Linear)
        if not self.is_flat or self.shape != (module.in_features,) or (self.linear and self.activations[-1] is None):
            return False
        self.linear.append(module)
        self.activations.append(None)
        self.shape = (module.out_features,)
        self._note(name, module)
        return True
