"""Several comparisons at once, and the seeds that a difference needs: Holm's correction, the power of a t test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from clients.core.arrays import F64
from clients.core.errors import UserError
from dashboards.statistics.paired import checked_share

MOST_SEEDS = 1_000_000


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, by Holm's step-down method. NaN counts as no comparison.

    statsmodels' `multipletests` gives the same, but collects garbage at each call: a tenth of a second beside torch.

    Raises:
        UserError: a p that is not between 0 and 1.

    Example:
        >>> holm([0.01, 0.04, 0.03, float("nan")])
        [0.03, 0.06, 0.06, nan]
    """
    given = np.asarray(p_values, np.float64)
    if ((given < 0) | (given > 1)).any():
        raise UserError("p_values", f"must be between 0 and 1, got {list(p_values)}")
    known = np.isfinite(given)
    p = given[known]
    order = np.argsort(p)
    p[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    given[known] = p
    return [float(value) for value in given]


def seeds_needed(differences: F64, difference: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the number of pairs with which a paired t test finds a difference, from the spread of a pilot's pairs.

    Args:
        differences: [n] the pilot's differences, in the unit of `difference`; at least two.
        difference: the true mean difference to be found, of either sign; not 0.
        power: the share of studies that find it.
        alpha: the share of studies that find one where there is none.

    Returns:
        At least 2; None where more than a million would be needed.

    Raises:
        UserError: fewer than two differences, one that is not finite, a `difference` of 0, or a share out of range.
    """
    d = np.asarray(differences, np.float64)
    if d.ndim != 1 or len(d) < 2 or not np.isfinite(d).all():
        problem = f"must be at least two finite numbers, got {d.tolist() if d.size < 10 else d.shape}"
        raise UserError("differences", problem, fix="One pair says nothing of the spread.")
    return pairs_for(float(d.std(ddof=1)), difference, power, alpha)


def pairs_for(std: float, difference: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the same as `seeds_needed` from the standard deviation of the differences."""
    from statsmodels.stats.power import TTestPower

    if not (math.isfinite(difference) and difference):
        raise UserError("difference", f"must be a number other than 0, got {difference}")
    checked_share("power", power)
    checked_share("alpha", alpha)
    if not std or abs(difference) / std > 1e3:
        return 2
    effect, test = abs(difference) / std, TTestPower()

    def enough(n: int) -> bool:
        return float(test.power(effect, n, alpha, alternative="two-sided")) >= power

    high = 2
    while not enough(high):
        high *= 2
        if high > MOST_SEEDS:
            return None
    low = max(high // 2, 1)  # not enough, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(high, 2)
