"""Options of the faults of packets between sensor and client: readings are lost, late, repeated or out of order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from clients.core.numbers.bounds import Within
from clients.core.options import check_not_negative, check_positive, check_range
from clients.faults.options import POSITIVE, Fill, SensorFaultOptions, SlottedFaultOptions


@dataclass(frozen=True, kw_only=True)
class MissingOptions(SensorFaultOptions):
    """Single readings are missing: each of each channel with probability severity x share.

    Attributes:
        share: share of the readings that are missing at severity 1.
        fill: the value that replaces them; see `Fill`.
    """

    kind: Literal["missing"] = "missing"
    share: float = 0.5
    fill: Fill = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 1, "share")


@dataclass(frozen=True, kw_only=True)
class MissingBurstsOptions(SlottedFaultOptions):
    """All channels of a client are missing for stretches.

    A burst lasts steps / (1 - severity x share) on average.

    Attributes:
        fill: the value that replaces them; see `Fill`.
    """

    kind: Literal["missing_bursts"] = "missing_bursts"
    fill: Fill = "last"


@dataclass(frozen=True, kw_only=True)
class ClockSkewOptions(SensorFaultOptions):
    """A client's clock is wrong: its readings are shifted by d = severity x part x steps steps.

    `part` is the client's own number, uniform from 1/2 to 1. The reading at step t becomes the one at t - d (late) or
    t + d (early). Between two steps it is interpolated linearly; beyond the ends of the span it is the reading at the
    end. Calendar channels and labels are not shifted.

    Attributes:
        steps: the largest skew at severity 1.
        direction: late readings are older than their time stamps, early ones newer; "either" depends on the client.
    """

    kind: Literal["clock_skew"] = "clock_skew"
    steps: float = 12.0
    direction: Literal["late", "early", "either"] = "late"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "steps", words=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class DuplicatedOptions(SlottedFaultOptions):
    """Packets are sent twice: the second copy takes the place of the next packet.

    A slot is a packet, of all channels; it is replaced by the packet before it. If that packet lies before the span,
    nothing is replaced.
    """

    kind: Literal["duplicated"] = "duplicated"
    steps: int = 4


@dataclass(frozen=True, kw_only=True)
class ReorderedOptions(SlottedFaultOptions):
    """Packets overtake one another: two neighbours are swapped with probability severity x share.

    Packets hold `steps` steps of all channels, and their pairs are fixed; a slot is a pair. A step whose counterpart
    lies outside the span stays in place.
    """

    kind: Literal["reordered"] = "reordered"
    steps: int = 4


@dataclass(frozen=True, kw_only=True)
class GatewayOutageOptions(SensorFaultOptions):
    """All affected clients of a district are missing at once.

    The world's hours are cut into slots of `hours`, with a phase for each district. With p = severity x share, a slot
    is out with probability 1 - (1 - p) ** (1 + storm_factor x storm); storm (0..1) is the world's at the slot's first
    hour. Data without a clock count steps as hours, and a run's header says so. Without a world there are no storms;
    without districts there is one.

    Attributes:
        hours: length of a slot.
        share: share of the hours that are out in fair weather at severity 1.
        storm_factor: how much likelier a storm makes outages.
        fill: the value that replaces them; see `Fill`.
    """

    kind: Literal["gateway_outage"] = "gateway_outage"
    hours: Annotated[float, Within(1 / 12, 1e18, why="the shortest step of readings is five minutes")] = 6.0
    share: float = 0.3
    storm_factor: float = 9.0
    fill: Fill = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "hours", words=POSITIVE)
        check_range(self, 0, 1, "share")
        check_not_negative(self, "storm_factor", words="a finite number >= 0")
