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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.engines.native.build import Library, load
from clients.engines.native.kernel import INT, MACROS, POINTER, SHARED_FIELDS, Form, Kernel, at
from clients.training.local import Batches

MOST_LAYERS = 64
ACTIVATIONS = {None: 0, "relu": 1, "tanh": 2, "sigmoid": 3}


class _Job(ctypes.Structure):
    """`Job` of dense.c: the same fields in the same order."""

    _fields_ = (
        ("layers", INT), ("widths", POINTER), ("activations", POINTER), ("has_bias", POINTER), *SHARED_FIELDS,
    )  # fmt: skip


@dataclass(frozen=True)
class DenseKernel(Kernel):
    """Trains perceptrons of one form.

    Attributes:
        widths: inputs, then the outputs of each layer.
        activations: of each layer.
        biases: whether each layer has a bias.
    """

    widths: tuple[int, ...]
    activations: tuple[str | None, ...]
    biases: tuple[bool, ...]

    def _form(self) -> Form:
        weights = sum(a * b for a, b in pairwise(self.widths))
        biases = sum(n * b for n, b in zip(self.widths[1:], self.biases, strict=True))
        return Form(f"layers of {self.widths}", self.widths[0], self.widths[-1], weights + biases)

    def _job(self, features: Tensor, width: int, shared: tuple[Any, ...]) -> Callable[[], int]:
        layers = [np.array(v, np.int64) for v in (self.widths, [ACTIVATIONS[a] for a in self.activations], self.biases)]
        job = _Job(len(self.activations), *map(at, layers), *shared)

        def go_on() -> int:
            assert layers, "the job points to them"
            return int(self.functions.fedscape_dense(ctypes.byref(job)))

        return go_on


def dense_library(dtype: torch.dtype) -> Library:
    """Return the compiled library for a type, checked on a small case; see `build.load`."""
    return load("dense.c", MACROS[dtype], _checks[dtype])


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
    kernel = DenseKernel(functions, False, dtype, (3, 4, 2), ("tanh", None), (True, True))
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


_checks = {dtype: partial(_check, dtype) for dtype in MACROS}
"""One object for each type, so that a library is looked up once."""
