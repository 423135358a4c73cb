"""What every fault is told: how severe, whom, which channels, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from clients.core.errors import require
from clients.core.options import STRICT

Fill = Literal["last", "zero", "mean", "interpolate"]
"""What stands where a reading is missing.

last: the channel's last reading that came, the nominal mean before the first (a span looks back no further than its
own first step); zero: 0 in the channel's unit; mean: the channel's nominal mean; interpolate: the straight line between
the nearest readings that came, before the first and after the last the nearest one, the nominal mean where none came.
"""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a fault is there: from `start` up to, not including, `stop`.

    Attributes:
        unit: "rounds" of training, or "hours" of the world's clock.
        start: first round or hour.
        stop: first round or hour without the fault; None for never.
    """

    unit: Literal["rounds", "hours"] = "rounds"
    start: float = 0.0
    stop: float | None = None
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        require(0 <= self.start < math.inf, "start", f"must be a finite number >= 0, got {self.start}")
        later = self.stop is None or self.stop > self.start
        require(later, "stop", f"must be later than start ({self.start}), got {self.stop}")

    def active(self, round_index: int) -> bool:
        """Say whether the fault is there in a round; one on the clock is in every round, in its hours of the data.

        Example:
            >>> [Schedule(start=2, stop=4).active(r) for r in range(5)]
            [False, False, True, True, False]
        """
        return self.unit == "hours" or (self.start <= round_index and (self.stop is None or round_index < self.stop))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What all faults share: fields, no behaviour.

    Attributes:
        kind: which fault.
        severity: 0 is bit-identical to no fault, 1 is what the kind says.
        clients: share of the clients it affects; a client that a share affects is affected by every larger share.
        districts: names of the districts it is kept to; empty for all.
        schedule: when.
    """

    kind: str = ""
    severity: float = 0.5
    clients: float = 1.0
    districts: tuple[str, ...] = ()
    schedule: Schedule = field(default_factory=Schedule)
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        require_share(self.severity, "severity")
        require_share(self.clients, "clients")


@dataclass(frozen=True, kw_only=True)
class SensorFault(Fault):
    """What faults of readings share.

    Attributes:
        channels: names of the measured channels it touches; empty for all of them. Others it never touches.
    """

    channels: tuple[str, ...] = ()


def require_share(value: float, name: str) -> None:
    """Refuse what is not in [0, 1]."""
    require(0 <= value <= 1, name, f"must be from 0 to 1, got {value}")


def require_positive(value: float, name: str) -> None:
    """Refuse what is not finite and above 0."""
    require(0 < value < math.inf, name, f"must be a finite number > 0, got {value}")


def require_steps(value: int, name: str = "steps", least: int = 1) -> None:
    """Refuse fewer steps than `least`."""
    require(value >= least, name, f"must be at least {least}, got {value}")
