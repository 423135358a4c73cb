"""What one number of an example measures, and in which unit."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One quantity that a sensor reads.

    Attributes:
        name: such as "speed".
        unit: such as "mph"; empty for a pure number.
        mean: its nominal mean in that unit; readings are standardised by it and by `deviation`.
        deviation: its nominal standard deviation, > 0.
        low: least value the sensor can show.
        high: largest value the sensor can show.
        other_unit: the unit that it is sometimes mistaken for, such as "km/h"; empty for none.
        other_scale: value in the other unit = scale * value + offset.
        other_offset: see `other_scale`.
        measured: False for what no sensor measures (the hour of the day): no fault changes it.
    """

    name: str
    unit: str = ""
    mean: float = 0.0
    deviation: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    other_unit: str = ""
    other_scale: float = 1.0
    other_offset: float = 0.0
    measured: bool = True
