"""When a run has diverged: a number is not finite, a loss is far above its best, or a local gradient spikes."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field

from clients.core.bounds import Level, Rounds
from clients.core.errors import require
from server.convergence.facts import FACTS, label_of, shown

LOSSES = ("train_loss", "validation_loss")
"""Losses that are compared with their best, each where it is measured."""
_SPIKE_AFTER = 5
_LOWER_LR = (
    "The usual cause is a local_lr too high for this much local work. Lower local_lr, or take fewer local steps."
)
_CLIP = "The usual cause is exploding local gradients. Clip them by norm, or lower local_lr."


@dataclass(frozen=True, kw_only=True)
class DivergenceOptions:
    """When a run counts as diverged. A number that is not finite ends it at once, whatever these options are.

    Attributes:
        loss_factor: ends a run whose loss is more than this many times its best so far, and above its first value,
            for `patience` measured rounds in a row; 0 never. Losses at or below 0 are not compared.
        spike: ends a run whose largest local gradient norm is more than this many times its median so far, for
            `patience` measured rounds in a row, from the sixth round on; 0 never.
        patience: measured rounds in a row.
    """

    loss_factor: Level | None = 20.0
    spike: Level | None = 1e3
    patience: Rounds = 2

    def __post_init__(self) -> None:
        for name, factor in (("loss_factor", self.loss_factor), ("spike", self.spike)):
            if factor is None:  # a scenario file has no None, and reading what was written gives the same options
                object.__setattr__(self, name, 0.0)
            fits = not factor or 1.0 < factor < math.inf
            require(fits, name, f"must be above 1 and finite, or 0 for never, got {factor}")
        require(self.patience >= 1, "patience", f"must be at least 1, got {self.patience}")


@dataclass(frozen=True)
class Diverged:
    """What diverged.

    Attributes:
        quantity: the fact.
        value: its value.
        threshold: the limit it crossed; None where the value is not finite.
        reasons: how the value compares with its limit, one clause each.
        hint: the usual cause, and what helps.
    """

    quantity: str
    value: float
    threshold: float | None
    reasons: tuple[str, ...]
    hint: str


@dataclass
class DivergenceWatch:
    """What divergence is judged from; a pure fold over the facts it observed.

    Attributes:
        first: each loss's first value.
        best: each loss's lowest value above 0.
        held: measured rounds in a row in which a quantity was too high.
        norms: largest gradient norms so far, sorted.
    """

    options: DivergenceOptions = field(default_factory=DivergenceOptions)
    first: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)

    def observe(self, facts: Mapping[str, float | None]) -> Diverged | None:
        """Take in one round's facts, and return what diverged, or None. Missing facts change nothing."""
        measured = {name: value for name in FACTS if (value := facts.get(name)) is not None}
        for name, value in measured.items():
            if not math.isfinite(value):
                return Diverged(name, value, None, (f"{label_of(name)} is {value}, not a finite number",), _LOWER_LR)
        found = [self._loss(name, measured[name]) for name in LOSSES if name in measured]
        if "largest_gradient_norm" in measured:
            found.append(self._spike(measured["largest_gradient_norm"]))
        return next((diverged for diverged in found if diverged is not None), None)

    def _loss(self, name: str, loss: float) -> Diverged | None:
        """Compare a loss with its best, which may be this one, and with its first value."""
        first = self.first.setdefault(name, loss)
        if loss > 0.0:
            self.best[name] = min(loss, self.best.get(name, loss))
        best, factor = self.best.get(name), self.options.loss_factor or 0.0
        high = factor > 0.0 and best is not None and loss > factor * best and loss > first
        if not self._long_enough(name, high):
            return None
        assert best is not None
        reasons = (
            f"{label_of(name)} {shown(loss)} is {loss / best:.3g} times its best {shown(best)}",
            f"the limit is {factor:g} times, {self._patience()}",
        )
        return Diverged(name, loss, factor * best, reasons, _LOWER_LR)

    def _spike(self, norm: float) -> Diverged | None:
        """Compare the largest local gradient norm with the median of the rounds before."""
        known = len(self.norms)
        median = 0.5 * (self.norms[(known - 1) // 2] + self.norms[known // 2]) if known else 0.0
        spike, name = self.options.spike or 0.0, "largest_gradient_norm"
        high = spike > 0.0 and known >= _SPIKE_AFTER and norm > spike * median > 0.0
        insort(self.norms, norm)
        if not self._long_enough(name, high):
            return None
        reasons = (
            f"{label_of(name)} {shown(norm)} is {norm / median:.3g} times its median {shown(median)}",
            f"the limit is {spike:g} times, {self._patience()}",
        )
        return Diverged(name, norm, spike * median, reasons, _CLIP)

    def _patience(self) -> str:
        patience = self.options.patience
        return f"for {patience} measured rounds in a row" if patience > 1 else "in one measured round"

    def _long_enough(self, name: str, high: bool) -> bool:
        """Count rounds in a row; return whether there are as many as `patience`."""
        self.held[name] = self.held.get(name, 0) + 1 if high else 0
        return self.held[name] >= self.options.patience
