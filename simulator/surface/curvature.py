"""The largest eigenvalues of a loss's Hessian, by Lanczos with products of the Hessian and a vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from clients.core import streams
from clients.core.arrays import F64
from clients.engines.many.examples import ExampleSet
from clients.modules.copies import copy_module
from clients.training.losses import trained_losses
from clients.training.optimizers import penalties
from simulator.surface.states import Model

TOLERANCE = 1e-4
"""An eigenvalue is found when its residual is below this share of the largest."""
MOST_PRODUCTS = 100
"""The most products of the Hessian and a vector for one state."""
LEFT = 1e-12
"""A Krylov space whose next vector is shorter than this share of the largest eigenvalue is invariant."""


@dataclass(frozen=True)
class Eigenvalues:
    """The largest eigenvalues of a symmetric operator.

    Attributes:
        values: float64 (k,), the largest first.
        errors: float64 (k,): an eigenvalue of the operator lies within this distance of each value.
        smallest: the smallest eigenvalue seen, an upper bound of the smallest one.
        products: how many products were taken.
    """

    values: F64
    errors: F64
    smallest: float
    products: int


def lanczos(product: Callable[[Tensor], Tensor], size: int, count: int, *, seed: int, most: int) -> Eigenvalues:
    """Return the largest eigenvalues of a symmetric operator (Lanczos 1950, with full reorthogonalisation).

    A value of multiplicity m > 1 may be found once: the vectors grow from one start.

    Args:
        product: v [size] float64 -> A v.
        size: of the operator.
        count: how many eigenvalues, at least 1.
        seed: of the start.
        most: the most products.

    Example:
        >>> found = lanczos(lambda v: torch.arange(1.0, 6.0, dtype=torch.float64) * v, 5, 2, seed=0, most=5)
        >>> found.values.round(9).tolist()
        [5.0, 4.0]
    """
    start = torch.from_numpy(streams.normals(streams.keys(seed, "start of Lanczos"), size))
    basis, alphas, betas = [start / start.norm()], [], []
    while True:
        bent = product(basis[-1]).double()
        alphas.append(float(bent @ basis[-1]))
        known = torch.stack(basis)
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            bent = bent - known.T @ (known @ bent)
        betas.append(float(bent.norm()))
        values, vectors = _tridiagonal(alphas, betas[:-1])
        errors = betas[-1] * vectors[-1].abs()
        scale = float(values.abs().max())
        found = min(count, len(values))
        done = len(values) >= count and bool((errors[-found:] <= TOLERANCE * scale).all())
        if done or betas[-1] <= LEFT * scale or len(alphas) >= min(most, size):
            break
        basis.append(bent / betas[-1])
    top = slice(len(values) - found, len(values))
    return Eigenvalues(
        values[top].flip(0).numpy(), errors[top].flip(0).numpy(), float(values[0]), len(alphas)
    )  # fmt: skip


def _tridiagonal(diagonal: list[float], beside: list[float]) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, increasing, and eigenvectors of a symmetric tridiagonal matrix."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix += torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


def top_eigenvalues(model: Model, examples: ExampleSet, count: int) -> Eigenvalues:
    """Return the largest eigenvalues of the Hessian of a loss at a model, in evaluation mode.

    The l2 penalty of the objective adds its constant; the l1 penalty has no curvature.

    Args:
        model: the model.
        examples: the examples of the loss.
        count: how many eigenvalues.
    """
    task = examples.task
    module = copy_module(task.module).eval().to(task.device)
    buffers = {n: b.to(task.device, task.dtype) for n, b in task.buffers.views(model.buffers).items()}
    params = model.params.to(task.device, task.dtype)
    ridge = penalties(task.local)[1] if examples.shares is not None else 0.0

    def product(v: Tensor) -> Tensor:
        total, along = torch.zeros_like(params), v.to(params)
        for chunk in examples:
            w = params.clone().requires_grad_()
            outputs = functional_call(module, {**task.parameters.views(w), **buffers}, (chunk.features,))
            gamma = task.local.focal_gamma if chunk.remedy is not None else 0.0
            losses = trained_losses(outputs, chunk.targets, task.population.task, gamma, chunk.remedy)
            loss = losses @ chunk.weights.to(losses)
            (slope,) = torch.autograd.grad(loss, w, create_graph=True)
            (bent,) = torch.autograd.grad(slope @ along, w, allow_unused=True) if slope.requires_grad else (None,)
            if bent is not None:
                total += bent
        return (total + ridge * along).cpu().double()

    with torch.enable_grad():
        return lanczos(product, params.numel(), count, seed=task.seed, most=MOST_PRODUCTS)
