"""Curvature of the objective at a state: the largest and the smallest eigenvalue of its Hessian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64, I64, Bool
from clients.core.numbers.lanczos import Spectrum, lanczos
from clients.engines.many.examples import ExampleSet
from clients.engines.many.hessian import LossHessian
from simulator.probes.formulas.dissimilarity import Estimate, bootstrap_samples
from simulator.probes.sample import Sample
from simulator.probes.standing import Standing

PRODUCTS, BASIS_BYTES = 40, 1 << 28
"""The most Hessian-vector products of one search, and the most bytes of its vectors."""
WORK, LEAST, MOST = 400_000_000, 256, 20_000
"""Examples x parameters of one product, and the fewest and the most examples: of more, each client's are thinned."""


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


def hessian_of(standing: Standing, sample: Sample) -> tuple[LossHessian, float]:
    """Return the Hessian of the sample's objective at a state, on the next round's data, and the share of examples.

    Of many examples each client's are thinned, evenly spaced; an example of client k then weighs p_k over those left.
    """
    session, state = standing.session, standing.state
    sizes = session.population.sizes[sample.clients].astype(np.int64)
    share = min(1.0, min(MOST, max(LEAST, WORK // len(state.params))) / max(1, int(sizes.sum())))
    shares = np.zeros(len(session.population.sizes))
    shares[sample.clients] = sample.weights
    weighed = sizes[sample.weights > 0]
    examples = ExampleSet(session.task, standing.next_round, shares, thinned(weighed, share), by_client=True)
    return LossHessian(examples, state.params, state.buffers), share


def thinned(sizes: I64, share: float) -> Bool:
    """Return which examples of clients, one after another, are kept: a share of each, evenly spaced, at least one.

    Example:
        >>> thinned(np.array([4, 1]), 0.5).tolist()
        [False, True, False, True, True]
    """
    place = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.floor((place + 1) * share) > np.floor(place * share)
    alone = np.repeat(np.floor(sizes * share) < 1, sizes) & (place == 0)
    found: Bool = kept | alone
    return found


def steps_of(size: int) -> int:
    """Return the most products for a model of so many parameters."""
    return max(2, min(PRODUCTS, BASIS_BYTES // (8 * size)))


def curvature_of(hessian: LossHessian, share: float, *, seed: int) -> Curvature:
    """Measure the curvature.

    An uncertainty is the residual of Lanczos' method, within which an eigenvalue lies, together with the deviation of
    v' H v over bootstrap samples of the clients (first-order perturbation of the eigenvalue).

    Args:
        hessian: of the objective of a sample of clients.
        share: the share of their examples that it has.
        seed: root seed.
    """
    assert hessian.examples.shares is not None, "the examples are clients'"
    weights = hessian.examples.shares[hessian.examples.clients]
    found = lanczos(hessian.product, hessian.size, steps=steps_of(hessian.size), seed=seed)
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
        share,
    )


def _estimate(found: Spectrum, place: int, clients: F64, weights: F64, seed: int) -> Estimate:
    residual = float(found.residuals[place])
    drawn = _bootstrap(clients, weights, seed)
    return Estimate(
        float(found.values[place]), float(np.hypot(residual, drawn)), "Lanczos' residual, and bootstrap over clients"
    )


def _bootstrap(values: F64, weights: F64, seed: int) -> float:
    """Return the standard deviation of the weighted mean of the clients' values over bootstrap samples of clients."""
    drawn = bootstrap_samples(len(values), seed)
    mass = weights[drawn]
    means = (mass * values[drawn]).sum(1) / np.maximum(mass.sum(1), 1e-300)
    return float(means.std())
