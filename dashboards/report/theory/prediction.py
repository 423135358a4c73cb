"""The predicted course of a run from a probed round on, with its band.

The mean loss above the limit along an eigenvector with factor rho and stationary loss phi is, k rounds later,
g rho^2k + phi (1 - rho^2k) (simulator/probes/formulas/predicted.py). How g and phi lie along the eigenvectors is not
known, so the band has the least and the largest factor and floor, and holds every such course:

    g least^2k + low (1 - most^2k)   to   g most^2k + high (1 - least^2k).

The line has the predicted factor of the slowest direction, and the geometric middle of the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64


@dataclass(frozen=True)
class Prediction:
    """What theory predicts of a run from a probed round on.

    Attributes:
        round_index: the probed round.
        factor: of the distance to the limit, a round.
        least: the least factor of a direction.
        most: the largest.
        low: the least floor.
        high: the highest.
        gap: the objective above its minimum at the state, as far as the quadratic model tells, least and most; None
            where it does not.
    """

    round_index: int
    factor: float
    least: float
    most: float
    low: float
    high: float
    gap: tuple[float, float] | None

    @property
    def floor(self) -> float:
        """The geometric middle of the floor.

        Example:
            >>> Prediction(0, 0.5, 0.5, 0.5, 1.0, 4.0, None).floor
            2.0
        """
        return math.sqrt(self.low * self.high)

    def of_gap(self, gap: float, rounds: F64) -> tuple[F64, F64, F64]:
        """Return the predicted gap in rounds, its lower and its upper bound, from the gap in the probed round.

        Example:
            >>> found = Prediction(0, 0.5, 0.5, 0.5, 0.0, 0.0, None).of_gap(8.0, np.array([0.0, 1.0, 2.0]))
            >>> found[0].tolist()
            [8.0, 2.0, 0.5]
        """
        left = self._left(rounds)
        middle = gap * left[0] + self.floor * (1 - left[0])
        return middle, gap * left[1] + self.low * (1 - left[2]), gap * left[2] + self.high * (1 - left[1])

    def of_loss(self, loss: float, rounds: F64) -> tuple[F64, F64, F64] | None:
        """Return the same of the objective from its value in the probed round; None where the gap is not known."""
        if self.gap is None:
            return None
        low, high = self.gap
        middle = math.sqrt(low * high)
        return (
            loss - middle + self.of_gap(middle, rounds)[0],
            loss - high + self.of_gap(high, rounds)[1],
            loss - low + self.of_gap(low, rounds)[2],
        )

    def _left(self, rounds: F64) -> tuple[F64, F64, F64]:
        """Return the share of the gap that is left in rounds, by the factor, the least and the largest one."""
        passed = 2.0 * (rounds - self.round_index)
        line, least, most = (np.power(np.float64(base), passed) for base in (self.factor, self.least, self.most))
        return line, least, most
