"""When a run has diverged: a number is not finite, a loss grows far above its start, or a local gradient spikes."""

from __future__ import annotations

import math
from array import array
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field

from clients.core.errors import require
from clients.core.numbers.bounds import Level, Rounds
from server.convergence.facts import FACTS, label_of, shown

_SPIKE_AFTER = 5
_STUCK = 5
"""A loss that stays above its limit without falling counts as diverged after this many times `patience`."""
_BACK = 10
"""Measured rounds in a row at or below its limit after which a loss has recovered, and highs count anew."""
_LOWER_LR = (
    "The usual cause is a local_lr too high for this much local work. Lower local_lr, or take fewer local steps."
)
_CLIP = "The usual cause is exploding local gradients. Clip them by norm, or lower local_lr."


@dataclass(frozen=True, kw_only=True)
class DivergenceOptions:
    """When a run counts as diverged. A number that is not finite ends it at once, whatever these options are.

    With `stop = "never"` the other two end no run: they are reported at its end.

    Attributes:
        loss_factor: ends a run whose loss rises to a new highest value in `patience` measured rounds, each above the
            limit, while the server's steps do not shrink; the limit is the loss at the start plus this many times its
            scale there. Or it stays above the limit for five times as long without falling. 0 never.
        spike: ends a run whose largest local gradient norm is more than this many times its median, so far and over
            the first five rounds, for `patience` measured rounds in a row, from the sixth round on; 0 never.
        patience: measured rounds.
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

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that other keys leave without one."""
        compares = self.loss_factor or self.spike
        return {} if compares else {"patience": "loss_factor and spike are 0, so nothing is compared"}


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
class LossCourse:
    """The course of one loss against the scale of its start.

    Attributes:
        first: its first value.
        lowest: its lowest value.
        unit: its first distance from `first` that is not 0; the scale of a loss that starts at 0.
        highest: its highest value since it was last recovered.
        low: its lowest value since the highest.
        highs: rounds in which it was at a new highest value above its limit, while the steps did not shrink.
        stuck: rounds above its limit without a new low, while the steps did not shrink.
        below: measured rounds in a row at or below its limit.
    """

    first: float
    lowest: float = math.inf
    unit: float = 0.0
    highest: float = -math.inf
    low: float = math.inf
    highs: int = 0
    stuck: int = 0
    below: int = 0

    @property
    def scale(self) -> float:
        """The scale of the start: the size of the first value, or the descent from it if that is larger."""
        return max(abs(self.first), self.first - self.lowest) or self.unit

    def limit(self, factor: float) -> float:
        """The value above which the loss is far above its start."""
        return self.first + factor * self.scale

    def observe(self, loss: float, factor: float, *, shrinks: bool) -> None:
        """Take in one value; `shrinks`: whether the server's step was shorter than the one before."""
        self.lowest = min(self.lowest, loss)
        self.unit = self.unit or abs(loss - self.first)
        rises, falls = loss > self.highest, loss < self.low
        if rises:
            self.highest = self.low = loss
        self.low = min(self.low, loss)
        if loss <= self.limit(factor):
            self.below, self.stuck = self.below + 1, 0
            if self.below >= _BACK:
                self.highest, self.highs = -math.inf, 0
            return
        self.below = 0
        self.highs += rises and not shrinks
        self.stuck = 0 if falls and not rises else self.stuck + (not shrinks)


@dataclass
class DivergenceWatch:
    """What divergence is judged from; a pure fold over the facts it observed.

    Attributes:
        losses: the course of each loss.
        held: measured rounds in a row in which the gradient norm was too high.
        norms: largest gradient norms so far, sorted; 8 bytes each.
        start: median of the first gradient norms.
        step: the last measured length of the server's step.
    """

    options: DivergenceOptions = field(default_factory=DivergenceOptions)
    losses: dict[str, LossCourse] = field(default_factory=dict)
    held: int = 0
    norms: array[float] = field(default_factory=lambda: array("d"))
    start: float = 0.0
    step: float | None = None

    def observe(self, facts: Mapping[str, float | None]) -> Diverged | None:
        """Take in one round's facts, and return what diverged, or None. Missing facts change nothing."""
        measured = {name: value for name in FACTS if (value := facts.get(name)) is not None}
        for name, value in measured.items():
            if not math.isfinite(value):
                return Diverged(name, value, None, (f"{label_of(name)} is {value}, not a finite number",), _LOWER_LR)
        step = measured.get("step_norm")
        shrinks = step is not None and self.step is not None and step < self.step
        self.step = self.step if step is None else step
        # The gap has a known least value, and so a scale; the clients' own objectives may be below 0 and pass it.
        names = ("optimality_gap",) if "optimality_gap" in measured else ("train_loss", "validation_loss")
        found = [self._loss(name, measured[name], shrinks=shrinks) for name in names if name in measured]
        if "largest_gradient_norm" in measured:
            found.append(self._spike(measured["largest_gradient_norm"]))
        return next((diverged for diverged in found if diverged is not None), None)

    def _loss(self, name: str, loss: float, *, shrinks: bool) -> Diverged | None:
        """Judge the growth of a loss over several rounds against the scale of its start."""
        course, factor = self.losses.setdefault(name, LossCourse(loss)), self.options.loss_factor or 0.0
        if not factor:
            return None
        course.observe(loss, factor, shrinks=shrinks)
        limit, patience = course.limit(factor), self.options.patience
        grows, stuck = course.highs >= patience, course.stuck >= _STUCK * patience
        if not (grows or stuck) or loss <= limit:
            return None
        how = f"at a new highest value in {_rounds(course.highs)}"
        if not grows:
            how = f"and did not fall in {_rounds(course.stuck)}"
        reasons = (
            f"{label_of(name)} {shown(loss)} is above its limit {shown(limit)}, {how}",
            f"the limit is {factor:g} times the scale of its start ({shown(course.scale)}) above its start "
            f"({shown(course.first)})",
        )
        return Diverged(name, loss, limit, reasons, _LOWER_LR)

    def _spike(self, norm: float) -> Diverged | None:
        """Compare the largest local gradient norm with its median in the rounds before, and at the start."""
        known = len(self.norms)
        median = 0.5 * (self.norms[(known - 1) // 2] + self.norms[known // 2]) if known else 0.0
        if known <= _SPIKE_AFTER:
            self.start = median
        # A run that converges takes the median towards 0: an ordinary gradient is then no spike.
        spike, name, usual = self.options.spike or 0.0, "largest_gradient_norm", max(median, self.start)
        high = spike > 0.0 and known >= _SPIKE_AFTER and norm > spike * usual > 0.0
        insort(self.norms, norm)
        self.held = self.held + 1 if high else 0
        if self.held < self.options.patience:
            return None
        reasons = (
            f"{label_of(name)} {shown(norm)} is {norm / usual:.3g} times its median {shown(usual)}",
            f"the limit is {spike:g} times, for {_rounds(self.options.patience)}"
            + (" in a row" if self.options.patience > 1 else ""),
        )
        return Diverged(name, norm, spike * usual, reasons, _CLIP)


def _rounds(count: int) -> str:
    return f"{count} measured round{'' if count == 1 else 's'}"
