"""Which kernel in C covers a task, and why none does."""

from __future__ import annotations

from clients.engines.batch import Program
from clients.engines.dense import DenseProgram, dense_layers
from clients.engines.native.dense import dense_kernel
from clients.engines.native.gru import NativeGruProgram, gru_kernel
from clients.engines.native.kernel import Kernel
from clients.engines.recurrent import is_gru_forecaster
from clients.training.task import LearningTask


def kernel_of(task: LearningTask) -> tuple[Kernel | None, str]:
    """Return the kernel for a task, compiled if need be, or None and the reason as the end of a sentence."""
    layers = dense_layers(task)
    if layers is not None:
        return dense_kernel(layers, task)
    if is_gru_forecaster(task):
        return gru_kernel(task)
    return None, "kernels exist for perceptrons and GRU forecasters alone"


def kernel_in(program: Program) -> Kernel | None:
    """Return the kernel in C that a program has; None if it has none."""
    return program.kernel if isinstance(program, DenseProgram | NativeGruProgram) else None


def has_kernel(program: Program) -> bool:
    """Return whether a program has a kernel in C."""
    return kernel_in(program) is not None
