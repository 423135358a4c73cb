"""Noisy loss curves whose rate is known, and how often a fit's 90% interval holds it.

Three families, each at three distances of its end from its limit:

- SGD on a quadratic in d dimensions, its parameters played step by step: x_i <- rho_i x_i + noise;
- power laws 1 + b (r + c)^-p with white or correlated noise on top;
- falls in two phases, fast and then slow.

What the fit is set by is judged on curves with `tuning`; the table's have other random numbers.

`distance` says how far from its limit a curve ends: "far" at many times its noise, "midway" near it, "near" below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64
from clients.core.streams import generator

ROUNDS = (12, 30, 100, 300)
DISTANCES = ("far", "midway", "near")
_QUADRATIC_ENDS = {"far": (1e4, 1e2), "midway": (1e2, 1.0), "near": (10.0, 0.1)}
"""Expected distance of the loss to its limit at start and end, in units of that limit (the noise floor)."""
_NOISE = {"far": 0.003, "midway": 0.03, "near": 0.1}
"""Noise added to a curve, as a share of its whole fall."""


@dataclass(frozen=True)
class Curves:
    """Curves of one setting.

    Attributes:
        values: [seeds, rounds + 1].
        path: [rounds + 1], their expectation above the limit.
        limit: what they tend to.
        exponent: of a power law.
    """

    values: F64
    path: F64
    limit: float
    exponent: float | None = None

    @property
    def factor(self) -> float:
        """The one-round factor of the expected distance at the end."""
        return float(self.path[-1] / self.path[-2])


def quadratic(
    dimensions: int, spread: float, distance: str, rounds: int, seeds: int, *, tuning: bool = False
) -> Curves:
    """Return losses sum_i h_i x_i^2 / 2 of SGD.

    Curvatures lie evenly on a log scale between h and `spread` h. A coordinate has x <- (1 - eta h_i) x + eta z; eta h
    is such that the expected loss goes between the two ends of `distance` in `rounds` rounds. Each coordinate
    starts with an equal share of the loss.
    """
    start, end = _QUADRATIC_ENDS[distance]
    h = np.geomspace(1.0, spread, dimensions) if dimensions > 1 else np.ones(1)
    low, high = 1e-6, 1.0 / spread
    for _ in range(60):  # bisection for eta
        eta = 0.5 * (low + high)
        low, high = (low, eta) if np.mean((1.0 - eta * h) ** (2.0 * rounds)) < end / start else (eta, high)
    shrink = 1.0 - eta * h
    floors = 0.5 * eta / (2.0 - eta * h)  # of the loss of each coordinate: h/2 var(x), gradient noise of variance 1
    x = np.tile(np.sqrt(2.0 * (start + 1.0) * floors / h), (seeds, 1))
    random = generator(
        11 + 100 * tuning, "rate of quadratics", dimensions, int(spread), DISTANCES.index(distance), rounds
    )
    values = np.empty((seeds, rounds + 1))
    for r in range(rounds + 1):
        values[:, r] = 0.5 * (x * x) @ h
        x = shrink * x + eta * random.standard_normal(x.shape)
    path = ((start * floors) * shrink ** (2.0 * np.arange(rounds + 1.0)[:, None])).sum(axis=1)
    return Curves(values, path, float(floors.sum()))


def noise_of(echo: float, shape: tuple[int, int], random: np.random.Generator) -> F64:
    """Return stationary noise of variance 1 with the autocorrelation `echo` at lag 1, [seeds, rounds]."""
    e: F64 = random.standard_normal(shape)
    for r in range(1, shape[1]):
        e[:, r] = echo * e[:, r - 1] + np.sqrt(1.0 - echo * echo) * e[:, r]
    return e


def power(exponent: float, echo: float, distance: str, rounds: int, seeds: int, *, tuning: bool = False) -> Curves:
    """Return power laws 1 + (r + 1)^-p with noise of a share of their fall."""
    path = (1.0 + np.arange(rounds + 1.0)) ** -exponent
    random = generator(
        12 + 100 * tuning, "rate of power laws", int(10 * exponent), int(10 * echo), DISTANCES.index(distance), rounds
    )
    fall = path[0] - path[-1]
    noise = _NOISE[distance] * fall * noise_of(echo, (seeds, rounds + 1), random)
    return Curves(1.0 + path + noise, path, 1.0, exponent)


def two_phases(echo: float, distance: str, rounds: int, seeds: int, *, tuning: bool = False) -> Curves:
    """Return curves that fall fast for a third of the rounds, by 9/10, and slowly for the rest, by a tenth.

    The second phase goes down to a fifth of its height. The noise is a share of that phase's fall.
    """
    bend = rounds // 3
    r = np.arange(rounds + 1.0)
    slow = 0.2 ** (1.0 / (rounds - bend))
    path = np.where(r < bend, 1.0 + 9.0 * (0.01 ** (r / bend) - 0.01) / 0.99, slow ** np.maximum(r - bend, 0.0))
    random = generator(13 + 100 * tuning, "rate of two phases", int(10 * echo), DISTANCES.index(distance), rounds)
    noise = _NOISE[distance] * 0.8 * noise_of(echo, (seeds, rounds + 1), random)
    return Curves(1.0 + path + noise, path, 1.0)
