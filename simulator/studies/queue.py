"""The order of a study's runs: one of each arm first, then the longest expected; and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simulator.studies.arms import PlannedRun


@dataclass
class Queue:
    """The runs that are still to be played, and what is known of their lengths.

    Args:
        runs: in the study's order.

    Attributes:
        waiting: those that nobody plays now, by key.
        seconds: of the played runs, by arm.
    """

    runs: Sequence[PlannedRun]
    waiting: dict[str, PlannedRun] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for run in self.runs:
            self.waiting.setdefault(run.key, run)

    def finished(self, run: PlannedRun, seconds: float) -> None:
        """Learn the length of a run."""
        self.waiting.pop(run.key, None)
        self._begun.add(run.arm.name)
        if seconds == seconds and seconds > 0:
            self.seconds.setdefault(run.arm.name, []).append(seconds)

    def expected(self, run: PlannedRun) -> float:
        """Return the expected seconds of a run: the mean of its arm, else that of all rounds so far.

        Before anything is known, the budget of rounds stands for seconds: only the order counts then.
        """
        own = self.seconds.get(run.arm.name)
        if own:
            return sum(own) / len(own)
        known = [value for values in self.seconds.values() for value in values]
        if not known:
            return float(run.arm.scenario.run.rounds)
        mean = sum(run.arm.scenario.run.rounds for run in self.runs) / len(self.runs)
        return sum(known) / len(known) * run.arm.scenario.run.rounds / mean

    def take(self, allowed: Mapping[str, bool] | None = None) -> PlannedRun | None:
        """Take the next run: the first of an arm that has none yet, else the longest expected.

        Args:
            allowed: by key, the runs that may begin now; None for all.
        """
        may = [run for run in self.waiting.values() if allowed is None or allowed.get(run.key, False)]
        if not may:
            return None
        new = [run for run in may if run.arm.name not in self._begun]
        chosen = max(new or may, key=self.expected)  # of equals the first, which has the smaller seed
        self._begun.add(chosen.arm.name)
        return self.waiting.pop(chosen.key)

    def put_back(self, run: PlannedRun) -> None:
        """Have a run wait again."""
        self.waiting[run.key] = run

    def left(self, playing: Mapping[str, tuple[PlannedRun, float]], processes: int) -> float | None:
        """Return the expected seconds until the end; None before the first run has ended.

        Args:
            playing: by key, the runs that are played, and the share of each that is done.
            processes: how many play.
        """
        if not self.seconds:
            return None
        rest = [self.expected(run) * (1 - min(share, 0.99)) for run, share in playing.values()]
        waiting = [self.expected(run) for run in self.waiting.values()]
        total, longest = sum(rest) + sum(waiting), max([*rest, *waiting], default=0.0)
        return max(total / max(processes, 1), longest)
