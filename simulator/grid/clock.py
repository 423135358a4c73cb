"""Simulated time: how long a round of the fleet lasts."""

from __future__ import annotations

from dataclasses import dataclass

from clients.core.arrays import I64
from simulator.grid.options import FleetOptions


@dataclass(frozen=True)
class SlowestClientClock:
    """A round lasts as long as its slowest client: download, local steps, upload."""

    fleet: FleetOptions

    def round_seconds(self, local_steps: I64, bytes_down: float, bytes_up: float) -> float:
        """Return the simulated seconds of a round; `bytes_down` and `bytes_up` are one client's.

        Example:
            >>> import numpy as np
            >>> fleet = FleetOptions(seconds_per_local_step=0.5, bytes_per_second_down=10, bytes_per_second_up=5)
            >>> SlowestClientClock(fleet).round_seconds(np.array([2, 4]), 100, 100)
            32.0
        """
        f = self.fleet
        work = int(local_steps.max(initial=0)) * f.seconds_per_local_step
        return work + bytes_down / f.bytes_per_second_down + bytes_up / f.bytes_per_second_up
