"""What the options of all faults share: how severe, which clients and channels, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from clients.core.errors import require
from clients.core.options import STRICT, KindOptions, check_at_least, check_range

POSITIVE = "a finite number > 0"
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
class FaultOptions(KindOptions):
    """What all faults share.

    Attributes:
        severity: 0 is bit-identical to no fault, 1 is what the kind says.
        clients: share of the clients it affects; a client that a share affects is affected by every larger share.
        districts: names of the districts it is kept to; empty for all.
        schedule: when.
    """

    severity: float = 0.5
    clients: float = 1.0
    districts: tuple[str, ...] = ()
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "severity", "clients")


@dataclass(frozen=True, kw_only=True)
class SensorFaultOptions(FaultOptions):
    """What faults of readings share.

    Attributes:
        channels: names of the measured channels it touches; empty for all of them. Others it never touches.
    """

    channels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SlottedFaultOptions(SensorFaultOptions):
    """What faults that come in slots of time share.

    Time is cut into slots of `steps`, by a phase of each client's own; the fault takes each slot with probability
    severity x share.

    Attributes:
        steps: length of a slot.
        share: share of the slots that it takes at severity 1.
    """

    steps: int = 12
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "steps", words="at least {:g}")
        check_range(self, 0, 1, "share")


@dataclass(frozen=True, kw_only=True)
class LabelFaultOptions(FaultOptions):
    """What faults of labels share."""

    def check_classes(self, classes: int) -> None:
        """Refuse data whose number of classes does not fit; most faults fit any.

        Raises:
            UserError: naming the key.
        """
