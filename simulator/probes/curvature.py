"""Curvature of the objective at a state: the largest and the smallest eigenvalue of its Hessian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core import streams
from clients.core.arrays import F64
from simulator.probes.formulas.dissimilarity import RESAMPLES, Estimate
from simulator.probes.formulas.lanczos import Spectrum, lanczos
from simulator.probes.hessian import ObjectiveHessian

BASIS_BYTES = 1 << 28
"""The most bytes of Lanczos vectors."""


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues of the Hessian of the objective.

    Attributes:
        largest: L, the largest eigenvalue.
        smallest: mu, the smallest; an upper bound where Lanczos' method has not converged there.
        steepest_client: the largest v' H_k v of a client along the eigenvector v of L.
        values: Ritz values, increasing; all eigenvalues where there are as many as parameters.
        residuals: Lanczos' residuals of the smallest and the largest value.
        products: Hessian-vector products that were computed.
        is_whole: whether `values` are all eigenvalues.
        rounding: values up to this size are 0 within rounding.
        examples: the share of the clients' examples that were used; 1 for all.
    """

    largest: Estimate
    smallest: Estimate
    steepest_client: float
    values: tuple[float, ...]
    residuals: tuple[float, float]
    products: int
    is_whole: bool
    rounding: float
    examples: float = 1.0

    @property
    def is_negative(self) -> bool:
        """Whether negative curvature was seen: v' H v < 0 of a vector, so the objective is not convex there."""
        return self.smallest.value < -self.rounding

    @property
    def is_positive(self) -> bool:
        """Whether the smallest value is above 0 by more than rounding."""
        return self.smallest.value > self.rounding


def curvature_of(hessian: ObjectiveHessian, weights: F64, *, steps: int, seed: int) -> Curvature:
    """Measure the curvature.

    An uncertainty is the residual of Lanczos' method, within which an eigenvalue lies, together with the deviation of
    v' H v over bootstrap samples of the clients (first-order perturbation of the eigenvalue).

    Args:
        hessian: of the objective.
        weights: p_k of the sample (n,).
        steps: the most Hessian-vector products.
        seed: root seed.
    """
    size = len(hessian.point)
    steps = max(2, min(steps, BASIS_BYTES // (8 * size)))
    found = lanczos(hessian.product, size, steps=steps, seed=seed)
    clients = hessian.by_client(found.highest)
    largest = _estimate(found, -1, clients, weights, seed)
    smallest = _estimate(found, 0, hessian.by_client(found.lowest), weights, seed)
    ends = float(found.residuals[0]), float(found.residuals[-1])
    return Curvature(
        largest,
        smallest,
        float(clients.max()),
        tuple(found.values.tolist()),
        ends,
        hessian.products,
        found.is_whole,
        hessian.rounding * float(np.abs(found.values).max()),
        hessian.share,
    )


def _estimate(found: Spectrum, place: int, clients: F64, weights: F64, seed: int) -> Estimate:
    residual = float(found.residuals[place])
    drawn = _bootstrap(clients, weights, seed)
    return Estimate(
        float(found.values[place]), float(np.hypot(residual, drawn)), "Lanczos' residual, and bootstrap over clients"
    )


def _bootstrap(values: F64, weights: F64, seed: int) -> float:
    """Return the standard deviation of the weighted mean of the clients' values over bootstrap samples of clients."""
    n = len(values)
    key = streams.keys(seed, "probe/bootstrap", np.arange(RESAMPLES))
    drawn = np.floor(streams.uniforms(key, n) * n).astype(np.int64)
    mass = weights[drawn]
    means = (mass * values[drawn]).sum(1) / np.maximum(mass.sum(1), 1e-300)
    return float(means.std())
