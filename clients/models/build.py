"""Builds the module of a model's options, initialised by a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from clients.core.errors import UserError
from clients.core.population import Population
from clients.models.convolutions import cnn1d_layers
from clients.models.options import (
    Cnn1dOptions,
    CnnOptions,
    GruOptions,
    LinearOptions,
    MlpOptions,
    ModelOptions,
    ParameterVectorOptions,
    SmallCnnOptions,
    SoftmaxOptions,
    TwoNNOptions,
)
from clients.models.starts import start_vector
from clients.models.table import MODELS

Shape = tuple[int, ...]

EMBEDDING = 8
"""Numbers that an id of a token is embedded in, as for Shakespeare's characters in McMahan et al. 2017."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
}


class Quadratic(nn.Module):
    """F(w; H, w*, b) = (w - w*)' H (w - w*) / 2 + b' w, one value an example.

    Features are [H row by row, w*], or [H row by row, w*, b] where there are linear terms.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the objective of each example, [n], from features [n, d*d + d] or [n, d*d + 2d]."""
        d = self.w.shape[-1]
        away = self.w - x[:, d * d : d * d + d]
        curved = 0.5 * torch.einsum("ni,nij,nj->n", away, x[:, : d * d].view(-1, d, d), away)
        return curved if x.shape[1] == d * d + d else curved + x[:, d * d + d :] @ self.w


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


def initialised(module: nn.Module, how: str, generator: torch.Generator | None, scale: float = 1.0) -> nn.Module:
    """Initialise weights by Glorot and Bengio 2010 ("xavier"), He et al. 2015 ("he") or torch's default ("torch").

    Args:
        module: whose layers are initialised in place.
        how: see above; "zero" sets weights to 0.
        generator: of the draws.
        scale: factor of the drawn weights.
    """
    for m in module.modules():
        if not isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d) or m.weight.is_meta:
            continue  # on `meta`, which has no values, torch's draws would import its compiler for a second
        if how == "zero":
            nn.init.zeros_(m.weight)
        elif how == "xavier":
            nn.init.xavier_uniform_(m.weight, generator=generator)
        elif how == "he":
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu", generator=generator)
        else:
            nn.init.kaiming_uniform_(m.weight, a=math.sqrt(5), generator=generator)
        if scale != 1.0:
            with torch.no_grad():
                m.weight.mul_(scale)
        if m.bias is not None:
            if how == "torch":
                bound = 1 / math.sqrt(nn.init._calculate_fan_in_and_fan_out(m.weight)[0])
                nn.init.uniform_(m.bias, -bound, bound, generator=generator)
            else:
                nn.init.zeros_(m.bias)
    return module


def _norm(kind: str, width: int, groups: int, *, image: bool) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(width) if image else nn.BatchNorm1d(width)]
    return [nn.GroupNorm(groups, width)] if kind == "group" else []


def _flat(shape: Shape) -> tuple[list[nn.Module], int]:
    """Return the layer that flattens features (none if they are flat), and the number of features."""
    return [nn.Flatten()] if len(shape) > 1 else [], math.prod(shape)


def linear(o: LinearOptions, shape: Shape, outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build linear regression."""
    flatten, inputs = _flat(shape)
    return initialised(nn.Sequential(*flatten, nn.Linear(inputs, outputs)), "zero", generator)


def softmax(o: SoftmaxOptions, shape: Shape, outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build softmax regression: its outputs are logits."""
    flatten, inputs = _flat(shape)
    return initialised(nn.Sequential(*flatten, nn.Linear(inputs, outputs)), o.initialisation, generator)


def mlp(o: MlpOptions, shape: Shape, outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build a multi-layer perceptron."""
    layers, inputs = _flat(shape)
    for width in o.hidden:
        layers += [
            nn.Linear(inputs, width, bias=o.norm != "batch"),
            *_norm(o.norm, width, o.groups, image=False),
            ACTIVATIONS[o.activation](),
        ]
        layers += [nn.Dropout(o.dropout)] if o.dropout else []
        inputs = width
    whole = nn.Sequential(*layers, nn.Linear(inputs, outputs))
    return initialised(whole, o.initialisation, generator, o.initial_scale)


def two_nn(o: TwoNNOptions, shape: Shape, outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the 2NN."""
    return mlp(MlpOptions(hidden=(200, 200)), shape, outputs, generator)


def _image_shape(shape: Shape, kind: str, at_least: int) -> tuple[int, int, int]:
    """Read features as an image (channels, height, width); a flat square becomes one channel."""
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        shape = (1, math.isqrt(shape[0]), math.isqrt(shape[0]))
    if len(shape) == 2:
        shape = (1, *shape)
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4) and shape[1] > 4:
        problem = f"'{kind}' takes images of channels x height x width, and the data's shape {shape} looks like "\
            f"height x width x {shape[2]} channels"  # fmt: skip
        raise UserError("kind", problem, fix="Move the channels: x = np.moveaxis(x, -1, 1).")
    if len(shape) != 3 or min(shape[1:]) < at_least:
        raise UserError(
            "kind",
            f"'{kind}' needs images of at least {at_least}x{at_least}, the data have features of shape {shape}",
            fix="Use 'mlp' or 'softmax', or data of images.",
        )
    return shape


def _as_image(shape: Shape, image: tuple[int, int, int]) -> nn.Module:
    """Return the layer that adds a channel axis to features of `shape`."""
    return nn.Identity() if len(shape) == 3 else nn.Unflatten(1, image if len(shape) == 1 else image[:2])


def cnn(o: CnnOptions, shape: Shape, outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the CNN for larger images."""
    channels, height, width = _image_shape(shape, o.kind, 4)
    layers = nn.Sequential(
        _as_image(shape, (channels, height, width)),
        nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * (height // 4) * (width // 4), 512), nn.ReLU(), nn.Linear(512, outputs),
    )  # fmt: skip
    return initialised(layers, "he", generator)


def small_cnn(o: SmallCnnOptions, shape: Shape, outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the CNN for small images."""
    channels, height, width = _image_shape(shape, o.kind, 2)
    first, second = o.channels
    bias = o.norm != "batch"
    layers = nn.Sequential(
        _as_image(shape, (channels, height, width)),
        nn.Conv2d(channels, first, 3, padding=1, bias=bias), *_norm(o.norm, first, 4, image=True), nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1, bias=bias), *_norm(o.norm, second, 4, image=True), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(second * (height // 2) * (width // 2), outputs),
    )  # fmt: skip
    return initialised(layers, "he", generator)


def cnn1d(o: Cnn1dOptions, shape: Shape, outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the CNN over time."""
    return initialised(cnn1d_layers(shape, outputs, o), "he", generator)


def gru(o: GruOptions, shape: Shape, outputs: int, generator: torch.Generator | None) -> nn.Module:
    """Build the GRU; its weights are torch's own."""
    return GruForecaster(shape[1] if len(shape) > 1 else 1, o.hidden, outputs)


def parameter_vector(
    o: ParameterVectorOptions, shape: Shape, outputs: int, generator: torch.Generator | None
) -> nn.Module:
    """Build the model of an objective of `outputs` parameters."""
    return Quadratic(start_vector(o.start, outputs))


def build_model(options: ModelOptions, population: Population, seed: int) -> nn.Module:
    """Build the module for a population's features and outputs, initialised by `seed`.

    Where features are ids of tokens, an embedding comes first, and the model gets features [..., EMBEDDING].

    Raises:
        UserError: the model does not fit the data (field `kind`).
    """
    check_fits_data(options, population)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _built(options, population, torch.Generator().manual_seed(seed))


def check_fits_data(options: ModelOptions, population: Population) -> None:
    """Refuse a model of another task than the data's.

    Raises:
        UserError: of the field `kind`.
    """
    row, task = MODELS.row_of(options), population.task
    own = {other.data: other.kind for other in MODELS.values() if other.data}
    fitting = [kind for kind, m in MODELS.items() if task in m.tasks and not (population.spec.generates and m.data)]
    others = [own[population.name]] if population.name in own else fitting
    chosen = population.name in own or population.spec.generates
    if (task == "objective") != ("objective" in row.tasks) or (chosen and row.kind not in others):
        of_samples = 'It needs data.task = "generate", which "digits" and "images" have.'
        hint = of_samples if row.generates else _own_words(own)
        raise UserError(
            "kind",
            f"'{row.kind}' does not fit data '{population.name}'",
            fix=f"{hint} These data take: {', '.join(others)}.",
        )
    if task not in row.tasks:
        why, fix = row.unfit
        raise UserError("kind", f"'{row.kind}' {why}", fix=fix)


def _own_words(own: Mapping[str, str]) -> str:
    """Return which data have a model of their own, in words."""
    return " ".join(f"Data '{data}' need the model '{kind}', and only they do." for data, kind in own.items())


def outlined_model(options: ModelOptions, population: Population) -> nn.Module:
    """Return the module on torch's device `meta`: its tensors have shapes and take no memory.

    Raises:
        UserError: the model does not fit the data (field `kind`).
    """
    check_fits_data(options, population)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _built(options, population, None)


def _built(options: ModelOptions, population: Population, generator: torch.Generator | None) -> nn.Module:
    row = MODELS.row_of(options)
    shape, tokens = population.feature_shape, population.spec.tokens
    if not tokens:
        module: nn.Module = row.build(options, shape, population.outputs, generator)
        return module
    embedding = nn.Embedding(tokens, EMBEDDING)
    nn.init.normal_(embedding.weight, generator=generator)
    return nn.Sequential(embedding, row.build(options, (*shape, EMBEDDING), population.outputs, generator))
