"""When a run has diverged: a number that is not finite, a loss far above its best, a gradient spike."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clients.core.errors import require
from clients.core.options import STRICT
from server.convergence.criteria_options import FACTS

LOSSES = ("train_loss", "validation_loss")
"""Losses that are watched, each where it is measured."""
_SPIKE_AFTER = 5
_LR = "the usual cause is a local_lr too high for this much local work: lower it, or do fewer local steps"
_CLIP = "the usual cause is exploding local gradients: clip them by norm, or lower local_lr"


@dataclass(frozen=True, kw_only=True)
class DivergenceOptions:
    """When to give a run up as diverged. A number that is not finite always ends it, at once.

    Attributes:
        loss_factor: a loss this many times its best so far, and above where it began, for `patience` measured rounds
            in a row; 0 never. Only for losses above 0.
        spike: a largest local gradient norm this many times its median so far, for `patience` measured rounds in a
            row, once five rounds are known; 0 never.
        patience: measured rounds in a row.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    loss_factor: float | None = 20.0
    spike: float | None = 1e3
    patience: int = 2

    def __post_init__(self) -> None:
        for name, factor in (("loss_factor", self.loss_factor), ("spike", self.spike)):
            if factor is None:  # a scenario file cannot say None, and what is written must be read the same
                object.__setattr__(self, name, 0.0)
            fits = not factor or 1.0 < factor < math.inf
            require(fits, name, f"must be above 1 and finite, or 0 for never, got {factor}")
        require(self.patience >= 1, "patience", f"must be at least 1, got {self.patience}")


@dataclass(frozen=True)
class Diverged:
    """What diverged: the fact's name, what happened as the end of a sentence, and the usual cause."""

    quantity: str
    reason: str
    hint: str


@dataclass
class Watch:
    """What divergence is judged from so far; a pure fold over the facts it observed.

    Attributes:
        first: each loss's first value.
        best: each loss's lowest value above 0.
        held: rounds in a row in which a quantity was too high.
        norms: largest gradient norms so far, sorted.
    """

    options: DivergenceOptions = field(default_factory=DivergenceOptions)
    first: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)

    def observe(self, facts: Mapping[str, float | None]) -> Diverged | None:
        """Take in one round's facts; say what diverged, or None. Facts that are missing or None teach nothing."""
        measured = {name: value for name in FACTS if (value := facts.get(name)) is not None}
        for name, value in measured.items():
            if not math.isfinite(value):
                return Diverged(name, f"{name} is {value}", _LR)
        found = [self._loss(name, measured[name]) for name in LOSSES if name in measured]
        if "largest_gradient_norm" in measured:
            found.append(self._spike(measured["largest_gradient_norm"]))
        return next((diverged for diverged in found if diverged is not None), None)

    def _loss(self, name: str, loss: float) -> Diverged | None:
        """Compare a loss with its best, which may be this one, and with where it began."""
        first = self.first.setdefault(name, loss)
        if loss > 0.0:
            self.best[name] = min(loss, self.best.get(name, loss))
        best, factor = self.best.get(name), self.options.loss_factor or 0.0
        high = factor > 0.0 and best is not None and loss > factor * best and loss > first
        if not self._patient(name, high):
            return None
        return Diverged(name, f"{name} rose to {loss:.4g}, {loss / (best or loss):.3g} times its best {best:.4g}", _LR)

    def _spike(self, norm: float) -> Diverged | None:
        """Compare the largest local gradient norm with the median of the rounds before."""
        known = len(self.norms)
        median = 0.5 * (self.norms[(known - 1) // 2] + self.norms[known // 2]) if known else 0.0
        spike = self.options.spike or 0.0
        high = spike > 0.0 and known >= _SPIKE_AFTER and norm > spike * median > 0.0
        insort(self.norms, norm)
        if not self._patient("largest_gradient_norm", high):
            return None
        return Diverged(
            "largest_gradient_norm",
            f"a local gradient has norm {norm:.4g}, {norm / median:.3g} times the median",
            _CLIP,
        )

    def _patient(self, name: str, high: bool) -> bool:
        """Count rounds in a row; True once there are as many as `patience`."""
        self.held[name] = self.held.get(name, 0) + 1 if high else 0
        return self.held[name] >= self.options.patience
