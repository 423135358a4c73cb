"""Options of the learning-rate schedule over rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clients.core.errors import listed, require
from clients.core.numbers.bounds import Rounds
from clients.core.options import unread_of

SCHEDULE_READERS: dict[str, tuple[str, ...]] = {
    "factor": ("step",),
    "every": ("step",),
    "at": ("step",),
    "rounds": ("cosine",),
    "floor": ("cosine",),
    "decay": ("inverse_time",),
}
"""The schedules that read a key."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """How `local_lr` changes over rounds: the factor of `local_lr` in round r = 1, 2, 3, ...

    In the first W = `warmup_rounds` rounds it is r / (W + 1). After them, with t = r - W - 1, so that t is 0 and the
    factor is 1 in the first round after the warm-up:

    - constant: 1;
    - step: `factor`^floor(t / `every`); or `factor`^n, where n rounds of `at` lie before r;
    - cosine: `floor` + (1 - `floor`) (1 + cos(pi t / T)) / 2 with T = `rounds` - W - 1, and `floor` from round
      `rounds` on;
    - inverse_time: 1 / (1 + `decay` t).

    `every` and `decay` count from the end of the warm-up. `at` and `rounds` name rounds of the run.

    Attributes:
        kind: the schedule.
        warmup_rounds: rounds of linear increase at the start.
        factor: factor of each step, > 0.
        every: rounds between steps.
        at: rounds of the run after which a step follows, instead of `every`; they lie after the warm-up.
        rounds: round of the run in which the cosine reaches `floor`.
        floor: final value of the cosine, 0 to 1.
        decay: decay per round of inverse_time.
    """

    kind: Literal["constant", "step", "cosine", "inverse_time"] = "constant"
    warmup_rounds: Rounds = 0
    factor: float = 0.1
    every: Rounds | None = None
    at: tuple[Rounds, ...] = ()
    rounds: Rounds | None = None
    floor: float = 0.0
    decay: float = 0.01

    def __post_init__(self) -> None:
        warm = self.warmup_rounds
        require(warm >= 0, "schedule.warmup_rounds", f"must be >= 0, got {warm}")
        require(0 < self.factor < math.inf, "schedule.factor", f"must be > 0 and finite, got {self.factor}")
        require(0 <= self.floor <= 1, "schedule.floor", f"must be in [0, 1], got {self.floor}")
        require(0 <= self.decay < math.inf, "schedule.decay", f"must be >= 0 and finite, got {self.decay}")
        require(self.every is None or self.every >= 1, "schedule.every", f"must be >= 1, got {self.every}")
        early = f"must name rounds after the warm-up, > {warm}" if warm else "must name rounds, which count from 1"
        require(all(r > warm for r in self.at), "schedule.at", f"{early}, got {list(self.at)}")
        if self.kind == "step":
            either = (self.every is None) == bool(self.at)
            require(either, "schedule.every", "a step schedule needs either `every` or `at`")
        if self.kind == "cosine":
            least = f"must be at least {warm + 2}{' (warmup_rounds + 2)' if warm else ''} for a cosine schedule"
            require(
                self.rounds is not None and self.rounds >= warm + 2, "schedule.rounds", f"{least}, got {self.rounds}"
            )

    def scale(self, round_index: int) -> float:
        """Return the factor of `local_lr` in round `round_index` (from 1).

        Example:
            >>> [ScheduleOptions(kind="step", at=(2,), factor=0.5).scale(r) for r in (1, 2, 3)]
            [1.0, 1.0, 0.5]
        """
        warm = self.warmup_rounds
        if round_index <= warm:
            return round_index / (warm + 1)
        t = round_index - warm - 1
        if self.kind == "step":
            drops = t // self.every if self.every else sum(round_index > r for r in self.at)
            return self.factor**drops
        if self.kind == "cosine":
            assert self.rounds is not None
            done = min(1.0, t / (self.rounds - warm - 1))
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))
        return 1 / (1 + self.decay * t) if self.kind == "inverse_time" else 1.0

    def unread(self) -> dict[str, str]:
        """Return why a key has no effect, for each key that another kind of schedule reads."""
        return unread_of(self.kind, SCHEDULE_READERS, "schedule")

    def late(self, rounds: int) -> dict[str, str]:
        """Return why a key has less effect than it seems to have, by key, in a run of at most `rounds` rounds."""
        found: dict[str, str] = {}
        last = f"the last round is {rounds}"
        if self.warmup_rounds >= rounds:
            found["warmup_rounds"] = f"{last}, so local_lr never reaches its full value"
        if self.kind == "step" and self.every is not None and self.every + self.warmup_rounds >= rounds:
            found["every"] = f"{last}, so no step is taken"
        beyond = [r for r in self.at if r >= rounds]
        if self.kind == "step" and beyond:
            found["at"] = (
                f"{last}, so no step follows {'round' if len(beyond) == 1 else 'rounds'} {listed(map(str, beyond))}"
            )
        if self.kind == "cosine" and self.rounds is not None and self.rounds > rounds > self.warmup_rounds:
            found["rounds"] = f"{last}, where the factor is {self.scale(rounds):.3g} and not {self.floor:g}"
        return found
