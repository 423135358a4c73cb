"""What a condition is judged by, read once from the lines of a record and the scenario's criteria."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from server.convergence.criteria_options import PlateauOptions, TargetOptions
from server.convergence.facts import FACTS, METRICS, NO_AGGREGATE, facts_of
from server.convergence.findings import LEARNT_ON
from server.convergence.monitor import ConvergenceOptions
from server.convergence.targets import TargetTracker
from server.verdicts.course import Course, course_of
from server.verdicts.thresholds import FEWEST, SMALLEST

Line = Mapping[str, Any]


SCORES = ("validation_accuracy", "validation_balanced_accuracy")
"""Scores that may rise although the loss does not fall, where mistakes become more confident."""
_KEYS = ("round", NO_AGGREGATE, "concept_drift", *FACTS)
_WITH_LAYERS = 500
"""Lines of which the norms of layers are kept, at most about."""


def read(lines: Sequence[Line]) -> list[Line]:
    """Return lines with what conditions and signs look at alone: a run's lines lie packed, and are unpacked once."""
    every = max(1, len(lines) // _WITH_LAYERS)
    keys = (_KEYS, (*_KEYS, "by_layer"))
    return [
        {key: line[key] for key in keys[at % every == 0] if line.get(key) is not None} for at, line in enumerate(lines)
    ]


@dataclass(frozen=True)
class Reading:
    """A record as the conditions see it.

    Attributes:
        lines: the record.
        options: the scenario's criteria.
        diverged: whether the run was ended as diverged.
    """

    lines: Sequence[Line]
    options: ConvergenceOptions
    diverged: bool = False

    @cached_property
    def loss(self) -> Course:
        """The loss that the run is judged by: the first of `LEARNT_ON` that was measured often enough, or at all."""
        found = [course_of(self.lines, name) for name in LEARNT_ON]
        enough = next((one for one in found if len(one) >= FEWEST), None)
        return enough or next((one for one in found if len(one)), found[0])

    @cached_property
    def since_drift(self) -> Course:
        """The loss since the last concept drift began, where it was measured often enough since: drifts raise it."""
        at = int(np.searchsorted(self.loss.rounds, self.drifts[-1])) if self.drifts else 0
        return self.loss.since(at) if len(self.loss) - at >= 2 * FEWEST else self.loss

    @cached_property
    def train(self) -> Course:
        """The training loss."""
        return course_of(self.lines, "train_loss")

    def score(self, name: str) -> Course:
        """Return the course of a score, negative, so that lower is better."""
        return course_of(self.lines, name, sign=-1.0)

    @cached_property
    def steps(self) -> Course:
        """The lengths of the server's steps."""
        return course_of(self.lines, "step_norm")

    @cached_property
    def changes(self) -> Course:
        """The relative changes of the parameters."""
        return course_of(self.lines, "relative_change")

    @cached_property
    def last_round(self) -> int:
        """The last recorded round."""
        return int(self.lines[-1]["round"]) if self.lines else 0

    @cached_property
    def not_finite(self) -> int | None:
        """The first round in which a loss was no finite number; None without one."""
        for line in self.lines:
            measured = {} if line.get(NO_AGGREGATE) else line
            if any((value := measured.get(name)) is not None and not math.isfinite(value) for name in LEARNT_ON):
                return int(line["round"])
        return None

    @cached_property
    def smallest(self) -> float:
        """The smallest difference of the loss that matters: plateau.min_delta, or a share of what was gained."""
        plateau: PlateauOptions | None = self.options.plateau
        if plateau is not None and plateau.metric == self.loss.name:
            return max(plateau.min_delta, self.loss.rounding)
        return max(SMALLEST * self.loss.gained, self.loss.rounding)

    @cached_property
    def rests_by_criterion(self) -> bool:
        """Whether the loss falls by less than plateau.min_delta in plateau.patience rounds: too little for its user."""
        plateau: PlateauOptions | None = self.options.plateau
        if plateau is None or plateau.metric != self.loss.name:
            return False
        return -self.loss.motion.change * plateau.patience / len(self.loss.tail) < plateau.min_delta

    @cached_property
    def target(self) -> Target | None:
        """The scenario's target beside the metric's course; None without one that was measured."""
        target: TargetOptions | None = self.options.target
        if target is None:
            return None
        sign = -1.0 if METRICS[target.metric] else 1.0
        course = course_of(self.lines, target.metric, sign=sign)
        if not len(course):
            return None
        tracker = TargetTracker(target)
        for line in self.lines:
            tracker.observe(line["round"], facts_of(line).get(target.metric), seconds=0.0, sent=0.0)
        reached = tracker.reached.rounds if tracker.reached is not None else None
        return Target(target, course, sign * target.threshold, reached)

    @cached_property
    def drifts(self) -> list[int]:
        """The rounds in which a concept drift began, in order: its mean level left 0."""
        names = {name for line in self.lines for name in line.get("concept_drift") or {}}
        found = set()
        for name in names:
            before: float | None = None
            for line in self.lines:
                entry = (line.get("concept_drift") or {}).get(name)
                if entry is None:
                    continue
                level = float(entry.get("level") or 0.0)
                if before == 0.0 and level > 0.0:
                    found.add(int(line["round"]))
                before = level
        return sorted(found)


@dataclass(frozen=True)
class Target:
    """A target, in the sense in which lower is better.

    Attributes:
        options: as the scenario has it.
        course: the metric's course.
        threshold: the value to come down to.
        reached: the first round from which it was reached and held; None where it was not.
    """

    options: TargetOptions
    course: Course
    threshold: float
    reached: int | None

    @property
    def sign(self) -> float:
        """-1 for a metric that is better the higher it is."""
        return -1.0 if METRICS[self.options.metric] else 1.0

    @cached_property
    def missing(self) -> float:
        """How far the metric's level is from the target, 0 where it is met now or was reached and held."""
        if self.reached is not None:
            return 0.0
        return max(self.course.level - self.threshold, 0.0)

    @cached_property
    def is_missed(self) -> bool:
        """Whether the target was not reached, and the level misses it by more than a median's noise."""
        error = self.course.noise / math.sqrt(max(len(self.course.tail) // 4, 1))
        return self.reached is None and self.missing > max(error, self.course.rounding)


def level_before(course: Course, round_index: int) -> float:
    """Return the level just before a round: the median of up to five values."""
    values = course.values[course.rounds < round_index]
    return float(np.median(values[-5:]))
