"""The kernel of perceptrons: all local steps of a tile's clients in one call, one client after another.

It covers plain SGD on linear layers with ReLU, tanh or sigmoid between them, without dropout, with cross-entropy or
squared error, in float32 or float64 on the CPU. A client's numbers depend on its own examples alone: tiles, threads and
workers change no bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64, I64
from clients.engines.native.build import Library, load
from clients.training.local import Batches
from clients.training.path_measures import EXACT_STEPS, is_measured, is_placed

SLICE_SECONDS = 0.1
"""A call returns about so often: for progress, and for Ctrl-C."""
FEW_OPERATIONS = 2_000_000
"""Multiplications of a round from which on several threads share them; starting one takes some 20 us."""
MOST_LAYERS = 64
ACTIVATIONS = {None: 0, "relu": 1, "tanh": 2, "sigmoid": 3}
DTYPES = {torch.float32: (), torch.float64: ("REAL_IS_DOUBLE",)}
"""What the kernel computes in, and the macros for it."""
_ERRORS = {
    1: "there is not enough memory for the kernel",
    2: "a row of a batch is outside the features",
    3: "a label is below 0 or at least the number of outputs",
}
_INT, _DOUBLE, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class _Job(ctypes.Structure):
    """`Job` of dense.c: the same fields in the same order."""

    _fields_ = (
        ("layers", _INT), ("widths", _POINTER), ("activations", _POINTER), ("has_bias", _POINTER), ("regression", _INT),
        ("features", _POINTER), ("examples", _INT), ("feature_stride", _INT), ("feature_bytes", _INT),
        ("targets", _POINTER), ("clients", _INT), ("batch", _INT), ("num_params", _INT), ("rows", _POINTER),
        ("rows_at", _POINTER), ("counts", _POINTER), ("counts_at", _POINTER), ("steps", _POINTER), ("start", _POINTER),
        ("params", _POINTER), ("lr", _DOUBLE), ("shrink", _DOUBLE), ("done", _POINTER), ("losses", _POINTER),
        ("wrong", _POINTER), ("gradients", _POINTER), ("distances", _POINTER), ("ends", _POINTER),
        ("exact_steps", _INT), ("threads", _INT), ("seconds", _DOUBLE),
    )  # fmt: skip


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
class DenseKernel:
    """Trains perceptrons of one form.

    Attributes:
        functions: the loaded library, compiled for `dtype`.
        widths: inputs, then the outputs of each layer.
        activations: of each layer.
        biases: whether each layer has a bias.
        regression: squared error, or cross-entropy.
        dtype: float32 or float64.
    """

    functions: ctypes.CDLL
    widths: tuple[int, ...]
    activations: tuple[str | None, ...]
    biases: tuple[bool, ...]
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
            ValueError: features, targets or parameters have another size than the layers.
            IndexError: a row or a label is out of range.
            MemoryError: there is no memory for the kernel.
        """
        self._check(features, targets, start)
        k, most, width = batches.rows.shape
        steps = np.ascontiguousarray(batches.steps, np.int64)
        rows, counts = np.ascontiguousarray(batches.rows), np.ascontiguousarray(batches.counts)
        features, targets, start = self._features(features), self._targets(targets), start.contiguous()
        measured = sum(map(is_measured, range(1, most + 1)))
        placed = sum(map(is_placed, range(1, most + 1)))
        out = Trained(
            start.new_empty(k, len(start)), np.zeros(k), np.zeros(k, np.int64), np.zeros((measured, k)),
            np.zeros((placed, k)), np.zeros(k),
        )  # fmt: skip
        every, done = np.arange(k), np.full(k, -1)
        rows_at, counts_at = every * (most * width), every * most
        layers = [np.array(v, np.int64) for v in (self.widths, [ACTIVATIONS[a] for a in self.activations], self.biases)]
        threads = torch.get_num_threads() if width * int(steps.sum()) * len(start) >= few else 1
        job = _Job(
            len(self.activations), *map(_at, layers), self.regression, features.data_ptr(), len(features),
            features.stride(0), features.element_size(), targets.data_ptr(), k, width, len(start), _at(rows),
            _at(rows_at), _at(counts), _at(counts_at), _at(steps), start.data_ptr(), out.params.data_ptr(), lr, shrink,
            _at(done), _at(out.losses), _at(out.wrong), _at(out.gradients), _at(out.distances), _at(out.ends),
            EXACT_STEPS, threads, seconds,
        )  # fmt: skip
        before = 0
        while (done < steps).any():
            error = self.functions.fedscape_dense(ctypes.byref(job))
            if error:
                raise MemoryError(_ERRORS[error]) if error == 1 else IndexError(_ERRORS[error])
            taken = int(done.clip(0).sum())
            if advance is not None:
                advance(taken - before)
            before = taken
        return out

    def _check(self, features: Tensor, targets: Tensor, start: Tensor) -> None:
        """Check the sizes of what the library reads without a look."""
        sizes = sum(a * b for a, b in pairwise(self.widths)) + sum(
            n * b for n, b in zip(self.widths[1:], self.biases, strict=True)
        )
        each = self.widths[-1] if self.regression else 1
        fits = features.shape[1:].numel() == self.widths[0] and targets.numel() == len(features) * each
        if not fits or start.shape != (sizes,) or start.dtype != self.dtype:
            shapes = f"features {tuple(features.shape)}, targets {tuple(targets.shape)}, {len(start)} parameters"
            raise ValueError(f"{shapes} of {start.dtype} do not fit layers of {self.widths} in {self.dtype}")

    def _features(self, features: Tensor) -> Tensor:
        """Return features of a type that the kernel reads, each example in one piece."""
        if features.dtype not in DTYPES:
            features = features.to(self.dtype)
        return features if features[:1].is_contiguous() else features.contiguous()

    def _targets(self, targets: Tensor) -> Tensor:
        return (targets.to(self.dtype) if self.regression else targets.to(torch.int64)).contiguous()


def _at(array: np.ndarray[tuple[int, ...], np.dtype[np.int64 | np.float64]]) -> int:
    """Return the address of an array."""
    return int(array.ctypes.data)


def dense_library(dtype: torch.dtype) -> Library:
    """Return the compiled library for a type, checked on a small case; see `build.load`."""
    return load("dense.c", DTYPES[dtype], _checks[dtype])


def _check(dtype: torch.dtype, functions: ctypes.CDLL) -> str:
    """Compare two steps of a small perceptron with torch's; return what differs in words."""
    functions.fedscape_dense_job_bytes.restype = ctypes.c_int64
    if functions.fedscape_dense_job_bytes() != ctypes.sizeof(_Job):
        return "the job has another size"
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 3, generator=generator, dtype=torch.float64).to(dtype)
    shapes = [(4, 3), (4,), (2, 4), (2,)]
    start = [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    targets = torch.tensor([0, 1, 1, 0, 1])
    rows, counts = np.array([[[0, 1, 2], [3, 4, 4]]]), np.array([[3, 2]])
    kernel = DenseKernel(functions, (3, 4, 2), ("tanh", None), (True, True), False, dtype)
    flat = torch.cat([p.flatten() for p in start])
    found = kernel.train(features, targets, Batches(rows, counts, np.array([2])), flat, lr=0.5).params[0]
    with torch.enable_grad():
        params = [p.clone().requires_grad_() for p in start]
        for chosen in (rows[0, 0], rows[0, 1, :2]):
            h = torch.tanh(features[chosen] @ params[0].T + params[1])
            loss = torch.nn.functional.cross_entropy(h @ params[2].T + params[3], targets[chosen])
            steps = torch.autograd.grad(loss, params)
            params = [(p - 0.5 * g).detach().requires_grad_() for p, g in zip(params, steps, strict=True)]
    wanted = torch.cat([p.detach().flatten() for p in params])
    off = float((found - wanted).abs().max())
    return "" if off <= 64 * torch.finfo(dtype).eps else f"its parameters are off by {off:.1g} after two steps"


_checks = {dtype: partial(_check, dtype) for dtype in DTYPES}
"""One object for each type, so that a library is looked up once."""
