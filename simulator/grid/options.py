"""Options of the fleet's devices and links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from clients.core.errors import require
from clients.core.numbers.bounds import Within
from clients.core.options import check_not_negative

Seconds = Annotated[float, Within(0.0, 1e6, why="twelve days; simulated time is kept in whole milliseconds")]
Speed = Annotated[float, Within(1e-3, 1e18, why="simulated time is kept in whole milliseconds", may_be_infinite=True)]


@dataclass(frozen=True, kw_only=True)
class FleetOptions:
    """The fleet's devices and links, all alike.

    Attributes:
        seconds_per_local_step: time of one local step on a device.
        bytes_per_second_down: link speed from the server to a client.
        bytes_per_second_up: link speed from a client to the server.
    """

    seconds_per_local_step: Seconds = 0.05
    bytes_per_second_down: Speed = 250_000.0
    bytes_per_second_up: Speed = 50_000.0

    def __post_init__(self) -> None:
        check_not_negative(self, "seconds_per_local_step")
        for name in ("bytes_per_second_down", "bytes_per_second_up"):
            require(getattr(self, name) > 0, name, f"must be > 0, got {getattr(self, name)}")
