"""Which kernel in C covers a task, and why none does."""

from __future__ import annotations

from clients.engines.batch import Program
from clients.engines.dense import DenseProgram, dense_layers
from clients.engines.native.dense import DenseKernel, dense_kernel
from clients.training.task import LearningTask


def kernel_of(task: LearningTask) -> tuple[DenseKernel | None, str]:
    """Return the kernel for a task, compiled if need be, or None and the reason as the end of a sentence."""
    layers = dense_layers(task)
    if layers is None:
        return None, "kernels exist for perceptrons alone"
    return dense_kernel(layers, task)


def has_kernel(program: Program) -> bool:
    """Return whether a program trains with a kernel in C."""
    return isinstance(program, DenseProgram) and program.kernel is not None
