"""What kernels have in common: the job of all local steps of a tile's clients, in one call, one client after another.

A client's numbers depend on its own examples alone: tiles, threads and workers change no bit.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.engines.native.threads import kernel_threads
from clients.training.local import Batches
from clients.training.path_measures import EXACT_STEPS, measured_steps, placed_steps

SLICE_SECONDS = 0.1
"""A call returns about so often: for progress, and for Ctrl-C."""
FEW_OPERATIONS = 2_000_000
"""Multiplications of a round from which on several threads share them; starting one takes some 20 us."""
MACROS: dict[torch.dtype, tuple[str, ...]] = {torch.float32: (), torch.float64: ("REAL_IS_DOUBLE",)}
"""What a kernel is compiled with for a type."""
NO_MEMORY, ROW_OUT_OF_RANGE, LABEL_OUT_OF_RANGE = 1, 2, 3
"""Errors of team.h."""
_WORDS = {
    NO_MEMORY: "there is not enough memory for the kernel",
    ROW_OUT_OF_RANGE: "a row of a batch is outside the features or the targets",
    LABEL_OUT_OF_RANGE: "a label is below 0 or at least the number of outputs",
}
INT, DOUBLE, POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
SHARED_FIELDS = (
    ("regression", INT), ("features", POINTER), ("examples", INT), ("feature_stride", INT), ("feature_bytes", INT),
    ("targets", POINTER), ("clients", INT), ("batch", INT), ("num_params", INT), ("rows", POINTER),
    ("rows_at", POINTER), ("counts", POINTER), ("counts_at", POINTER), ("steps", POINTER), ("start", POINTER),
    ("params", POINTER), ("lr", DOUBLE), ("shrink", DOUBLE), ("done", POINTER), ("losses", POINTER),
    ("wrong", POINTER), ("gradients", POINTER), ("distances", POINTER), ("ends", POINTER),
    ("exact_steps", INT), ("threads", INT), ("seconds", DOUBLE),
)  # fmt: skip
"""The fields at the end of each kernel's job in C."""


@dataclass(frozen=True)
class Trained:
    """The result of a tile's local steps, for K clients.

    Attributes:
        params: local parameters [K, P].
        losses: sums of the losses of all examples seen, float64 (K,).
        wrong: wrongly classified examples among them, int64 (K,).
        gradients: squared gradient norms at the measured steps, float64 (M, K); see `path_measures.is_measured`.
        distances: distances from the start after the placed steps, float64 (Q, K); see `path_measures.is_placed`.
        ends: distances after each client's last step, float64 (K,).
    """

    params: Tensor
    losses: F64
    wrong: I64
    gradients: F64
    distances: F64
    ends: F64


@dataclass(frozen=True)
class Form:
    """What a kernel's models are: in words, numbers of an example (or of one time step), outputs and parameters."""

    words: str
    inputs: int
    outputs: int
    params: int


@dataclass(frozen=True)
class Kernel(ABC):
    """Trains models of one form.

    Attributes:
        functions: the loaded library, compiled for `dtype`.
        regression: squared error, or cross-entropy.
        dtype: float32 or float64.
    """

    functions: ctypes.CDLL
    regression: bool
    dtype: torch.dtype

    def train(
        self,
        features: Tensor,
        targets: Tensor,
        batches: Batches,
        start: Tensor,
        *,
        lr: float,
        shrink: float = 1.0,
        advance: Callable[[int], object] | None = None,
        seconds: float = SLICE_SECONDS,
        few: int = FEW_OPERATIONS,
    ) -> Trained:
        """Take all local steps, w <- shrink w - lr gradient, from the same start.

        Args:
            features: [n, *feature_shape].
            targets: int64 [n], or [n, outputs] for regression.
            batches: of K clients, best the longest first.
            start: broadcast parameters [P].
            lr: learning rate.
            shrink: factor of the parameters in each step.
            advance: called with the number of local steps taken since its last call; None for nothing.
            seconds: after which a call of the library returns, to go on in the next one.
            few: multiplications below which one thread does all.

        Raises:
            ValueError: features, targets or parameters have another size than the model's.
            IndexError: a row or a label is out of range.
            MemoryError: there is no memory for the kernel.
        """
        self._check(features, targets, start)
        k, most, width = batches.rows.shape
        steps = np.ascontiguousarray(batches.steps, np.int64)
        rows, counts = np.ascontiguousarray(batches.rows), np.ascontiguousarray(batches.counts)
        features, targets, start = self._features(features), self._targets(targets), start.contiguous()
        measured, placed = len(measured_steps(most)), len(placed_steps(most))
        out = Trained(
            start.new_empty(k, len(start)), np.zeros(k), np.zeros(k, np.int64), np.zeros((measured, k)),
            np.zeros((placed, k)), np.zeros(k),
        )  # fmt: skip
        every, done = np.arange(k), np.full(k, -1)
        rows_at, counts_at = every * (most * width), every * most
        threads = kernel_threads() if width * int(steps.sum()) * len(start) >= few else 1
        examples = min(len(features), len(targets))  # windows of series have more features than targets, or fewer
        go_on = self._job(
            features, width,
            (
                self.regression, features.data_ptr(), examples, features.stride(0), features.element_size(),
                targets.data_ptr(), k, width, len(start), at(rows), at(rows_at), at(counts), at(counts_at), at(steps),
                start.data_ptr(), out.params.data_ptr(), lr, shrink, at(done), at(out.losses), at(out.wrong),
                at(out.gradients), at(out.distances), at(out.ends), EXACT_STEPS, threads, seconds,
            ),
        )  # fmt: skip
        before = 0
        while (done < steps).any():
            raise_for(go_on())
            taken = int(done.clip(0).sum())
            if advance is not None:
                advance(taken - before)
            before = taken
        return out

    def _check(self, features: Tensor, targets: Tensor, start: Tensor) -> None:
        """Check the sizes of what the library reads without a look."""
        form = self._form()
        fits = self._fits(features.shape[1:]) and targets.shape[1:].numel() == (form.outputs if self.regression else 1)
        if not fits or start.shape != (form.params,) or start.dtype != self.dtype:
            shapes = f"features {tuple(features.shape)}, targets {tuple(targets.shape)}, {len(start)} parameters"
            raise ValueError(f"{shapes} of {start.dtype} do not fit {form.words} in {self.dtype}")

    def _fits(self, shape: torch.Size) -> bool:
        """Return whether examples of a shape fit the model."""
        return shape.numel() == self._form().inputs

    @abstractmethod
    def _form(self) -> Form:
        """Return the sizes of the model."""

    @abstractmethod
    def _job(self, features: Tensor, width: int, shared: tuple[Any, ...]) -> Callable[[], int]:
        """Return a function that trains for a while and returns an error of team.h, or 0.

        Args:
            features: what `train` got.
            width: the longest batch.
            shared: values of `SHARED_FIELDS`.
        """

    def _features(self, features: Tensor) -> Tensor:
        """Return features of a type that the kernel reads, each example in one piece."""
        if features.dtype not in MACROS:
            features = features.to(self.dtype)
        return features if features[:1].is_contiguous() else features.contiguous()

    def _targets(self, targets: Tensor) -> Tensor:
        return (targets.to(self.dtype) if self.regression else targets.to(torch.int64)).contiguous()


class WithKernel:
    """A program of gradients that may have a kernel, which takes all local steps of plain SGD.

    Attributes:
        kernel: None where torch takes the steps.
    """

    kernel: Kernel | None = None


def raise_for(error: int) -> None:
    """Raise the error that a kernel returned, if any.

    Raises:
        IndexError: a row or a label is out of range.
        MemoryError: there is no memory for the kernel.
    """
    if error:
        raise MemoryError(_WORDS[error]) if error == NO_MEMORY else IndexError(_WORDS[error])


def at(array: np.ndarray[tuple[int, ...], np.dtype[np.int64 | np.float64]]) -> int:
    """Return the address of an array."""
    address: int = array.__array_interface__["data"][0]  # half the cost of `ctypes.data`
    return address


def type_obstacle(dtype: torch.dtype, device: torch.device) -> str:
    """Return why no kernel computes in a type or on a device, in words; empty where one does."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device}"
    return "" if dtype in MACROS else f"it computes in float32 or float64, not in {dtype}"
