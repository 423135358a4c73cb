"""Directions of Newton's method and of L-BFGS, for a stack of clients at once.

Everything is a function of flat vectors [k, P], one row a client, so that the plain engine (k = 1) and the stacked
engine run the same steps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def newton_directions(hessians: Tensor, gradients: Tensor) -> Tensor:
    """Return -H^-1 g of each client, [k, P].

    Where H is not positive definite to rounding, the pseudo-inverse over its positive eigenvalues replaces the inverse:
    a direction without curvature, such as a pixel that is always 0, is left as it is.

    Args:
        hessians: H, symmetric, [k, P, P].
        gradients: g [k, P].

    Example:
        >>> newton_directions(torch.tensor([[[2.0, 0.0], [0.0, 4.0]]]), torch.ones(1, 2))
        tensor([[-0.5000, -0.2500]])
    """
    size = hessians.shape[-1]
    factors, info = torch.linalg.cholesky_ex(hessians)
    pivots = factors.diagonal(dim1=1, dim2=2)
    tolerance = size * torch.finfo(hessians.dtype).eps
    singular = (info != 0) | (pivots.amin(1).square() <= tolerance * pivots.amax(1).square())
    found: Tensor = -torch.cholesky_solve(gradients.unsqueeze(2), factors).squeeze(2)
    for k in torch.nonzero(singular).flatten().tolist():
        found[k] = _pseudo_solved(hessians[k], -gradients[k], tolerance)
    return found


def _pseudo_solved(hessian: Tensor, right: Tensor, tolerance: float) -> Tensor:
    """Return H^+ r over the positive eigenvalues of H; nan where H is not finite, as a diverged model's is."""
    if not bool(torch.isfinite(hessian).all()):
        return torch.full_like(right, torch.nan)
    values, vectors = torch.linalg.eigh(hessian)
    kept = values > tolerance * values.abs().amax()
    inverse = torch.where(kept, values, 1.0).reciprocal() * kept
    solved: Tensor = vectors @ (inverse * (vectors.T @ right))
    return solved


class SecantPairs:
    """The last pairs s = w+ - w, y = g+ - g of L-BFGS of each client, and the two-loop recursion over them.

    Source: Nocedal and Wright 2006, algorithms 7.4 and 7.5, with the initial matrix (s'y / y'y) I of equation 7.20. A
    pair without positive curvature is left out, which keeps the matrix positive definite.

    Args:
        clients: K.
        history: pairs that are kept.
        like: a vector [P] with the type and the device of the parameters.
    """

    def __init__(self, clients: int, history: int, like: Tensor) -> None:
        self._s = like.new_zeros(history, clients, like.numel())
        self._y = torch.zeros_like(self._s)
        self._inverse = like.new_zeros(history, clients)  # 1 / s'y; 0 where there is no pair
        self._scale = like.new_ones(clients)
        self._before: tuple[Tensor, Tensor] | None = None

    def add(self, params: Tensor, gradients: Tensor) -> None:
        """Note where the first k clients are and their gradients there, [k, P] each; the step before gives a pair."""
        before, self._before = self._before, (params.clone(), gradients.clone())
        if before is None:
            return
        k = len(params)
        s, y = params - before[0][:k], gradients - before[1][:k]
        curvature, square = (s * y).sum(1), y.square().sum(1)
        least = torch.finfo(s.dtype).eps * s.square().sum(1).sqrt() * square.sqrt()
        kept = curvature > least
        safe = torch.where(kept, curvature, 1.0)
        for table, new in ((self._s, s), (self._y, y), (self._inverse, safe.reciprocal())):
            moved = torch.cat((table[1:, :k], new[None]))
            table[:, :k] = torch.where(kept.view(1, k, *[1] * (new.dim() - 1)), moved, table[:, :k])
        self._scale[:k] = torch.where(kept, safe / torch.where(kept, square, 1.0), self._scale[:k])

    def directions(self, gradients: Tensor) -> Tensor:
        """Return -H g of the first k clients, with the inverse Hessians H that their pairs give, [k, P]."""
        k = len(gradients)
        q, shares = gradients.clone(), []
        for s, y, inverse in zip(self._s.flip(0), self._y.flip(0), self._inverse.flip(0), strict=True):
            share = inverse[:k] * (s[:k] * q).sum(1)
            shares.append(share)
            q -= share[:, None] * y[:k]
        q *= self._scale[:k, None]
        for s, y, inverse, share in zip(self._s, self._y, self._inverse, reversed(shares), strict=True):
            q += (share - inverse[:k] * (y[:k] * q).sum(1))[:, None] * s[:k]
        return -q

    def first_lengths(self, gradients: Tensor) -> Tensor:
        """Return min(1, 1 / |g|_1) for clients without a pair, whose matrix has no scale yet, and 1 for others, [k].

        torch.optim.LBFGS begins so, too.
        """
        bare = ~(self._inverse[:, : len(gradients)] != 0).any(0)
        return torch.where(bare, gradients.abs().sum(1).reciprocal().clamp_max(1.0), 1.0)
