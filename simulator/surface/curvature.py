"""The largest eigenvalues of a loss's Hessian, by Lanczos with products of the Hessian and a vector."""

from __future__ import annotations

from dataclasses import dataclass

from clients.core.arrays import F64
from clients.core.numbers.lanczos import lanczos
from clients.engines.many.examples import ExampleSet
from clients.engines.many.hessian import LossHessian
from simulator.surface.states import Model

TOLERANCE = 1e-4
"""An eigenvalue is found when its residual is below this share of the largest."""
MOST_PRODUCTS = 100
"""The most products of the Hessian and a vector for one state."""


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


def top_eigenvalues(model: Model, examples: ExampleSet, count: int) -> Eigenvalues:
    """Return the largest eigenvalues of the Hessian of a loss at a model, in evaluation mode.

    The l2 penalty of the objective adds its constant; the l1 penalty has no curvature.

    Args:
        model: the model.
        examples: the examples of the loss.
        count: how many eigenvalues.
    """
    hessian = LossHessian(examples, model.params, model.buffers)
    found = lanczos(
        hessian.product,
        hessian.size,
        steps=MOST_PRODUCTS,
        ends=(0, count),
        tolerance=TOLERANCE,
        seed=examples.task.seed,
    )
    values, errors = found.values[::-1][:count].copy(), found.residuals[::-1][:count].copy()
    return Eigenvalues(values, errors, float(found.values[0]), hessian.products)
