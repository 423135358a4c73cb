"""What the pairs of two arms say of one quantity: the numbers, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dashboards.statistics.censored import CensoredComparison
from dashboards.statistics.paired import Interval, PairedComparison
from dashboards.statistics.quantity import Quantity


@dataclass(frozen=True)
class Findings:
    """What the pairs of two arms say of one quantity. Differences are second minus first, ratios second over first.

    Attributes:
        quantity: what is compared.
        first: the first arm's name.
        second: the second arm's name.
        seeds: of the pairs in which both arms have a number or a bound.
        common: seeds that both arms have; the others of them have no number.
        first_absent: pairs in which the first arm has no number.
        second_absent: pairs in which the second has none.
        paired: the statistics of numbers; None where a run missed its target, and without pairs.
        censored: the statistics where a run missed its target.
        scale: `ratio` or `difference`: what `estimate` and `interval` are.
        estimate: the geometric mean ratio, the mean difference, or the difference of the restricted means; NaN without
            pairs.
        interval: Student's interval for it; None for one pair, and where all pairs are equal.
        test: the test that p is of.
        p: of that test; NaN without pairs.
        p_corrected: p corrected for the comparisons made together, by Holm; p itself where there is one.
        family: how many these are.
        confidence: of the interval; 1 minus it is the limit of p.
        stated: the difference for which `needed` is: a share of the first arm where the scale is a ratio.
        needed: pairs with which four of five studies find the stated difference; None where no spread is known.
    """

    quantity: Quantity
    first: str
    second: str
    seeds: tuple[int, ...]
    common: int
    first_absent: int
    second_absent: int
    paired: PairedComparison | None
    censored: CensoredComparison | None
    scale: Literal["ratio", "difference"]
    estimate: float
    interval: Interval | None
    test: str
    p: float
    p_corrected: float
    family: int
    confidence: float
    stated: float
    needed: int | None

    @property
    def pairs(self) -> int:
        """Pairs that are compared."""
        return len(self.seeds)

    @property
    def distinguishable(self) -> bool:
        """Whether the corrected p is at most 1 minus the confidence."""
        return self.p_corrected <= 1 - self.confidence + 1e-12

    @property
    def change(self) -> float:
        """The estimate as a change: 0 is no difference."""
        return self.estimate - (1.0 if self.scale == "ratio" else 0.0)

    @property
    def better(self) -> str | None:
        """The arm that is better, where they are distinguishable and a direction is better."""
        if not self.distinguishable or self.quantity.better is None or not self.change:
            return None
        return self.second if (self.change < 0) == (self.quantity.better == "lower") else self.first

    @property
    def wins(self) -> str:
        """The pairs that agree with the estimate's direction, such as `9 of 10`."""
        found = self.paired or self.censored
        if found is None:
            return "0 of 0"
        return f"{found.lower if self.change < 0 else found.higher if self.change > 0 else found.equal} of {found.n}"
