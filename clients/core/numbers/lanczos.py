"""Eigenvalues of a symmetric operator by Lanczos' method with full reorthogonalisation.

Source: Golub and Van Loan 2013, sections 10.1 and 10.3. Each vector is made orthogonal to all before it, twice. Where
the Krylov space is invariant, the iteration goes on with a new vector, so that all eigenvalues of a small matrix are
found with their multiplicity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64

BROKEN = 1e-11
"""A remainder below this share of the largest coefficient so far is rounding: the space is invariant."""
EVERY = 4
"""Products between two looks at the residuals."""


@dataclass(frozen=True)
class Spectrum:
    """What Lanczos' method found.

    Attributes:
        values: Ritz values, increasing, (m,): estimates of eigenvalues, exact to rounding at both ends first.
        rests: the part of A y - value y of each Ritz vector y outside the Krylov space, with its sign, (m,).
        starts: the part of the start vector along each Ritz vector, (m,).
        lowest: the Ritz vector of the first value [P], of norm 1.
        highest: that of the last.
        size: P.
    """

    values: F64
    rests: F64
    starts: F64
    lowest: Tensor
    highest: Tensor
    size: int

    @property
    def residuals(self) -> F64:
        """|A y - value y| of each Ritz vector y, (m,): an eigenvalue lies within that distance of the value."""
        found: F64 = np.abs(self.rests)
        return found

    @property
    def is_whole(self) -> bool:
        """Whether there is a value for each dimension."""
        return len(self.values) == self.size

    def inverse_form(self, smallest: float) -> tuple[float, float]:
        """Return bounds of b' A^-1 b for the start vector b of norm 1 and a positive definite A.

        The lower one is that of the Galerkin solution x in the Krylov space, b' x; it misses r' A^-1 r with r = b - A x
        (Golub and Meurant 2010, chapter 4), which is at most |r|^2 over the smallest eigenvalue.

        Args:
            smallest: the smallest eigenvalue of A, or a positive number below it.

        Example:
            >>> found = lanczos(lambda v: torch.tensor([1.0, 4.0]).double() * v, 2, start=torch.ones(2).double())
            >>> [round(bound, 9) for bound in found.inverse_form(1.0)]
            [0.625, 0.625]
        """
        low = float((self.starts**2 / self.values).sum())
        missed = float((self.starts * self.rests / self.values).sum())
        return low, low + missed**2 / smallest


def lanczos(
    product: Callable[[Tensor], Tensor],
    size: int,
    *,
    steps: int = 40,
    ends: tuple[int, int] = (1, 1),
    tolerance: float = 1e-8,
    seed: int = 0,
    start: Tensor | None = None,
) -> Spectrum:
    """Find the eigenvalues at the ends of the spectrum of a symmetric matrix.

    Args:
        product: v [P] -> A v [P], float64.
        size: P.
        steps: the most products.
        ends: how many of the smallest and of the largest eigenvalues are wanted.
        tolerance: it stops where the residuals of those are below this share of the largest absolute value.
        seed: of the start vectors.
        start: the first start vector [P], of any norm above 0; a random one by default.

    Example:
        >>> found = lanczos(lambda v: torch.tensor([1.0, 1.0, 5.0]).double() * v, 3)
        >>> found.values.round(9).tolist(), found.is_whole
        ([1.0, 1.0, 5.0], True)
    """
    steps = min(steps, size)
    basis = torch.zeros(steps, size, dtype=torch.float64)
    diagonal, beside = np.zeros(steps), np.zeros(steps)
    vector, fresh = _fresh(basis[:0], size, seed, 0), 1
    if start is not None:
        vector = start.double() / torch.linalg.vector_norm(start.double())
    for j in range(steps):
        basis[j] = vector
        found = product(vector).double()
        diagonal[j] = float(vector @ found)
        rest = _orthogonal(found, basis[: j + 1])
        beside[j] = float(torch.linalg.vector_norm(rest))
        if j + 1 == size:
            beside[j] = 0.0
        if j + 1 == steps:
            break
        if beside[j] <= BROKEN * max(np.abs(diagonal[: j + 1]).max(), beside[:j].max(initial=0.0)):
            beside[j] = 0.0
            vector, fresh = _fresh(basis[: j + 1], size, seed, fresh), fresh + 1
            continue
        if (j + 1) % EVERY == 0 and _has_converged(diagonal[: j + 1], beside[: j + 1], ends, tolerance):
            steps = j + 1
            break
        vector = rest / beside[j]
    values, vectors = _ritz(diagonal[:steps], beside[:steps])
    both = torch.from_numpy(vectors[:, [0, -1]].T.copy()) @ basis[:steps]
    return Spectrum(values, beside[steps - 1] * vectors[-1], vectors[0], both[0], both[1], size)


def _ritz(diagonal: F64, beside: F64) -> tuple[F64, F64]:
    matrix = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    values, vectors = np.linalg.eigh(matrix)
    return values, vectors


def _has_converged(diagonal: F64, beside: F64, ends: tuple[int, int], tolerance: float) -> bool:
    low, high = ends
    if len(diagonal) < low + high:
        return False
    values, vectors = _ritz(diagonal, beside)
    residuals = beside[-1] * np.abs(vectors[-1])
    wanted = np.concatenate([residuals[:low], residuals[len(residuals) - high :]])
    return bool((wanted <= tolerance * np.abs(values).max()).all())


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """Return a vector without its parts along an orthonormal basis [j, P]; twice, which is enough (Parlett 1998)."""
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
    return vector


def _fresh(basis: Tensor, size: int, seed: int, number: int) -> Tensor:
    """Return a random vector of norm 1 that is orthogonal to a basis."""
    drawn = torch.from_numpy(streams.normals(streams.keys(seed, "probe/lanczos", number), size))
    rest = _orthogonal(drawn, basis)
    found: Tensor = rest / torch.linalg.vector_norm(rest)
    return found
