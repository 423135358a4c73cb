"""The GRU's gradients by the kernel in C (`gru.c`): the numbers of `GruProgram` up to rounding."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clients.core.examples import Task
from clients.engines.batch import Batch, Tensors, output_error
from clients.engines.native.build import load
from clients.engines.recurrent import WEIGHTS, GruProgram
from clients.training.task import LearningTask

_MACROS: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.float64: ("REAL_IS_DOUBLE",)}
_SQUARED_ERROR, _CROSS_ENTROPY, _GIVEN_DERIVATIVE, _OUTPUTS_ALONE = range(4)
_NO_MEMORY, _WRONG_TARGET = 1, 3
"""Errors of team.h."""
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}
"""How far the self-check's gradients, which are about 0.1, may be from torch's."""


class NativeGruProgram(GruProgram):
    """`GruProgram` in C: one client after another, hidden units in the lanes of vectors.

    Threads share the clients out, as many as torch has. A client's bits depend neither on threads nor on other
    clients. Under focal, weighted and mixed losses the derivative by the outputs comes from torch, and the forward
    pass runs twice.

    Args:
        task: classification or regression.
        gamma: exponent of the focal loss; 0 is cross-entropy.
        dtype: float32 or float64.
        kernel: the library of this dtype; see `gru_kernel`.
    """

    def __init__(self, task: Task, gamma: float, dtype: torch.dtype, kernel: ctypes.CDLL) -> None:
        super().__init__(task, gamma)
        self._dtype, self._kernel = dtype, kernel

    def gradients(self, params: Tensors, buffers: Tensors, batch: Batch) -> tuple[Tensors, Tensor, Tensor, Tensors]:
        """Return gradients, losses, outputs and the unchanged buffers (there are none).

        Losses and outputs of padding are 0.

        Raises:
            MemoryError: the kernel's work arrays do not fit.
            IndexError: a target is not a class.
            TypeError: a tensor has another dtype than the kernel.
        """
        params = {n: params[n].contiguous() for n in WEIGHTS}
        out = {n: torch.empty_like(p) for n, p in params.items()}
        if self.gamma or batch.remedy:
            outputs, _ = self._call(_OUTPUTS_ALONE, params, batch, {})
            losses, away = output_error(outputs, batch, self.task, self.gamma)
            self._call(_GIVEN_DERIVATIVE, params, batch, out, away)
        else:
            loss = _CROSS_ENTROPY if self.task == "classification" else _SQUARED_ERROR
            outputs, losses = self._call(loss, params, batch, out)
        return out, losses, outputs, buffers

    def _call(
        self, loss: int, params: Tensors, batch: Batch, out: Tensors, away: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the kernel; gradients go to `out`. Returns outputs [k, b, outputs] and losses [k, b]."""
        x = batch.features.contiguous()
        k, b, time = x.shape[:3]
        count, hidden = params["readout.weight"].shape[1:]
        shape = (ctypes.c_int64 * 5)(hidden, x[0, 0, 0].numel(), time, count, b)
        targets, weights = batch.targets.contiguous(), None if batch.weights is None else batch.weights.contiguous()
        losses, outputs = x.new_empty(k, b), x.new_empty(k, b, count)
        numbers = [x, *params.values(), *(t for t in (weights, away) if t is not None)]
        kinds = {t.dtype for t in numbers} | {targets.dtype if self.task == "regression" else self._dtype}
        if kinds != {self._dtype} or (self.task == "classification" and targets.dtype != torch.int64):
            raise TypeError(f"the kernel takes {self._dtype} and classes in int64, got {kinds} and {targets.dtype}")
        away = None if away is None else away.contiguous()
        problem = self._kernel.gru_gradients(
            shape, ctypes.c_int(loss), ctypes.c_int64(k), ctypes.c_int64(torch.get_num_threads()), _address(x),
            _address(targets), _address(weights), _address(away), _addresses(params), _addresses(out),
            _address(losses), _address(outputs),
        )  # fmt: skip
        if problem == _WRONG_TARGET:
            raise IndexError(f"targets must be classes from 0 to {count - 1}")
        if problem == _NO_MEMORY:
            raise MemoryError(f"the work arrays of a GRU for {b} examples of {time} time steps do not fit in memory")
        return outputs, losses


def gru_program(task: LearningTask) -> GruProgram:
    """Return the program of a GRU forecaster: the kernel, or torch's program with the reason why there is no kernel."""
    kernel, reason = gru_kernel(task.dtype, task.device)
    if kernel is None:
        return GruProgram(task.population.task, task.local.focal_gamma, without_kernel=reason)
    return NativeGruProgram(task.population.task, task.local.focal_gamma, task.dtype, kernel)


def gru_kernel(dtype: torch.dtype, device: torch.device) -> tuple[ctypes.CDLL | None, str]:
    """Return the kernel's library, or None with the reason why it cannot be used."""
    if device.type != "cpu":
        return None, f"the kernel runs on the CPU, not on {device.type}"
    if dtype not in _MACROS:
        return None, f"the kernel computes in float32 and float64, not in {str(dtype).removeprefix('torch.')}"
    library = load("gru.c", _MACROS[dtype], _CHECKS[dtype])
    return library.functions, library.reason


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _addresses(tensors: Mapping[str, Tensor]) -> Any:
    return (ctypes.c_void_p * len(WEIGHTS))(*[tensors[n].data_ptr() for n in WEIGHTS]) if tensors else None


def _check(dtype: torch.dtype, kernel: ctypes.CDLL) -> str:
    """Compare the kernel with `GruProgram` on two small models; return what is wrong, empty if nothing."""
    hidden, channels, outputs, random = 11, 2, 3, torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(2, *size, generator=random, dtype=dtype)

    shapes = ((3 * hidden, channels), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,), (outputs, hidden), (outputs,))
    params = {n: 0.3 * normal(*shape) for n, shape in zip(WEIGHTS, shapes, strict=True)}
    batch = Batch(normal(9, 4, channels), torch.arange(18).view(2, 9) % outputs, None, {})
    ours, losses, _, _ = NativeGruProgram("classification", 0.0, dtype, kernel).gradients(params, {}, batch)
    reference, reference_losses, _, _ = GruProgram("classification").gradients(params, {}, batch)

    def differ(a: Tensor, b: Tensor) -> bool:
        return not torch.allclose(a, b, rtol=0.0, atol=_TOLERANCE[dtype])

    wrong = [name for name in WEIGHTS if differ(ours[name], reference[name])]
    wrong += ["the losses"] if differ(losses, reference_losses) else []
    return f"other numbers than torch's: {', '.join(wrong)}" if wrong else ""


_CHECKS = {dtype: partial(_check, dtype) for dtype in _MACROS}
