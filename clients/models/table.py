"""Model options and the modules they build. Any `torch.nn.Module` of the user's takes their place from Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from clients.core.errors import UserError, require
from clients.core.options import STRICT
from clients.core.population import Population
from clients.models.convolutions import Cnn1dOptions, cnn1d

Activation = Literal["relu", "tanh", "sigmoid", "gelu", "leaky_relu"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
}


@dataclass(frozen=True, kw_only=True)
class SoftmaxOptions:
    """Softmax (multinomial logistic) regression; biases and weights start at zero unless `initialisation` says else."""

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["softmax"] = "softmax"
    initialisation: Literal["zero", "xavier"] = "zero"


@dataclass(frozen=True, kw_only=True)
class LinearOptions:
    """Linear regression on flattened features, started at zero."""

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["linear"] = "linear"


@dataclass(frozen=True, kw_only=True)
class MlpOptions:
    """A multi-layer perceptron: for each width in `hidden` linear, norm, activation, dropout; then linear.

    Linear layers before batch normalisation have no bias: it would have no effect, and a gradient of rounding noise.
    """

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = (64,)
    activation: Activation = "relu"
    initialisation: Literal["xavier", "he", "torch"] = "he"
    dropout: float = 0.0
    norm: Literal["none", "batch", "group"] = "none"
    groups: int = 4

    def __post_init__(self) -> None:
        require(all(w >= 1 for w in self.hidden), "hidden", f"every width must be >= 1, got {list(self.hidden)}")
        require(0 <= self.dropout < 1, "dropout", f"must be in [0, 1), got {self.dropout}")
        require(self.groups >= 1, "groups", f"must be >= 1, got {self.groups}")
        bad = [w for w in self.hidden if self.norm == "group" and w % self.groups]
        require(not bad, "groups", f"must divide every hidden width, and {self.groups} does not divide {bad}")


@dataclass(frozen=True, kw_only=True)
class TwoNNOptions:
    """The 2NN of McMahan et al. 2017: 784-200-200-10 with ReLU, 199,210 parameters on MNIST."""

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["2nn"] = "2nn"


@dataclass(frozen=True, kw_only=True)
class CnnOptions:
    """The CNN of McMahan et al. 2017 for 28x28 images: 1,663,370 parameters on MNIST."""

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["cnn"] = "cnn"


@dataclass(frozen=True, kw_only=True)
class SmallCnnOptions:
    """A small CNN for small images such as 8x8 digits: two 3x3 convolutions, one pooling, one linear layer."""

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["small_cnn"] = "small_cnn"
    channels: tuple[int, int] = (8, 16)
    norm: Literal["none", "batch", "group"] = "none"

    def __post_init__(self) -> None:
        require(min(self.channels) >= 1, "channels", f"must be >= 1, got {list(self.channels)}")
        require(
            self.norm != "group" or all(c % 4 == 0 for c in self.channels),
            "channels",
            f"must be multiples of 4 under group normalisation, got {list(self.channels)}",
        )


@dataclass(frozen=True, kw_only=True)
class GruOptions:
    """A GRU over past steps, and a linear read-out of its last state."""

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["gru"] = "gru"
    hidden: int = 32

    def __post_init__(self) -> None:
        require(self.hidden >= 1, "hidden", f"must be >= 1, got {self.hidden}")


@dataclass(frozen=True, kw_only=True)
class QuadraticOptions:
    """The parameter vector of a `quadratic` problem: the model is its own argument. `start` fills it."""

    __pydantic_config__: ClassVar = STRICT
    kind: Literal["quadratic"] = "quadratic"
    start: float | tuple[float, ...] = 0.0


ModelOptions = (
    SoftmaxOptions
    | LinearOptions
    | MlpOptions
    | TwoNNOptions
    | CnnOptions
    | SmallCnnOptions
    | Cnn1dOptions
    | GruOptions
    | QuadraticOptions
)
MODELS: dict[str, type[ModelOptions]] = {
    "softmax": SoftmaxOptions,
    "linear": LinearOptions,
    "mlp": MlpOptions,
    "2nn": TwoNNOptions,
    "cnn": CnnOptions,
    "small_cnn": SmallCnnOptions,
    "cnn1d": Cnn1dOptions,
    "gru": GruOptions,
    "quadratic": QuadraticOptions,
}


class Quadratic(nn.Module):
    """F(w; H, w*) = (w - w*)' H (w - w*) / 2, one value an example; features are [H row by row, w*]."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the objective of each example, [n], from features [n, d*d + d]."""
        d = self.w.shape[-1]
        away = self.w - x[:, d * d :]
        return 0.5 * torch.einsum("ni,nij,nj->n", away, x[:, : d * d].view(-1, d, d), away)


class GruForecaster(nn.Module):
    """GRU over [n, time, channels] (or [n, time]); linear read-out of the last hidden state, [n, outputs]."""

    def __init__(self, channels: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return forecasts [n, outputs]."""
        sequence = x if x.dim() == 3 else x.unsqueeze(-1)
        states, _ = self.gru(sequence)
        out: Tensor = self.readout(states[:, -1])
        return out


def _initialise(module: nn.Module, how: str, generator: torch.Generator) -> None:
    """Initialise weights by Glorot and Bengio 2010 ("xavier"), He et al. 2015 ("he") or torch's default ("torch")."""
    for m in module.modules():
        if not isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d):
            continue
        if how == "zero":
            nn.init.zeros_(m.weight)
        elif how == "xavier":
            nn.init.xavier_uniform_(m.weight, generator=generator)
        elif how == "he":
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu", generator=generator)
        else:
            nn.init.kaiming_uniform_(m.weight, a=math.sqrt(5), generator=generator)
        if m.bias is not None:
            if how == "torch":
                bound = 1 / math.sqrt(nn.init._calculate_fan_in_and_fan_out(m.weight)[0])
                nn.init.uniform_(m.bias, -bound, bound, generator=generator)
            else:
                nn.init.zeros_(m.bias)


def _norm(kind: str, width: int, groups: int, *, image: bool) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(width) if image else nn.BatchNorm1d(width)]
    return [nn.GroupNorm(groups, width)] if kind == "group" else []


def _mlp(inputs: int, outputs: int, o: MlpOptions) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in o.hidden:
        layers += [
            nn.Linear(inputs, width, bias=o.norm != "batch"),
            *_norm(o.norm, width, o.groups, image=False),
            ACTIVATIONS[o.activation](),
        ]
        layers += [nn.Dropout(o.dropout)] if o.dropout else []
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _image_shape(shape: tuple[int, ...], kind: str, at_least: int) -> tuple[int, int, int]:
    """Read features as an image (channels, height, width); a flat square becomes one channel."""
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        shape = (1, math.isqrt(shape[0]), math.isqrt(shape[0]))
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) != 3 or min(shape[1:]) < at_least:
        raise UserError(
            "kind",
            f"'{kind}' needs images of at least {at_least}x{at_least}, the data have features of shape {shape}",
            fix="Use 'mlp' or 'softmax', or data of images.",
        )
    return shape


def _as_image(shape: tuple[int, ...], image: tuple[int, int, int]) -> nn.Module:
    """Return the layer that gives features of `shape` their channel axis."""
    return nn.Identity() if len(shape) == 3 else nn.Unflatten(1, image if len(shape) == 1 else image[:2])


def _cnn(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    channels, height, width = _image_shape(shape, "cnn", 4)
    return nn.Sequential(
        _as_image(shape, (channels, height, width)),
        nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * (height // 4) * (width // 4), 512), nn.ReLU(), nn.Linear(512, outputs),
    )  # fmt: skip


def _small_cnn(shape: tuple[int, ...], outputs: int, o: SmallCnnOptions) -> nn.Sequential:
    channels, height, width = _image_shape(shape, "small_cnn", 2)
    first, second = o.channels
    bias = o.norm != "batch"
    return nn.Sequential(
        _as_image(shape, (channels, height, width)),
        nn.Conv2d(channels, first, 3, padding=1, bias=bias), *_norm(o.norm, first, 4, image=True), nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1, bias=bias), *_norm(o.norm, second, 4, image=True), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(second * (height // 2) * (width // 2), outputs),
    )  # fmt: skip


def _quadratic(population: Population, o: QuadraticOptions) -> nn.Module:
    d = population.outputs
    start = torch.as_tensor(o.start, dtype=torch.float64)
    if start.dim() == 1 and len(start) != d:
        raise UserError("start", f"must be one number or {d}, got {len(start)} numbers")
    return Quadratic(start.expand(d).clone())


def build_model(options: ModelOptions, population: Population, seed: int) -> nn.Module:
    """Build the module for a population's features and outputs, initialised by `seed`.

    Raises:
        UserError: the model does not fit the data (field `kind`).
    """
    shape, outputs = population.feature_shape, population.outputs
    flat = math.prod(shape)
    flatten: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    if (population.task == "objective") != (options.kind == "quadratic"):
        raise UserError(
            "kind",
            f"'{options.kind}' does not fit data '{population.name}', whose task is {population.task}",
            fix="Quadratic data need the model 'quadratic', and only they do.",
        )
    if options.kind == "softmax" and population.task != "classification":
        raise UserError("kind", "'softmax' needs classes, and the data are for regression", fix="Use 'linear'.")
    if options.kind == "linear" and population.task != "regression":
        raise UserError("kind", "'linear' is for regression, and the data have classes", fix="Use 'softmax'.")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match options:
            case SoftmaxOptions() | LinearOptions():
                module: nn.Module = nn.Sequential(*flatten, nn.Linear(flat, outputs))
            case MlpOptions():
                module = nn.Sequential(*flatten, *_mlp(flat, outputs, options))
            case TwoNNOptions():
                module = nn.Sequential(*flatten, *_mlp(flat, outputs, MlpOptions(hidden=(200, 200))))
            case CnnOptions():
                module = _cnn(shape, outputs)
            case SmallCnnOptions():
                module = _small_cnn(shape, outputs, options)
            case Cnn1dOptions():
                module = cnn1d(shape, outputs, options)
            case GruOptions():
                module = GruForecaster(shape[1] if len(shape) > 1 else 1, options.hidden, outputs)
            case QuadraticOptions():
                module = _quadratic(population, options)
    how = getattr(options, "initialisation", "zero" if options.kind == "linear" else "he")
    if not isinstance(options, GruOptions | QuadraticOptions):
        _initialise(module, how, generator)
    return module
