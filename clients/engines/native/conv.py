"""The kernel of convolutional networks: all local steps of a tile's clients in one call, one client after another.

It covers plain SGD on convolutions with ReLU and max-pooling of 2, followed by linear layers, with cross-entropy or
squared error, in float32 or float64 on the CPU. A client's numbers depend on its own examples alone: tiles, threads and
workers change no bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.engines.native.build import Library, load
from clients.engines.native.conv_form import ConvForm, Convolution
from clients.engines.native.dense import ACTIVATIONS
from clients.engines.native.kernel import INT, MACROS, POINTER, SHARED_FIELDS, Form, Kernel, at
from clients.training.local import Batches

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}
"""How far the self-check's parameters, which are about 1, may be from torch's after two steps."""


class _Job(ctypes.Structure):
    """`Job` of conv.c: the same fields in the same order."""

    _fields_ = (
        ("convolutions", INT), ("shapes", POINTER), ("channels", INT), ("height", INT), ("width", INT),
        ("channels_last", INT), ("mean", INT), ("layers", INT), ("widths", POINTER), ("activations", POINTER),
        ("has_bias", POINTER), *SHARED_FIELDS,
    )  # fmt: skip


@dataclass(frozen=True)
class ConvKernel(Kernel):
    """Trains convolutional networks of one form."""

    form: ConvForm

    def _form(self) -> Form:
        inputs, widths = self.form.shape, self.form.widths
        params = sum(a * b for a, b in pairwise(widths))
        params += sum(n * b for n, b in zip(widths[1:], self.form.biases, strict=True))
        for channels, c in zip((inputs[0], *(c.filters for c in self.form.convolutions)), self.form.convolutions,
                               strict=False):  # fmt: skip
            params += c.filters * (channels * c.kernel_h * c.kernel_w + c.has_bias)
        words = f"{len(self.form.convolutions)} convolutions of {inputs} and layers of {widths}"
        return Form(words, prod(inputs), widths[-1], params)

    def _job(self, features: Tensor, width: int, shared: tuple[Any, ...]) -> Callable[[], int]:
        form = self.form
        shapes = np.array([astuple(c) for c in form.convolutions], np.int64)
        activations = [ACTIVATIONS[a] for a in form.activations]
        layers = [np.array(v, np.int64) for v in (form.widths, activations, form.biases)]
        job = _Job(
            len(shapes), at(shapes), *form.shape, form.channels_last, form.mean, len(form.activations),
            *map(at, layers), *shared,
        )  # fmt: skip

        def go_on() -> int:
            assert len(shapes), layers  # the job points to them
            return int(self.functions.fedscape_conv(ctypes.byref(job)))

        return go_on


def conv_library(dtype: torch.dtype) -> Library:
    """Return the compiled library for a type, checked on a small case; see `build.load`."""
    return load("conv.c", MACROS[dtype], _checks[dtype])


def _check(dtype: torch.dtype, functions: ctypes.CDLL) -> str:
    """Compare two steps of a small network with torch's; return what differs in words."""
    functions.fedscape_conv_job_bytes.restype = INT
    if functions.fedscape_conv_job_bytes() != ctypes.sizeof(_Job):
        return "the job has another size"
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 2 * 2, 3),
    ).to(dtype)  # fmt: skip
    form = ConvForm((2, 5, 4), False, (Convolution(3, 3, 3, 1, 1, 1, 2, 2, True, True),
                    Convolution(4, 3, 3, 1, 1, 1, 1, 1, True, True)), False, (16, 3), (None,), (True,))  # fmt: skip
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    features = torch.randn(5, 2, 5, 4, generator=generator, dtype=torch.float64).to(dtype)
    targets, rows = torch.tensor([0, 1, 1, 2, 1]), np.array([[[0, 1, 2], [3, 4, 4]]])
    batches = Batches(rows, np.array([[3, 2]]), np.array([2]))
    start = torch.cat([p.detach().flatten() for p in module.parameters()])
    found = ConvKernel(functions, False, dtype, form).train(features, targets, batches, start, lr=0.5).params[0]
    with torch.enable_grad():
        for chosen in (rows[0, 0], rows[0, 1, :2]):
            loss = nn.functional.cross_entropy(module(features[chosen]), targets[chosen])
            params = list(module.parameters())
            steps = torch.autograd.grad(loss, params)
            with torch.no_grad():
                for p, g in zip(params, steps, strict=True):
                    p.sub_(g, alpha=0.5)
    wanted = torch.cat([p.detach().flatten() for p in module.parameters()])
    off = float((found - wanted).abs().max())
    return "" if off <= _TOLERANCE[dtype] else f"its parameters are off by {off:.1g} after two steps"


_checks = {dtype: partial(_check, dtype) for dtype in MACROS}
"""One object for each type, so that a library is looked up once."""
