"""The order of a study's runs: one of each arm first, then the longest expected; and the time that is left.

Two arms that share an engine do not begin together where another arm can begin: the second would wait for the choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from simulator.studies.arms import PlannedRun


@dataclass
class Queue:
    """The runs that are still to be played, and what is known of their lengths.

    Args:
        runs: in the study's order.

    Attributes:
        waiting: those that nobody plays now, by key.
        seconds: of the played runs, by arm and seed.
    """

    runs: Sequence[PlannedRun]
    waiting: dict[str, PlannedRun] = field(default_factory=dict)
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)
    _groups: set[str] = field(default_factory=set)
    _seed_factors: dict[int, float] | None = None

    def __post_init__(self) -> None:
        for run in self.runs:
            self.waiting.setdefault(run.key, run)

    def finished(self, run: PlannedRun, seconds: float) -> None:
        """Learn the length of a run."""
        self.waiting.pop(run.key, None)
        self._begin(run)
        if seconds == seconds and seconds > 0:
            self.seconds.setdefault(run.arm.name, {})[run.seed] = seconds
            self._seed_factors = None

    def expected(self, run: PlannedRun) -> float:
        """Return the expected seconds of a run: the mean of its arm, else that of all rounds so far, times its seed's.

        Runs with the same seed have the same data, so a seed that took long in other arms is expected to do so again.
        Before anything is known, the budget of rounds stands for seconds: only the order counts then.
        """
        if not self.seconds:
            return float(run.arm.scenario.run.rounds)
        factor = self._of_seeds().get(run.seed, 1.0)
        own = self.seconds.get(run.arm.name)
        if own:
            return factor * _mean(own.values())
        mean = _mean(run.arm.scenario.run.rounds for run in self.runs)
        known = _mean(value for values in self.seconds.values() for value in values.values())
        return factor * known * run.arm.scenario.run.rounds / mean

    def _of_seeds(self) -> dict[int, float]:
        """Return by seed the mean of how long its runs took, each as a share of its arm's mean."""
        if self._seed_factors is None:
            shares: dict[int, list[float]] = {}
            for own in self.seconds.values():
                mean = _mean(own.values())
                for seed, value in own.items():
                    shares.setdefault(seed, []).append(value / mean)
            self._seed_factors = {seed: _mean(found) for seed, found in shares.items()}
        return self._seed_factors

    def _begin(self, run: PlannedRun) -> None:
        if run.arm.name not in self._begun:
            self._begun.add(run.arm.name)
            self._groups.add(run.arm.engine_group)

    def take(self, allowed: Mapping[str, bool] | None = None) -> PlannedRun | None:
        """Take the next run: the first of an arm that has none yet, else the longest expected.

        Args:
            allowed: by key, the runs that may begin now; None for all.
        """
        may = [run for run in self.waiting.values() if allowed is None or allowed.get(run.key, False)]
        if not may:
            return None
        new = [run for run in may if run.arm.name not in self._begun]
        apart = [run for run in new if run.arm.engine_group not in self._groups]
        chosen = max(apart or new or may, key=self.expected)  # of equals the first, which has the smaller seed
        self._begin(chosen)
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


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
