"""Options of objectives with several minima."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.options import DataOptions, check_at_least, check_not_negative, check_positive

DRAWING = 56
"""Bytes that each drawn number takes while it is drawn (`clients.core.streams.normals`)."""


@dataclass(frozen=True, kw_only=True)
class DoubleWellOptions(DataOptions):
    """A double well along the first coordinate and a bowl along the others: two minima, and a saddle between them.

    F_k(w) = `curvature` (w_1^2 - 1)^2 / 4 + `across` (w_2^2 + ... + w_d^2) / 2 + b_k w_1. Where the slopes b_k have the
    mean 0, the minima are at w_1 = -1 and 1, with a curvature of 2 x `curvature` along w_1, and at 0 is a saddle with
    -`curvature`. Any other mean makes one minimum the lower one. From 2 `curvature` / sqrt(27) = 0.385 `curvature` on
    the higher one is gone.

    Attributes:
        clients: how many.
        dimension: d.
        curvature: of the double well, > 0.
        across: curvature of the bowl, > 0.
        tilt: mean of the distribution of b_k.
        spread: its standard deviation: how much clients disagree.
        examples: of each client; they differ in nothing but noise.
        noise: standard deviation of each coordinate of an example's gradient about its client's. The examples' offsets
            of a client add up to 0. Needs several examples.
    """

    kind: Literal["double_well"] = "double_well"
    clients: int = 1
    dimension: int = 2
    curvature: float = 1.0
    across: float = 1.0
    tilt: float = 0.0
    spread: float = 0.0
    examples: int = 1
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "clients", "dimension", "examples", words="at least {:g}")
        check_positive(self, "curvature", "across")
        check_not_negative(self, "spread", "noise", words="a finite number >= 0")
        require(math.isfinite(self.tilt), "tilt", f"must be finite, got {self.tilt}")
        several = not self.noise or self.examples >= 2
        require(several, "noise", f"needs at least two examples a client, got {self.examples}", fix="Set examples = 2.")

    @property
    def foreseen_bytes(self) -> int:
        """Bytes that drawing the slopes takes."""
        return DRAWING * self.clients * self.examples * (self.dimension + 2)

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that the dimension leaves without one."""
        return {} if self.dimension > 1 else {"across": "there is no second coordinate"}
