"""The kernel of GRU forecasters: gradients of a batch a client, and all local steps of a tile's clients in one call.

Gradients serve every optimiser, rule and loss. The local steps cover plain SGD with cross-entropy or squared error.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clients.core.examples import Task
from clients.engines.batch import Batch, Tensors, output_error
from clients.engines.native.build import Library, load
from clients.engines.native.kernel import INT, MACROS, SHARED_FIELDS, Form, Kernel, WithKernel, raise_for, type_obstacle
from clients.engines.native.threads import kernel_threads
from clients.engines.recurrent import WEIGHTS, GruProgram
from clients.training.losses import MARGIN_LOSSES
from clients.training.task import LearningTask

_SQUARED_ERROR, _CROSS_ENTROPY, _GIVEN_DERIVATIVE, _OUTPUTS_ALONE = range(4)
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}
"""How far the self-check's gradients, which are about 0.1, may be from torch's."""


class _Job(ctypes.Structure):
    """`Job` of gru.c: the same fields in the same order."""

    _fields_ = (("hidden", INT), ("channels", INT), ("time", INT), ("outputs", INT), ("width", INT), *SHARED_FIELDS)


@dataclass(frozen=True)
class GruKernel(Kernel):
    """Trains GRU forecasters of one form: hidden units, channels of the series and outputs."""

    hidden: int
    channels: int
    outputs: int

    def _form(self) -> Form:
        units, words = self.hidden, f"a GRU of {self.hidden} units, {self.channels} channels, {self.outputs} outputs"
        params = 3 * units * (self.channels + units + 2) + self.outputs * (units + 1)
        return Form(words, self.channels, self.outputs, params)

    def _fits(self, shape: torch.Size) -> bool:
        return len(shape) in (1, 2) and shape[1:].numel() == self.channels and shape.numel() > 0

    def _job(self, features: Tensor, width: int, shared: tuple[Any, ...]) -> Callable[[], int]:
        job = _Job(*self._shape(features.shape[1], width), *shared)
        return lambda: int(self.functions.gru_train(ctypes.byref(job)))

    def gradients(
        self, loss: int, params: Tensors, batch: Batch, out: Tensors, away: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute gradients of k clients, each of its batch.

        Args:
            loss: squared error, cross-entropy, the derivative by the outputs that `away` has, or outputs alone.
            params: [k, *shape] by name.
            batch: of length b.
            out: gets the gradients; empty where only outputs are computed.
            away: [k, b, outputs].

        Returns:
            Outputs [k, b, outputs] and losses [k, b]; 0 for padding.

        Raises:
            IndexError: a target is not a class.
            MemoryError: there is no memory for the kernel.
            TypeError: a tensor has another dtype than the kernel.
            ValueError: features, targets or parameters have another size than the model's.
        """
        x, targets = batch.features.contiguous(), batch.targets.contiguous()
        weights, away = (None if t is None else t.contiguous() for t in (batch.weights, away))
        kinds = {
            t.dtype for t in (x, *params.values(), weights, away, targets if self.regression else x) if t is not None
        }
        if kinds != {self.dtype} or not (self.regression or targets.dtype == torch.int64):
            raise TypeError(f"the kernel takes {self.dtype} and int64 classes, got {kinds} and targets {targets.dtype}")
        k, b, time = x.shape[:3]
        each, size = self.outputs if self.regression else 1, sum(p.numel() for p in params.values())
        if not self._fits(x.shape[2:]) or targets.numel() != k * b * each or size != k * self._form().params:
            shapes = f"features {tuple(x.shape)}, targets {tuple(targets.shape)}, {size} parameters"
            raise ValueError(f"{shapes} do not fit {k} batches of {self._form().words}")
        losses, outputs = x.new_empty(k, b), x.new_empty(k, b, self.outputs)
        error = self.functions.gru_gradients(
            (INT * 5)(*self._shape(time, b)), ctypes.c_int(loss), INT(k), INT(kernel_threads()), _address(x),
            _address(targets), _address(weights), _address(away), _addresses(params), _addresses(out),
            _address(losses), _address(outputs),
        )  # fmt: skip
        raise_for(error)
        return outputs, losses

    def _shape(self, time: int, width: int) -> tuple[int, int, int, int, int]:
        """Return the fields of `gru_shape` in C."""
        return self.hidden, self.channels, time, self.outputs, width


class NativeGruProgram(GruProgram, WithKernel):
    """`GruProgram` by the kernel, with the same numbers up to rounding.

    Threads share the clients out, see `threads.kernel_threads`. A client's bits depend neither on threads nor on other
    clients. Under losses of the margin, and focal, weighted and mixed ones, the derivative by the outputs comes from
    torch, and the forward pass runs twice.

    Args:
        task: classification or regression.
        gamma: exponent of the focal loss; 0 is cross-entropy.
        kernel: see `gru_kernel`.
        loss: one of `LocalOptions.loss`; "auto" is the task's.
    """

    kernel: GruKernel

    def __init__(self, task: Task, gamma: float, kernel: GruKernel, loss: str = "auto") -> None:
        super().__init__(task, gamma, loss)
        self.kernel = kernel

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients, losses, outputs and the unchanged buffers; losses and outputs of padding are 0.

        Raises:
            IndexError, MemoryError, TypeError, ValueError: see `GruKernel.gradients`.
        """
        params = {n: params[n].contiguous() for n in WEIGHTS}
        out = {n: torch.empty_like(p) for n, p in params.items()}
        if self.gamma or batch.remedy or self.loss in MARGIN_LOSSES:
            outputs, _ = self.kernel.gradients(_OUTPUTS_ALONE, params, batch, {})
            losses, away = output_error(outputs, batch, self.task, self.gamma, self.loss)
            self.kernel.gradients(_GIVEN_DERIVATIVE, params, batch, out, away)
        else:
            loss = _SQUARED_ERROR if self.task == "regression" else _CROSS_ENTROPY
            outputs, losses = self.kernel.gradients(loss, params, batch, out)
        return out, losses, outputs, buffers


def gru_kernel(task: LearningTask) -> tuple[GruKernel | None, str]:
    """Return a kernel for a task's GRU forecaster, or None and the reason as the end of a sentence."""
    if obstacle := type_obstacle(task.dtype, task.device):
        return None, obstacle
    library = gru_library(task.dtype)
    if library.functions is None:
        return None, library.reason
    shapes = dict(zip(task.parameters.names, task.parameters.shapes, strict=True))
    (_, channels), (outputs, hidden) = shapes["gru.weight_ih_l0"], shapes["readout.weight"]
    regression = task.population.task == "regression"
    return GruKernel(library.functions, regression, task.dtype, hidden, channels, outputs), ""


def gru_library(dtype: torch.dtype) -> Library:
    """Return the compiled library for a type, checked on a small case; see `build.load`."""
    return load("gru.c", MACROS[dtype], _CHECKS[dtype])


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _addresses(tensors: Mapping[str, Tensor]) -> Any:
    return (ctypes.c_void_p * len(WEIGHTS))(*[tensors[n].data_ptr() for n in WEIGHTS]) if tensors else None


def _check(dtype: torch.dtype, functions: ctypes.CDLL) -> str:
    """Compare the kernel with `GruProgram` on two small models; return what is wrong, empty if nothing."""
    functions.gru_job_bytes.restype = INT
    if functions.gru_job_bytes() != ctypes.sizeof(_Job):
        return "the job has another size"
    hidden, channels, outputs, random = 11, 2, 3, torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(2, *size, generator=random, dtype=dtype)

    shapes = ((3 * hidden, channels), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,), (outputs, hidden), (outputs,))
    params = {n: 0.3 * normal(*shape) for n, shape in zip(WEIGHTS, shapes, strict=True)}
    batch = Batch(normal(9, 4, channels), torch.arange(18).view(2, 9) % outputs, None, {})
    kernel = GruKernel(functions, False, dtype, hidden, channels, outputs)
    ours, losses, _, _ = NativeGruProgram("classification", 0.0, kernel).gradients(params, {}, batch)
    reference, reference_losses, _, _ = GruProgram("classification").gradients(params, {}, batch)

    def differ(a: Tensor, b: Tensor) -> bool:
        return not torch.allclose(a, b, rtol=0.0, atol=_TOLERANCE[dtype])

    wrong = [name for name in WEIGHTS if differ(ours[name], reference[name])]
    wrong += ["the losses"] if differ(losses, reference_losses) else []
    return f"other numbers than torch's: {', '.join(wrong)}" if wrong else ""


_CHECKS = {dtype: partial(_check, dtype) for dtype in MACROS}
"""One object for each type, so that a library is looked up once."""
