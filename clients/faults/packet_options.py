"""Options of the faults on the way from a sensor: readings are lost, late, repeated or out of order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.faults.common import Fill, SensorFault, require_positive, require_share, require_steps


@dataclass(frozen=True, kw_only=True)
class MissingOptions(SensorFault):
    """Single readings are missing: each of each channel with probability severity x share.

    Attributes:
        share: share of the readings that are missing at severity 1.
        fill: what stands in their place, see `Fill`.
    """

    kind: Literal["missing"] = "missing"
    share: float = 0.5
    fill: Fill = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self.share, "share")


@dataclass(frozen=True, kw_only=True)
class MissingBurstsOptions(SensorFault):
    """All channels of a client are missing for stretches.

    Time is cut into slots of `steps`, by a phase of each client's own; each is missing with probability
    severity x share, so a burst lasts steps / (1 - severity x share) on average.

    Attributes:
        steps: length of a slot.
        share: share of the readings that are missing at severity 1.
        fill: what stands in their place, see `Fill`.
    """

    kind: Literal["missing_bursts"] = "missing_bursts"
    steps: int = 12
    share: float = 0.5
    fill: Fill = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_steps(self.steps)
        require_share(self.share, "share")


@dataclass(frozen=True, kw_only=True)
class ClockSkewOptions(SensorFault):
    """A client's clock is wrong: its readings stand d = severity x part x steps steps from where they belong.

    `part` is the client's own number, uniform from 1/2 to 1. The reading at step t becomes the one at t - d (late) or
    t + d (early); between two steps it is their straight line, beyond the ends of the span the reading at the end.
    Calendar channels and labels stay where they are.

    Attributes:
        steps: the largest skew at severity 1.
        direction: late readings are older than they say and early ones newer; "either" by the client.
    """

    kind: Literal["clock_skew"] = "clock_skew"
    steps: float = 12.0
    direction: Literal["late", "early", "either"] = "late"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self.steps, "steps")


@dataclass(frozen=True, kw_only=True)
class DuplicatedOptions(SensorFault):
    """Packets are sent twice: the second copy stands where the next packet should.

    Packets hold `steps` steps of all channels, by a phase of each client's own; each is replaced by the packet before
    it with probability severity x share. Where that lies before the span that is asked for, nothing is replaced.

    Attributes:
        steps: length of a packet.
        share: share of the packets that are replaced at severity 1.
    """

    kind: Literal["duplicated"] = "duplicated"
    steps: int = 4
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_steps(self.steps)
        require_share(self.share, "share")


@dataclass(frozen=True, kw_only=True)
class ReorderedOptions(SensorFault):
    """Packets overtake one another: two neighbours are swapped with probability severity x share.

    Packets hold `steps` steps of all channels, by a phase of each client's own, and are paired once and for all. A step
    whose counterpart lies outside the span that is asked for stays in place.

    Attributes:
        steps: length of a packet.
        share: share of the pairs that are swapped at severity 1.
    """

    kind: Literal["reordered"] = "reordered"
    steps: int = 4
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_steps(self.steps)
        require_share(self.share, "share")


@dataclass(frozen=True, kw_only=True)
class GatewayOutageOptions(SensorFault):
    """All affected clients of a district are missing at once.

    The world's hours are cut into slots of `hours`, by a phase of each district's own; with p = severity x share, a
    slot is out with probability 1 - (1 - p) ** (1 + storm_factor x storm), storm (0..1) the world's at its first hour.
    Data without a clock count steps for hours; without a world there is no storm; without districts all is one.

    Attributes:
        hours: length of a slot.
        share: share of the hours that are out in fair weather at severity 1.
        storm_factor: how much likelier a storm makes it.
        fill: what stands in their place, see `Fill`.
    """

    kind: Literal["gateway_outage"] = "gateway_outage"
    hours: float = 6.0
    share: float = 0.3
    storm_factor: float = 9.0
    fill: Fill = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self.hours, "hours")
        require_share(self.share, "share")
        ok = 0 <= self.storm_factor < math.inf
        require(ok, "storm_factor", f"must be a finite number >= 0, got {self.storm_factor}")
