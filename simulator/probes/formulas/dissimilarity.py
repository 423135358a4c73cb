"""Noise within clients and dissimilarity between them, at one point, with standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.core import streams
from clients.core.arrays import F64, I64

RESAMPLES = 400
COLUMNS = 1 << 16


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: the number.
        error: its uncertainty, in the unit of the value; 0 where it is exact.
        how: what the uncertainty is.
    """

    value: float
    error: float
    how: str


@dataclass(frozen=True)
class Dissimilarity:
    """How the clients' gradients g_k differ at one point; p_k are their weights in the objective.

    At one point the bounds (G, B) of sum p_k |g_k|^2 <= G^2 + B^2 |grad f|^2 (Karimireddy et al. 2020, assumption A1)
    cannot be told apart, so each is given with the other at its least.

    Attributes:
        between: sum p_k |g_k - grad f|^2: G^2 where B = 1.
        ratio: sum p_k |g_k|^2 / |grad f|^2: B^2 where G = 0.
        gradient_square: |grad f|^2.
    """

    between: Estimate
    ratio: Estimate
    gradient_square: float


def gram_of(rows: Tensor) -> F64:
    """Return the inner products of rows [n, P], float64 (n, n)."""
    found = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], COLUMNS):
        part = rows[:, start : start + COLUMNS].double()
        found += (part @ part.T).numpy()
    return found


def dissimilarity(gradients: Tensor, weights: F64, *, seed: int) -> Dissimilarity:
    """Measure the dissimilarity of full gradients [n, P] with weights [n], normalised here.

    Uncertainties are standard deviations over `RESAMPLES` bootstrap samples of clients. They are about other clients of
    the same kind: of these clients the numbers are exact.
    """
    p = weights / weights.sum()
    reference = torch.from_numpy(p).to(gradients) @ gradients
    apart = gram_of(gradients - reference)
    along = np.concatenate(
        [np.zeros(0)] + [(gradients[k : k + 64].double() @ reference.double()).numpy() for k in range(0, len(p), 64)]
    )
    square = float(reference.double().square().sum())

    def measures(q: F64) -> tuple[float, float]:
        """Return both for other weights: around sum q_k g_k = reference + sum q_k apart_k."""
        within = float(q @ np.diag(apart))
        shift = float(q @ apart @ q)
        mean = square + 2.0 * float(q @ (along - square)) + shift
        between = max(0.0, within - shift)
        return between, (between + mean) / mean if mean > 0 else math.inf

    between, ratio = measures(p)
    drawn = [measures(q) for q in _resampled(p, seed)]
    how = "bootstrap over clients"
    errors = [float(np.std([one[i] for one in drawn if math.isfinite(one[i])] or [math.nan])) for i in range(2)]
    return Dissimilarity(Estimate(between, errors[0], how), Estimate(ratio, errors[1], how), square)


def within_clients(draws: Tensor, weights: F64) -> tuple[Estimate, F64]:
    """Return sum p_k sigma_k^2 and sigma_k^2 = E|g_k(batch) - E g_k(batch)|^2 of each client, from R draws [R, n, P].

    The uncertainty is the jackknife's over draws; it needs 3.
    """
    p, count = weights / weights.sum(), len(draws)
    assert count >= 3, "the jackknife needs at least 3 draws"
    each = _variances(draws)
    whole = float(p @ each)
    left = np.array([float(p @ _variances(torch.cat([draws[:r], draws[r + 1 :]]))) for r in range(count)])
    error = math.sqrt((count - 1) / count * float(((left - left.mean()) ** 2).sum()))
    return Estimate(whole, error, f"jackknife over {count} draws of batches"), each


def _variances(draws: Tensor) -> F64:
    total = np.zeros(draws.shape[1])
    for start in range(0, draws.shape[2], COLUMNS):
        part = draws[:, :, start : start + COLUMNS].double()
        total += (part - part.mean(0)).square().sum((0, 2)).numpy()
    found: F64 = total / (len(draws) - 1)
    return found


def _resampled(p: F64, seed: int) -> list[F64]:
    """Return weights of bootstrap samples of the clients, normalised; those whose weights are all 0 are left out."""
    counted = (np.bincount(row, minlength=len(p)) * p for row in bootstrap_samples(len(p), seed))
    return [q / q.sum() for q in counted if q.sum() > 0]


def bootstrap_samples(clients: int, seed: int) -> I64:
    """Return bootstrap samples of n clients, drawn with replacement, int64 (RESAMPLES, n)."""
    key = streams.keys(seed, "probe/bootstrap", np.arange(RESAMPLES))
    return np.floor(streams.uniforms(key, clients) * clients).astype(np.int64)
