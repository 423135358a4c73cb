"""The table of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from clients.core.rows import Row, Table, lazy
from clients.models.linear_options import LogisticOptions, PerceptronOptions, SvmOptions
from clients.models.network_options import AutoencoderOptions, RbfOptions
from clients.models.options import (
    Cnn1dOptions,
    CnnOptions,
    DoubleWellModelOptions,
    GruOptions,
    LinearOptions,
    MlpOptions,
    ModelOptions,
    ParameterVectorOptions,
    SmallCnnOptions,
    SoftmaxOptions,
    TwoNNOptions,
)
from clients.models.sequence_options import LstmOptions, RnnOptions, TransformerOptions
from clients.models.two_player.options import DiracGanOptions, GanOptions

Task = Literal["classification", "regression", "objective"]


@dataclass(frozen=True, kw_only=True)
class ModelRow(Row):
    """A kind of model.

    Attributes:
        build: (options, shape of an example's features, outputs, generator of initial weights) -> module.
        tasks: the tasks it learns.
        unfit: why it does not fit other tasks that have examples, and the fix.
        data: the only kind of data that it fits, whose only model it is; empty for none.
        generates: whether it draws examples; data of `task = "generate"` take such models alone.
    """

    build: Callable[..., Any]
    tasks: tuple[Task, ...] = ("classification", "regression")
    unfit: tuple[str, str] = ("", "")
    data: str = ""
    generates: bool = False


NO_CLASSES = ("needs classes, and the data are for regression", "Use 'linear'.")


def _built(name: str, module: str = "build") -> Callable[..., Any]:
    return lazy(f"clients.models.{module}", name)


def _classifier(kind: str, options: type[ModelOptions]) -> ModelRow:
    """Return the row of a linear classifier."""
    build = _built("linear_classifier", "linear")
    return ModelRow(kind=kind, options=options, build=build, tasks=("classification",), unfit=NO_CLASSES)


MODELS: Table[ModelRow] = Table(
    "a model",
    ModelRow(
        kind="softmax",
        options=SoftmaxOptions,
        build=_built("softmax"),
        tasks=("classification",),
        unfit=NO_CLASSES,
    ),
    ModelRow(
        kind="linear",
        options=LinearOptions,
        build=_built("linear"),
        tasks=("regression",),
        unfit=("is for regression, and the data have classes", "Use 'softmax'."),
    ),
    _classifier("logistic", LogisticOptions),
    _classifier("svm", SvmOptions),
    _classifier("perceptron", PerceptronOptions),
    ModelRow(kind="mlp", options=MlpOptions, build=_built("mlp")),
    ModelRow(
        kind="autoencoder",
        options=AutoencoderOptions,
        build=_built("autoencoder", "autoencoder"),
        tasks=("regression",),
        unfit=("reproduces its features, and the data have classes", "Use 'mlp', or data that reconstruct."),
    ),
    ModelRow(kind="rbf", options=RbfOptions, build=_built("rbf", "radial")),
    ModelRow(kind="2nn", options=TwoNNOptions, build=_built("two_nn")),
    ModelRow(kind="cnn", options=CnnOptions, build=_built("cnn")),
    ModelRow(kind="small_cnn", options=SmallCnnOptions, build=_built("small_cnn")),
    ModelRow(kind="cnn1d", options=Cnn1dOptions, build=_built("cnn1d")),
    ModelRow(kind="gru", options=GruOptions, build=_built("gru")),
    ModelRow(kind="lstm", options=LstmOptions, build=_built("lstm", "sequences")),
    ModelRow(kind="rnn", options=RnnOptions, build=_built("rnn", "sequences")),
    ModelRow(kind="transformer", options=TransformerOptions, build=_built("transformer", "transformer")),
    ModelRow(
        kind="quadratic",
        options=ParameterVectorOptions,
        build=_built("parameter_vector"),
        tasks=("objective",),
        data="quadratic",
    ),
    ModelRow(
        kind="double_well",
        options=DoubleWellModelOptions,
        build=_built("double_well", "double_well"),
        tasks=("objective",),
        data="double_well",
    ),
    ModelRow(
        kind="dirac_gan",
        options=DiracGanOptions,
        build=lazy("clients.models.two_player.dirac", "dirac_gan"),
        tasks=("objective",),
        data="dirac",
    ),
    ModelRow(
        kind="gan",
        options=GanOptions,
        build=lazy("clients.models.two_player.gan", "gan"),
        tasks=("objective",),
        generates=True,
    ),
)
