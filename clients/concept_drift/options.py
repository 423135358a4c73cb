"""Concept drift: what the clients' data say changes over the rounds, or over the world's clock, and the truth is kept.

With z a fixed standardised projection of the inputs (for p(y): a fixed score of the label, or the standardised mean of
the values to forecast) and a in [0, strength] how far the drift has come for an example,

- p(x): the example is drawn anew from its client's own, with probability proportional to exp(3 a z(x)): inputs move,
  and p(y | x) stays exactly what it was (covariate shift by importance weights, Shimodaira 2000);
- p(y): likewise with weights exp(3 a z(y)): labels move, and p(x | y) stays (prior shift, Saerens et al. 2002);
- p(y|x): in the region z(x) >= its (1 - a) quantile every label becomes the next class, or a forecast its mirror image
  about the mean: inputs stay, the relation changes (real concept drift, Gama et al. 2014, section 2.1).

How it comes (Gama et al. 2014, figure 2): `abrupt`, a jumps to strength; `gradual`, each example has changed over with
a probability that rises to 1 within `duration`; `incremental`, a itself rises within `duration`, in hundredths;
`recurring`, on and off every `period`. Sizes never change, and at level 0 every bit is as without. Central and held-out
examples drift with their clients, since what is asked of the model is the world as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from clients.core import streams
from clients.core.arrays import F64, I64
from clients.core.errors import require
from clients.core.options import STRICT

DRIFT_KINDS = ("abrupt", "gradual", "incremental", "recurring")


@dataclass(frozen=True, kw_only=True)
class DriftOptions:
    """One concept drift.

    Attributes:
        kind: how it comes.
        changes: what changes: "p(x)", "p(y)" or "p(y|x)".
        strength: how far it goes, 0 (nothing) to 1.
        unit: what `start`, `duration`, `period` and `stagger` count: "rounds", or "hours" of the world's clock.
        start: when it starts for the first client.
        duration: how long gradual and incremental drift take.
        period: how long recurring drift stays on, and then off.
        stagger: clients start at times spread evenly over so long after `start`; 0 starts all at once.
        clients: share of the clients that drift.
        districts: only clients there; empty for everywhere.
    """

    kind: Literal["abrupt", "gradual", "incremental", "recurring"] = "abrupt"
    changes: Literal["p(x)", "p(y)", "p(y|x)"] = "p(y|x)"
    strength: float = 1.0
    unit: Literal["rounds", "hours"] = "rounds"
    start: float = 0.0
    duration: float = 20.0
    period: float = 20.0
    stagger: float = 0.0
    clients: float = 1.0
    districts: tuple[str, ...] = ()
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        for name in ("strength", "clients"):
            require(0 <= getattr(self, name) <= 1, name, f"must be from 0 to 1, got {getattr(self, name)}")
        for name in ("start", "stagger"):
            ok = 0 <= getattr(self, name) < np.inf
            require(ok, name, f"must be a finite number >= 0, got {getattr(self, name)}")
        for name in ("duration", "period"):
            ok = 0 < getattr(self, name) < np.inf
            require(ok, name, f"must be a finite number > 0, got {getattr(self, name)}")


def drifting(name: str, options: DriftOptions, clients: I64, district: I64, among: I64, seed: int) -> F64:
    """Return when the drift starts for each client, inf for those it leaves alone, float64 (K,).

    Args:
        name: the drift's.
        options: of it.
        clients: (K,).
        district: of each client, (K,).
        among: districts it is for.
        seed: root seed.
    """
    draw = streams.uniforms(streams.keys(seed, f"concept drift/{name}", clients), 2)
    chosen = (draw[:, 0] < options.clients) & (options.strength > 0)
    if options.districts:
        chosen &= np.isin(district, among)
    return np.where(chosen, options.start + options.stagger * draw[:, 1], np.inf)


def level(options: DriftOptions, start: F64, now: F64 | float) -> F64:
    """Return how far the drift has come, 0 to 1, for starts and times that broadcast together.

    Example:
        >>> rising = DriftOptions(kind="incremental", duration=10)
        >>> level(rising, np.array([0.0, 5.0, np.inf]), 10.0).tolist()
        [1.0, 0.5, 0.0]
    """
    since = np.asarray(now, np.float64) - start
    if options.kind == "abrupt":
        return np.asarray(since >= 0, np.float64)
    if options.kind == "recurring":
        on = (since >= 0) & (np.floor(np.where(since >= 0, since, 0.0) / options.period) % 2 == 0)
        return np.asarray(on, np.float64)
    return np.asarray(np.clip(since / options.duration, 0.0, 1.0), np.float64)


def turns(options: DriftOptions, round_index: int) -> list[tuple[str, str]]:
    """Return what becomes of a drift in rounds as a round starts: kinds of events, and verbs.

    Example:
        >>> [turns(DriftOptions(kind="recurring", start=2, period=3), r) for r in (1, 2, 5)]
        [[], [('drift_started', 'starts')], [('drift_level', 'is off')]]
    """
    first = max(1, int(np.ceil(options.start)))
    told = [("drift_started", "starts")] if round_index == first else []
    if options.kind in ("gradual", "incremental"):
        last, verb = options.start + options.stagger + options.duration, "is complete"
    elif options.stagger:
        last, verb = options.start + options.stagger, "has reached every client it is for"
    else:
        last, verb = np.inf, ""
        if options.kind == "recurring" and round_index > first:
            before, now = level(options, np.array(options.start), np.array([round_index - 1.0, round_index]))
            told += [("drift_level", "is on again" if now else "is off")] if now != before else []
    if round_index == max(first, np.ceil(last)):
        told.append(("drift_level", verb))
    return told


def amount(options: DriftOptions, levels: F64, chance: F64) -> F64:
    """Return a of each example: `strength` times its level, or all of it for the share that has changed over.

    Args:
        options: of the drift.
        levels: (M,).
        chance: uniform, fixed for each example, (M,).
    """
    if options.kind == "gradual":
        return np.asarray(options.strength * (chance < levels), np.float64)
    return np.asarray(options.strength * levels, np.float64)
