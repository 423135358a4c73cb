"""Concept drift: clients' data change over rounds or the world's clock, and the record keeps the ground truth.

With z a fixed standardised projection of the inputs (for p(y): a fixed score of the label, or the standardised mean of
the values to forecast) and a in [0, strength] the progress of the drift for an example,

- p(x): the example is drawn anew from its client's own, with probability proportional to exp(3 a z(x)): inputs move,
  and p(y | x) stays exactly as it was (covariate shift by importance weights, Shimodaira 2000);
- p(y): likewise with weights exp(3 a z(y)): labels move, and p(x | y) stays (prior shift, Saerens et al. 2002);
- p(y|x): in the region z(x) >= its (1 - a) quantile every label becomes the next class, or a forecast its mirror image
  about the mean: inputs stay, the relation changes (real concept drift, Gama et al. 2014, section 2.1).

How it sets in (Gama et al. 2014, figure 2): `abrupt`, a jumps to strength; `gradual`, each example has switched with
a probability that rises to 1 within `duration`; `incremental`, a itself rises within `duration`, in hundredths;
`recurring`, on and off every `period`. Sizes never change; level 0 is bit-identical to no drift. Central and held-out
examples drift with their clients, since the model has to fit the present data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.core.options import (
    ClientChoice,
    KindOptions,
    check_clients,
    check_not_negative,
    check_positive,
    check_range,
    unread_of,
)


@dataclass(frozen=True, kw_only=True)
class DriftOptions(KindOptions):
    """One concept drift. Every kind in `clients.concept_drift.table.DRIFTS` has these options.

    Attributes:
        kind: how it comes.
        changes: what changes: "p(x)", "p(y)" or "p(y|x)".
        strength: the full amount of drift, 0 (none) to 1.
        unit: what `start`, `duration`, `period` and `stagger` count: "rounds", or "hours" of the world's clock.
        start: when it starts for the first client.
        duration: how long gradual and incremental drift take.
        period: how long recurring drift stays on, and then off.
        stagger: length of time after `start` over which clients start, evenly spread; 0 starts all at once.
        clients: share of the clients that drift, or their names.
        districts: districts of the clients that drift; empty for all.
    """

    kind: str = "abrupt"
    changes: Literal["p(x)", "p(y)", "p(y|x)"] = "p(y|x)"
    strength: float = 1.0
    unit: Literal["rounds", "hours"] = "rounds"
    start: float = 0.0
    duration: float = 20.0
    period: float = 20.0
    stagger: float = 0.0
    clients: ClientChoice = 1.0
    districts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "strength")
        check_clients(self)
        check_not_negative(self, "start", "stagger", words="a finite number >= 0")
        check_positive(self, "duration", "period", words="a finite number > 0")

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that another kind reads."""
        return unread_of(self.kind, {"duration": ("gradual", "incremental"), "period": ("recurring",)}, "kind")
