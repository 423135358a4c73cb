"""Rounds, seconds and bytes to a target: when it was first reached *and held*."""

from __future__ import annotations

import math
from dataclasses import dataclass

from server.convergence.criteria_options import TargetOptions
from server.convergence.facts import METRICS


@dataclass(frozen=True)
class Reached:
    """The first round of the first streak that held (`rounds_to_target`), and the totals at its end.

    Attributes:
        rounds: the round's index (0: the initial model meets the target).
        seconds: simulated seconds up to then.
        bytes: bytes sent up to then, both ways.
    """

    rounds: int
    seconds: float
    bytes: float


@dataclass
class TargetTracker:
    """Follows one target through a run; a pure fold like the monitor.

    Example:
        >>> tracker = TargetTracker(TargetOptions(metric="validation_accuracy", at_least=0.9, hold=2))
        >>> for r, accuracy in enumerate([0.1, 0.91, 0.89, 0.92, 0.93]):
        ...     _ = tracker.observe(r, accuracy, seconds=10.0 * r, sent=100.0 * r)
        >>> tracker.reached
        Reached(rounds=3, seconds=30.0, bytes=300.0)
    """

    options: TargetOptions
    reached: Reached | None = None
    start: Reached | None = None
    held: int = 0

    def observe(self, round_index: int, value: float | None, *, seconds: float, sent: float) -> Reached | None:
        """Take in one round: the metric (None where not measured) and the totals at its end.

        Returns:
            `reached`: None until the target was held, and constant from then on.
        """
        if self.reached is not None or value is None:
            return self.reached
        threshold, up = self.options.threshold, METRICS[self.options.metric]
        if math.isfinite(value) and (value >= threshold if up else value <= threshold):
            self.start = self.start or Reached(round_index, seconds, sent)
            self.held += 1
        else:
            self.start, self.held = None, 0
        if self.held >= self.options.hold:
            self.reached = self.start
        return self.reached
