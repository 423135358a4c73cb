"""Options of generated examples whose truth is known: points, customers, reviews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.options import HeldOutOptions, check_at_least, check_not_negative, check_range, unread_of

PATTERN_READERS: dict[str, tuple[str, ...]] = {"margin": ("separable",), "spread": ("xor", "rings")}
"""The patterns that read a key."""


@dataclass(frozen=True, kw_only=True)
class PointsOptions(HeldOutOptions):
    """Points in space with two classes, for what a plane can separate and what it cannot.

    Attributes:
        pattern: "separable": a plane through the origin separates the classes. "xor": four clouds around (1, 1) and
            (-1, -1), class 0, and (1, -1) and (-1, 1), class 1. "rings": a ring of radius 1, class 0, and one of radius
            2 around it. "random": each label is a fair coin (Cover 1965). Features beyond the second are noise in
            "xor" and "rings".
        examples: how many, of all parts.
        features: numbers an example.
        margin: of "separable": the least distance of a point from the plane. Points are normal, with a mean squared
            length of 1, and pushed away from the plane by this distance.
        spread: of "xor" and "rings": standard deviation of each feature around its cloud or ring.
    """

    kind: Literal["points"] = "points"
    pattern: Literal["separable", "xor", "rings", "random"] = "separable"
    examples: int = 500
    features: int = 2
    margin: float = 0.1
    spread: float = 0.2
    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    client_test_fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "examples", "features", words="at least {:g}")
        check_not_negative(self, "margin", "spread")
        plane = self.pattern in ("xor", "rings") and self.features < 2
        require(not plane, "features", f"must be at least 2 for {self.pattern!r}, got {self.features}")

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that the pattern leaves without one."""
        return unread_of(self.pattern, PATTERN_READERS, "pattern")


@dataclass(frozen=True, kw_only=True)
class ChurnOptions(HeldOutOptions):
    """Generated customers of a company's branches: who leaves. The error of the best classifier is known.

    Attributes:
        branches: each is a client, unless a partition deals customers out.
        customers: of a branch on average, of all parts.
        size_spread: standard deviation of the logarithm of a branch's size; 0 makes all alike.
        churn_rate: share of customers who leave, on average over branches.
        signal: standard deviation of the logit of the chance to leave within a branch: how well features tell who
            leaves.
        branches_differ: standard deviation of the branches' mean features, which also makes their churn rates differ.
    """

    kind: Literal["churn"] = "churn"
    branches: int = 20
    customers: int = 200
    size_spread: float = 0.5
    churn_rate: float = 0.2
    signal: float = 2.0
    branches_differ: float = 0.5
    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    client_test_fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "branches", "customers", words="at least {:g}")
        check_range(self, 0, 5, "size_spread")
        check_range(self, 0.001, 0.999, "churn_rate")
        check_range(self, 0, 10, "signal", "branches_differ")


@dataclass(frozen=True, kw_only=True)
class ReviewsOptions(HeldOutOptions):
    """Generated reviews of shops, as ids of words: positive or negative. Which word is negated decides.

    Attributes:
        shops: each is a client, unless a partition deals reviews out.
        reviews: of a shop on average, of all parts.
        size_spread: standard deviation of the logarithm of a shop's number of reviews.
        clauses: of a review, an odd number.
        negation: chance that a clause is negated, which turns a good word into a complaint.
        shops_differ: from 0 to 1: how much shops differ in their words and in the share of clauses that praise.
    """

    kind: Literal["reviews"] = "reviews"
    shops: int = 20
    reviews: int = 150
    size_spread: float = 0.5
    clauses: int = 3
    negation: float = 0.5
    shops_differ: float = 0.3
    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    client_test_fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "shops", "reviews", words="at least {:g}")
        check_range(self, 0, 5, "size_spread")
        check_range(self, 0, 1, "negation", "shops_differ")
        odd = self.clauses % 2 == 1 and 1 <= self.clauses <= 7
        require(odd, "clauses", f"must be an odd number from 1 to 7, got {self.clauses}")
