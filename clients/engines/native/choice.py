"""Which kernel in C covers a task, and why none does."""

from __future__ import annotations

from collections.abc import Sequence

from clients.core.errors import listed
from clients.engines.batch import Program
from clients.engines.dense import DenseLayer, dense_layers
from clients.engines.native.conv import ConvKernel, conv_library
from clients.engines.native.conv_form import conv_form
from clients.engines.native.dense import MOST_LAYERS, DenseKernel, dense_library
from clients.engines.native.gru import gru_kernel
from clients.engines.native.kernel import Kernel, WithKernel, type_obstacle
from clients.engines.recurrent import is_gru_forecaster
from clients.training.losses import MARGIN_LOSSES
from clients.training.options import LocalOptions
from clients.training.rules import PLAIN, LocalRule
from clients.training.task import LearningTask

NO_KERNEL = "kernels exist for perceptrons, convolutional networks and GRU forecasters alone"
"""The reason for models of other forms."""


def kernel_of(task: LearningTask, rule: LocalRule = PLAIN) -> tuple[Kernel | None, str]:
    """Return the kernel that trains a task's clients, compiled if need be, or None and the reason.

    Args:
        task: the model, the clients' data and their options.
        rule: the algorithm's local rule.

    Returns:
        The kernel and an empty text; or None and why there is none, as the end of a sentence.
    """
    layers = dense_layers(task)
    if layers is not None:
        return dense_kernel(layers, task, rule)
    return gru_kernel(task) if is_gru_forecaster(task) else conv_kernel(task, rule)


def obstacle_of(local: LocalOptions, rule: LocalRule) -> str:
    """Return why kernels do not take all of a client's local steps, as the end of a sentence; empty if they do."""
    others = {
        "local.optimizer": local.optimizer not in ("gd", "sgd"),
        "local.l1": local.l1,
        "local.decoupled_weight_decay": local.decoupled_decay,
        "local.clip_norm": local.clip_norm is not None,
        "local.clip_value": local.clip_value is not None,
        "local.gradient_noise": local.gradient_noise,
        "local.augment": local.augment.any,
        "local.class_weights": local.class_weights != "none",
        "local.focal_gamma": local.focal_gamma,
        "a loss of the margin": local.loss in MARGIN_LOSSES,
    }
    named = [key for key, used in others.items() if used]
    if rule.correct is not None or rule.sends_last_step:
        named.append(f"the local rule {rule.name!r}")
    return f"its steps are plain SGD, without {listed(named)}" if named else ""


def dense_kernel(
    layers: Sequence[DenseLayer], task: LearningTask, rule: LocalRule = PLAIN
) -> tuple[DenseKernel | None, str]:
    """Return `kernel_of` for a task whose module consists of linear layers; see `dense.dense_layers`."""
    if obstacle := obstacle_of(task.local, rule) or _form_obstacle(layers, task):
        return None, obstacle
    library = dense_library(task.dtype)
    if library.functions is None:
        return None, library.reason
    shapes = dict(zip(task.parameters.names, task.parameters.shapes, strict=True))
    widths = (shapes[layers[0].weight][1], *(shapes[layer.weight][0] for layer in layers))
    return DenseKernel(
        library.functions, task.population.task == "regression", task.dtype, widths,
        tuple(layer.activation for layer in layers), tuple(layer.bias is not None for layer in layers),
    ), ""  # fmt: skip


def conv_kernel(task: LearningTask, rule: LocalRule = PLAIN) -> tuple[ConvKernel | None, str]:
    """Return `kernel_of` for a task whose module may be a convolutional network; see `conv_form.conv_form`."""
    form, reason = conv_form(task)
    if form is None:
        return None, reason or NO_KERNEL
    rounded = "it computes in float32 or float64, not in bfloat16" if task.bf16 else ""
    if obstacle := obstacle_of(task.local, rule) or rounded or type_obstacle(task.dtype, task.device):
        return None, obstacle
    library = conv_library(task.dtype)
    if library.functions is None:
        return None, library.reason
    return ConvKernel(library.functions, task.population.task == "regression", task.dtype, form), ""


def _form_obstacle(layers: Sequence[DenseLayer], task: LearningTask) -> str:
    """Return why no kernel covers a task, in words; empty where one does."""
    if any(layer.site for layer in layers):
        return "it covers no dropout"
    if layers[-1].activation:
        return "it covers no two classes with one weight vector"
    if len(layers) > MOST_LAYERS:
        return f"it covers {MOST_LAYERS} layers at most"
    return type_obstacle(task.dtype, task.device)


def kernel_in(program: Program) -> Kernel | None:
    """Return the kernel in C that a program has; None if it has none."""
    return program.kernel if isinstance(program, WithKernel) else None


def has_kernel(program: Program) -> bool:
    """Return whether a program trains with a kernel in C."""
    return kernel_in(program) is not None
