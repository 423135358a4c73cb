"""The fold over a run's lines: running totals, agreement with the round before, criteria, divergence, rate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from clients.core.examples import Task
from clients.training.losses import agreement
from server.convergence.facts import NO_AGGREGATE, facts_of
from server.convergence.monitor import Assessment, ConvergenceMonitor
from server.convergence.outcome import RATE_EVERY, Trend
from server.convergence.verdict import Verdict
from server.record.jsonlines import Line

TOTALS = {"bytes_total": ("bytes_down", "bytes_up"), "simulated_seconds_total": ("simulated_seconds",)}
"""Running sums of the record, and the keys they add up."""


class Judge:
    """Adds to each line of the record what depends on the lines before it.

    Args:
        monitor: judges convergence and divergence.
        task: the kind of task, for agreement.
        trend: fits the rate into the record every few rounds; None leaves it out.
    """

    def __init__(self, monitor: ConvergenceMonitor, task: Task, trend: Trend | None = None) -> None:
        self._monitor, self._task, self._trend = monitor, task, trend
        self._totals: dict[str, float] = {"bytes_total": 0, "simulated_seconds_total": 0.0}
        self._predicted: Tensor | None = None

    def observe(self, line: Line, predicted: Tensor | None) -> Assessment:
        """Observe the line of a round, and add the derived values to it.

        Args:
            line: what was measured in the round.
            predicted: predictions on the probe examples; None without them.
        """
        for total, parts in TOTALS.items():
            self._totals[total] += sum(line.get(part, 0) for part in parts)
        line |= self._totals
        if predicted is not None and self._predicted is not None and not line.get(NO_AGGREGATE):
            line["agreement"] = agreement(self._predicted, predicted, self._task)
        self._predicted = predicted
        assessment = self._monitor.observe(line["round"], facts_of(line))
        line["criteria"] = {
            c.name: {"value": c.value, "threshold": c.threshold, "held": c.held_rounds, "needed": c.needed_rounds,
                     "holds": c.holds, "distance": c.distance, "first_held": c.first_held, "words": c.words}
            for c in assessment.criteria
        }  # fmt: skip
        if assessment.overfitting:
            line["overfitting"] = assessment.overfitting
        if self._trend is not None:
            self._trend.observe(line)
            if line["round"] and line["round"] % RATE_EVERY == 0:
                line |= self._trend.fit()
        return assessment

    @property
    def verdict(self) -> Verdict | None:
        """How the last observed round ended the run; None where the run goes on."""
        return self._monitor.last.verdict if self._monitor.last is not None else None

    def stopped(self, round_index: int, budget: int) -> Verdict:
        """Return the verdict of a run whose budget is spent."""
        return self._monitor.stopped(round_index, budget)

    def replay(self, lines: Sequence[Line], predicted: Tensor | None) -> None:
        """Observe recorded lines again when a run is resumed.

        Args:
            lines: the record up to a checkpoint, round 0 first.
            predicted: predictions of the checkpoint's model on the probe examples.
        """
        for line in lines:
            self._monitor.observe(line["round"], facts_of(line))
            if self._trend is not None:
                self._trend.observe(line)
        for total in self._totals:
            self._totals[total] = lines[-1][total]
        self._predicted = predicted
