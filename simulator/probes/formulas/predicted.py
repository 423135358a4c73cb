"""What theory predicts of FedAvg on quadratics with one Hessian, along an eigenvector of it with eigenvalue h.

A client's tau steps of SGD multiply its distance to its own minimiser by a = (1 - lr h)^tau. The server's step s makes
that of the mean model 1 - s (1 - a) a round. So
- steps are stable where lr < 2 / L, and the mean model contracts by max |1 - s (1 - a)| over the eigenvalues;
- gradient noise of variance sigma^2 a step, with coefficients c_k, adds s^2 lr^2 sigma^2 (1 - a^2) / (1 - (1 - lr h)^2)
  sum E c_k^2 a round, whose stationary loss is h / 2 x that / (1 - (1 - s (1 - a))^2): lr sigma^2 / (2 m (2 - lr h))
  for s = 1 and m equal clients, whatever tau;
- cohorts add s^2 ((1 - a) / h)^2 Var(sum c_k grad F_k) a round, and the loss follows likewise.
How sigma^2 and the gradients' variance lie along the eigenvectors is not known, so floors are given as the least and
the most over h from mu to L. Sources: Li et al. 2020 (ICLR) and Wang et al. 2021 (Field Guide, section 3) for the
recursions; the closed forms follow from them for quadratics (docs/drift-by-cause.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64

GRID = 129


@dataclass(frozen=True)
class Work:
    """A round's work, as the formulas read it.

    Attributes:
        lr: the local learning rate.
        steps: local steps tau of each client.
        server_lr: the factor s of the aggregate in the server's step.
    """

    lr: float
    steps: int
    server_lr: float = 1.0


@dataclass(frozen=True)
class Range:
    """A number that is known to lie between two.

    Attributes:
        low: the least, such as over the eigenvalues.
        high: the most.
    """

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        """Return the sum of two independent parts."""
        return Range(self.low + other.low, self.high + other.high)


def largest_stable(largest: float) -> float:
    """Return 2 / L, the least local learning rate at which a step along the steepest direction no longer descends."""
    return 2.0 / largest


def contraction(work: Work, smallest: float, largest: float) -> float:
    """Return the factor by which the distance of the mean model to its limit shrinks a round; above 1 it grows.

    Example:
        >>> round(contraction(Work(0.1, 2), 1.0, 4.0), 12)
        0.81
    """
    return factors(work, smallest, largest).high


def factors(work: Work, smallest: float, largest: float) -> Range:
    """Return the least and the largest factor of a round over the eigenvalues in [mu, L].

    |1 - s (1 - (1 - lr h)^tau)| has its extremes at an end, at lr h = 1, or where it is 0.

    Example:
        >>> found = factors(Work(0.1, 2), 1.0, 4.0)
        >>> round(found.low, 12), round(found.high, 12)
        (0.36, 0.81)
    """
    places = [smallest, *([1.0 / work.lr] if smallest < 1.0 / work.lr < largest else []), largest]
    found = _factor(work, np.array(places))
    crosses = bool((found[:-1] * found[1:] <= 0).any())
    return Range(0.0 if crosses else float(np.abs(found).min()), float(np.abs(found).max()))


def noise_floor(work: Work, noise: float, smallest: float, largest: float) -> Range:
    """Return the floor of gradient noise.

    Args:
        work: the round's work.
        noise: sum E[c_k^2] sigma_k^2: of the mean gradient of a cohort's step.
        smallest: mu > 0.
        largest: L < 2 / lr.

    Example:
        >>> floor = noise_floor(Work(0.1, 5), 3.0, 2.0, 2.0)
        >>> round(floor.low, 12) == round(0.1 * 3.0 / (2 * (2 - 0.1 * 2.0)), 12)
        True
    """
    h = _grid(smallest, largest)
    a = _local(work, h)
    added = work.lr**2 * (1 - a**2) / (1 - (1 - work.lr * h) ** 2)
    return _stationary(work, h, added * noise)


def sampling_floor(work: Work, sampled: float, smallest: float, largest: float) -> Range:
    """Return the floor of client sampling; `sampled` is the variance of sum c_k grad F_k over cohorts."""
    h = _grid(smallest, largest)
    return _stationary(work, h, ((1 - _local(work, h)) / h) ** 2 * sampled)


def _stationary(work: Work, h: F64, added: F64) -> Range:
    loss = 0.5 * h * work.server_lr**2 * added / (1 - _factor(work, h) ** 2)
    return Range(float(loss.min()), float(loss.max()))


def _local(work: Work, h: F64) -> F64:
    found: F64 = (1 - work.lr * h) ** work.steps
    return found


def _factor(work: Work, h: F64) -> F64:
    found: F64 = 1 - work.server_lr * (1 - _local(work, h))
    return found


def _grid(smallest: float, largest: float) -> F64:
    assert 0 < smallest <= largest, "the Hessian is positive definite"
    return np.geomspace(smallest, largest, GRID) if smallest < largest else np.array([smallest])
