"""The base of the options of the generated sources."""

from __future__ import annotations

from dataclasses import dataclass

from clients.core.errors import require
from clients.core.options import DataOptions, check_at_least, check_below_one


@dataclass(frozen=True, kw_only=True)
class CityOptions(DataOptions):
    """The base of the options of every generated source.

    Attributes:
        clients: how many sites: sensors, households, stations, bridges, devices or people.
    """

    clients: int = 1

    def __post_init__(self) -> None:
        check_at_least(self, 1, "clients")


class SplitOptions(CityOptions):
    """What sources share that hold out the last part of the time.

    This is no dataclass: each kind declares these fields at their place among its own.

    Attributes:
        validation_fraction: share of the time, after the training part. Sources of windows count each client's windows.
        test_fraction: likewise, at the end.
    """

    validation_fraction: float
    test_fraction: float

    def check_fractions(self) -> None:
        """Refuse held-out fractions that leave nothing to train on."""
        validation, test = self.validation_fraction, self.test_fraction
        check_below_one(self, "validation_fraction", "test_fraction")
        left = f"and validation_fraction must leave something to train on, got {test} and {validation}"
        require(validation + test < 1.0, "test_fraction", left)


class SeriesOptions(SplitOptions):
    """What sources of series share; they are seen through windows.

    This is no dataclass: each kind declares these fields at their place among its own.

    Attributes:
        window: past steps that the model sees.
        horizon: steps ahead that it forecasts.
        stride: steps from one window to the next.
    """

    window: int
    horizon: int
    stride: int


class HourlyOptions(SeriesOptions):
    """What sources of series share whose steps are hours."""

    def check_hourly(self) -> None:
        """Refuse windows of no hours, and held-out fractions that leave nothing to train on."""
        check_at_least(self, 1, "window", "horizon", "stride", words="at least {:g} hour")
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            require(0.0 < value < 1.0, name, f"must be between 0 and 1, got {value}")
        both = self.validation_fraction + self.test_fraction
        problem = f"and test_fraction must leave something to train on, got {both:g} together"
        require(both < 1.0, "validation_fraction", problem)
