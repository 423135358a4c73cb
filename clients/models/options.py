"""Options of every model. From Python, a user's own `torch.nn.Module` can replace a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.options import (
    KindOptions,
    LossName,
    check_at_least,
    check_below_one,
    check_positive,
    unread_of,
)

Activation = Literal["relu", "tanh", "sigmoid", "gelu", "leaky_relu"]
Norm = Literal["none", "batch", "group"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions(KindOptions):
    """Options of a kind of model."""

    @property
    def label(self) -> str:
        """The model's name at the start of a run: its kind, and its widths where the user sets them."""
        return self.kind

    @property
    def loss(self) -> LossName:
        """The loss that the model is trained with where `local.loss` is "auto"; "auto" for the task's own."""
        return "auto"


@dataclass(frozen=True, kw_only=True)
class SoftmaxOptions(ModelOptions):
    """Softmax (multinomial logistic) regression.

    Attributes:
        initialisation: of weights: "zero", or "xavier" (Glorot and Bengio 2010). Biases start at zero.
    """

    kind: Literal["softmax"] = "softmax"
    initialisation: Literal["zero", "xavier"] = "zero"


@dataclass(frozen=True, kw_only=True)
class LinearOptions(ModelOptions):
    """Linear regression on flattened features, started at zero."""

    kind: Literal["linear"] = "linear"


@dataclass(frozen=True, kw_only=True)
class MlpOptions(ModelOptions):
    """A multi-layer perceptron: for each width in `hidden` linear, norm, activation, dropout; then linear.

    Linear layers before batch normalisation have no bias: it would have no effect, and its gradient would be noise.

    Attributes:
        hidden: widths of the hidden layers.
        activation: after each hidden layer.
        initialisation: of weights: "xavier" (Glorot and Bengio 2010), "he" (He et al. 2015), torch's own, or "zero".
        initial_scale: factor of the initial weights, > 0.
        dropout: probability with which a hidden number is left out in training.
        norm: normalisation before each activation.
        groups: of group normalisation.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = (64,)
    activation: Activation = "relu"
    initialisation: Literal["xavier", "he", "torch", "zero"] = "he"
    initial_scale: float = 1.0
    dropout: float = 0.0
    norm: Norm = "none"
    groups: int = 4

    def __post_init__(self) -> None:
        require(all(w >= 1 for w in self.hidden), "hidden", f"every width must be >= 1, got {list(self.hidden)}")
        check_positive(self, "initial_scale")
        check_below_one(self, "dropout")
        check_at_least(self, 1, "groups")
        bad = [w for w in self.hidden if self.norm == "group" and w % self.groups]
        require(not bad, "groups", f"must divide every hidden width, and {self.groups} does not divide {bad}")

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that other keys leave without one."""
        found = unread_of(self.norm, {"groups": ("group",)}, "norm")
        if self.initialisation == "zero":
            found["initial_scale"] = "initialisation 'zero' leaves nothing to scale"
        if not self.hidden:
            found |= dict.fromkeys(("activation", "dropout", "norm", "groups"), "there is no hidden layer")
        return found

    @property
    def label(self) -> str:
        """The kind and the hidden widths."""
        return f"{self.kind} {'-'.join(map(str, self.hidden))}".rstrip()


@dataclass(frozen=True, kw_only=True)
class TwoNNOptions(ModelOptions):
    """The 2NN of McMahan et al. 2017: 784-200-200-10 with ReLU, 199,210 parameters on MNIST."""

    kind: Literal["2nn"] = "2nn"


@dataclass(frozen=True, kw_only=True)
class CnnOptions(ModelOptions):
    """The CNN of McMahan et al. 2017 for 28x28 images: 1,663,370 parameters on MNIST."""

    kind: Literal["cnn"] = "cnn"


@dataclass(frozen=True, kw_only=True)
class SmallCnnOptions(ModelOptions):
    """A small CNN for small images such as 8x8 digits: two 3x3 convolutions, one pooling, one linear layer.

    Attributes:
        channels: of the two convolutions; multiples of 4 under group normalisation.
        norm: normalisation after each convolution; groups are 4.
    """

    kind: Literal["small_cnn"] = "small_cnn"
    channels: tuple[int, int] = (8, 16)
    norm: Norm = "none"

    def __post_init__(self) -> None:
        _check_channels(self.channels)
        fits = self.norm != "group" or all(c % 4 == 0 for c in self.channels)
        require(fits, "channels", f"must be multiples of 4 under group normalisation, got {list(self.channels)}")


@dataclass(frozen=True, kw_only=True)
class Cnn1dOptions(ModelOptions):
    """A small CNN over time for windows of a signal: two convolutions of stride 2, the mean over time, linear.

    Features are [n, time, channels]; shifting a window in time hardly moves the output.

    Attributes:
        channels: of the two convolutions.
        kernel: steps that a convolution sees.
    """

    kind: Literal["cnn1d"] = "cnn1d"
    channels: tuple[int, int] = (16, 32)
    kernel: int = 9

    def __post_init__(self) -> None:
        _check_channels(self.channels)
        check_at_least(self, 1, "kernel")


@dataclass(frozen=True, kw_only=True)
class GruOptions(ModelOptions):
    """A GRU over past steps, and a linear read-out of its last state.

    Attributes:
        hidden: width of the state.
    """

    kind: Literal["gru"] = "gru"
    hidden: int = 32

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden")


@dataclass(frozen=True, kw_only=True)
class StartOptions(ModelOptions):
    """Options of a model that is the argument of a made objective.

    Attributes:
        start: the vector's first value: one number for all coordinates, or one each.
    """

    start: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        values = self.start if isinstance(self.start, tuple) else (self.start,)
        require(all(map(math.isfinite, values)), "start", f"must be finite, got {self.start}")


@dataclass(frozen=True, kw_only=True)
class ParameterVectorOptions(StartOptions):
    """The parameter vector of a `quadratic` problem: the model is its own argument."""

    kind: Literal["quadratic"] = "quadratic"


@dataclass(frozen=True, kw_only=True)
class DoubleWellModelOptions(StartOptions):
    """The parameter vector of `double_well` data. A start at 0 is at the saddle where the wells are equally deep."""

    kind: Literal["double_well"] = "double_well"


def _check_channels(channels: tuple[int, int]) -> None:
    require(min(channels) >= 1, "channels", f"must be >= 1, got {list(channels)}")
