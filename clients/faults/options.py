"""The base of the options of all faults: severity, clients, channels and schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from clients.core.errors import require
from clients.core.options import ClientChoice, KindOptions, check_at_least, check_clients, check_range

POSITIVE = "a finite number > 0"
Fill = Literal["last", "zero", "mean", "interpolate"]
"""The value that replaces a missing reading.

last: the channel's last reading, or the nominal mean before the first one (a span looks back no further than its own
first step); zero: 0 in the channel's unit; mean: the channel's nominal mean; interpolate: the straight line between the
nearest readings, the nearest one before the first and after the last, the nominal mean if there are none.
"""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a fault is active: from `start` up to, not including, `stop`.

    Attributes:
        unit: "rounds" of training, or "hours" of the world's clock.
        start: first round or hour.
        stop: first round or hour without the fault; None for never.
    """

    unit: Literal["rounds", "hours"] = "rounds"
    start: float = 0.0
    stop: float | None = None

    def __post_init__(self) -> None:
        require(0 <= self.start < math.inf, "start", f"must be a finite number >= 0, got {self.start}")
        later = self.stop is None or self.stop > self.start
        finite = self.stop is None or self.stop < math.inf
        require(
            finite, "stop", f"must be finite, got {self.stop}", fix="Leave it out: a fault without stop never ends."
        )
        require(later, "stop", f"must be later than start ({self.start}), got {self.stop}")

    def active(self, round_index: int) -> bool:
        """Return whether the fault is active in a round; a fault on the clock is active in every round, in its hours.

        Example:
            >>> [Schedule(start=2, stop=4).active(r) for r in range(5)]
            [False, False, True, True, False]
        """
        return self.unit == "hours" or (self.start <= round_index and (self.stop is None or round_index < self.stop))


@dataclass(frozen=True, kw_only=True)
class FaultOptions(KindOptions):
    """The options of every fault.

    Attributes:
        severity: 0 is bit-identical to no fault, 1 is the kind's full effect.
        clients: share of the clients it affects; a larger share affects the same clients and more. Or the names of the
            clients, such as ["Huairou", "Shunyi"].
        districts: names of the districts it is limited to; empty for all.
        schedule: when.
    """

    severity: float = 0.5
    clients: ClientChoice = 1.0
    districts: tuple[str, ...] = ()
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "severity")
        check_clients(self)


@dataclass(frozen=True, kw_only=True)
class SensorFaultOptions(FaultOptions):
    """The options of every fault of readings.

    Attributes:
        channels: names of the measured channels it changes; empty for all of them. It never changes other channels.
    """

    channels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SlottedFaultOptions(SensorFaultOptions):
    """The options of faults that act in slots of time.

    Time is cut into slots of `steps`, with a phase for each client. The fault affects each slot with probability
    severity x share.

    Attributes:
        steps: length of a slot.
        share: share of the slots that it affects at severity 1.
    """

    steps: int = 12
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "steps", words="at least {:g}")
        check_range(self, 0, 1, "share")


@dataclass(frozen=True, kw_only=True)
class LabelFaultOptions(FaultOptions):
    """The options of every fault of labels."""

    def check_classes(self, classes: int) -> None:
        """Refuse data whose number of classes does not fit; most faults fit any number.

        Raises:
            UserError: naming the key.
        """


Faults = Mapping[str, FaultOptions]
"""Faults by name, in the order in which they act."""
