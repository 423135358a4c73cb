"""The expected squared error of a round's aggregate, split by cause.

U = sum_k c_k(S) X_k is the aggregated pseudo-gradient of a random cohort S, with X_k of random batches. I is the ideal:
the same local work along the constant gradient of the objective at the broadcast parameters (for SGD, local_lr x steps
x that gradient). Between them lie three mean updates, each with one more cause:

    I -> path: every client has the whole objective, full batches      (local steps)
      -> F = sum q_k x_k: every client its own data, full batches      (heterogeneity)
      -> M = sum q_k E X_k: mini-batches, all clients                  (gradient noise)
      -> E U = sum E[c_k] E X_k: cohorts                               (client sampling)

With b_1 ... b_4 the four differences, E|U - I|^2 = |b_1|^2 + |b_2|^2 + (noise variance + |b_3|^2) + (sampling variance
+ |b_4|^2) + 2 sum_{i<j} <b_i, b_j>. The last sum is the residual: causes that add to, or cancel, each other. Variances
follow from the law of total variance, with V_k the variance and m_k the mean of X_k:
E_S Var(U | S) = sum E[c_k^2] V_k, and Var_S E[U | S] = sum Cov(c_k, c_l) <m_k, m_l>.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from clients.core.arrays import F64
from simulator.probes.formulas.cohort_law import CohortLaw

CAUSES = ("local_steps", "heterogeneity", "gradient_noise", "client_sampling")
"""The causes, in the order in which they are switched on."""
COLUMNS = 1 << 16
"""Coordinates whose sums are taken in float64 at once."""
_NO_SUM = 1e-13


@dataclass(frozen=True)
class ShadowUpdates:
    """Updates of n clients from one state, pseudo-gradients (server minus client).

    Attributes:
        ideal: I [P].
        path: the mean update where every client has the whole objective [P].
        full_batch: x_k [n, P].
        draws: X_k with R draws of batches [R, n, P]; the full-batch updates once where nothing is random.
        is_complete: whether the draws are all outcomes, equally likely, and not a sample of them.
    """

    ideal: Tensor
    path: Tensor
    full_batch: Tensor
    draws: Tensor
    is_complete: bool = False

    def without(self, draw: int) -> ShadowUpdates:
        """Return the updates without one of the draws."""
        others = [r for r in range(len(self.draws)) if r != draw]
        return replace(self, draws=self.draws[others])


@dataclass(frozen=True)
class ErrorByCause:
    """The expected squared error of a round's aggregate.

    Attributes:
        causes: the part of each cause, by the names of `CAUSES`; a small negative number is an estimate of 0.
        residual: 2 sum_{i<j} <b_i, b_j>.
        ideal_square: |I|^2, to compare with.
        errors: standard errors by cause, of the residual and of the total; 0 where they are exact.
    """

    causes: dict[str, float]
    residual: float
    ideal_square: float
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """E|U - I|^2."""
        return sum(self.causes.values()) + self.residual


@dataclass
class _Sums:
    """Inner products over all coordinates, float64."""

    shifts: F64
    gram: F64
    along: F64
    reference: float
    scatter: F64
    ideal: float


def split_error(shadows: ShadowUpdates, law: CohortLaw, full: F64, *, correction: float = 1.0) -> ErrorByCause:
    """Split the expected squared error of a round by cause.

    Draws that are a sample bias squares upwards by their variance over R, which is subtracted.

    Args:
        shadows: the updates.
        law: the law of the coefficients c.
        full: q_k, the coefficients where all clients take part, (n,).
        correction: factor of the variance over cohorts; see `cohort_law.finite_correction`.
    """
    draws = len(shadows.draws)
    sums = _sums(shadows, law, full)
    lone = sums.scatter / (draws if shadows.is_complete else max(1, draws - 1))  # V_k
    noise = np.zeros_like(lone) if shadows.is_complete else lone / draws  # of the mean of the draws
    off = law.mean - full
    inner = sums.shifts.copy()
    inner[2, 2] -= float(full**2 @ noise)
    inner[3, 3] -= float(off**2 @ noise)
    inner[2, 3] -= float((full * off) @ noise)
    sampled = _quadratic(law, sums) - float(np.diag(law.covariance) @ noise)
    causes = dict(zip(CAUSES, np.diag(inner).tolist(), strict=True))
    causes["gradient_noise"] += float(np.diag(law.second) @ lone)
    causes["client_sampling"] += correction * sampled
    residual = 2.0 * float(inner[np.triu_indices(4, 1)].sum())
    return ErrorByCause(causes, residual, sums.ideal)


def with_errors(shadows: ShadowUpdates, law: CohortLaw, full: F64, *, correction: float = 1.0) -> ErrorByCause:
    """Return `split_error` with standard errors by the jackknife over draws (Efron and Stein 1981); at least 3 draws.

    They are of the draws alone: the clients and the cohorts' law count as known.
    """
    found = split_error(shadows, law, full, correction=correction)
    draws = len(shadows.draws)
    if shadows.is_complete:
        return replace(found, errors=dict.fromkeys((*CAUSES, "residual", "total"), 0.0))
    assert draws >= 3, "the jackknife needs at least 3 draws"
    left = [split_error(shadows.without(r), law, full, correction=correction) for r in range(draws)]
    errors = {name: _jackknife([one.causes[name] for one in left]) for name in CAUSES}
    errors["residual"] = _jackknife([one.residual for one in left])
    errors["total"] = _jackknife([one.total for one in left])
    return replace(found, errors=errors)


def mean_square_error(updates: Sequence[Tensor], ideal: Tensor) -> tuple[float, float]:
    """Return the mean of |U - I|^2 over some rounds' aggregates [P] and its standard error (nan of fewer than 2)."""
    squares = np.array([float((u.double() - ideal.double()).square().sum()) for u in updates])
    spread = float(squares.std(ddof=1)) / math.sqrt(len(squares)) if len(squares) > 1 else math.nan
    return float(squares.mean()), spread


def _jackknife(values: Sequence[float]) -> float:
    apart = np.asarray(values) - np.mean(values)
    return math.sqrt((len(values) - 1) / len(values) * float(apart @ apart))


def _sums(shadows: ShadowUpdates, law: CohortLaw, full: F64) -> _Sums:
    """Add up the inner products of the shifts b_i and of the clients' mean updates around their mean."""
    n, size = len(full), len(shadows.ideal)
    q, off = torch.from_numpy(full), torch.from_numpy(law.mean - full)
    share = q / q.sum()
    found = _Sums(np.zeros((4, 4)), np.zeros((n, n)), np.zeros(n), 0.0, np.zeros(n), 0.0)
    for start in range(0, size, COLUMNS):
        part = slice(start, start + COLUMNS)
        ideal, path = shadows.ideal[part].double(), shadows.path[part].double()
        x, draws = shadows.full_batch[:, part].double(), shadows.draws[:, :, part].double()
        mean = draws.mean(0)
        shifts = torch.stack([path - ideal, q @ x - path, q @ (mean - x), off @ mean])
        found.shifts += (shifts @ shifts.T).numpy()
        reference = share @ mean
        apart = mean - reference
        found.gram += (apart @ apart.T).numpy()
        found.along += (apart @ reference).numpy()
        found.reference += float(reference @ reference)
        found.scatter += (draws - mean).square().sum((0, 2)).numpy()
        found.ideal += float(ideal @ ideal)
    return found


def _quadratic(law: CohortLaw, sums: _Sums) -> float:
    """Return sum Cov(c_k, c_l) <m_k, m_l>, with m_k = reference + apart_k: exactly 0 where equal clients weigh 1."""
    covariance = law.covariance
    rows = covariance.sum(1)
    whole = float(rows.sum())
    if abs(whole) <= _NO_SUM * float(law.mean.sum()) ** 2:  # the coefficients of every cohort have the same sum
        whole = 0.0
    return float((covariance * sums.gram).sum() + 2.0 * (rows @ sums.along)) + whole * sums.reference
