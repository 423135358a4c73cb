"""The base of the options of the generated sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from clients.core.errors import require
from clients.core.options import DataOptions, check_at_least


@dataclass(frozen=True, kw_only=True)
class CityOptions(DataOptions):
    """The base of the options of every generated source.

    Attributes:
        clients: how many sites: sensors, households, stations, bridges, devices or people.
    """

    clients: int = 1

    def __post_init__(self) -> None:
        check_at_least(self, 1, "clients")


class HourlyOptions(Protocol):
    """The options that every hourly source has."""

    @property
    def clients(self) -> int:
        """How many sites."""

    @property
    def window(self) -> int:
        """Hours that the model sees."""

    @property
    def horizon(self) -> int:
        """Hours ahead that it forecasts."""

    @property
    def stride(self) -> int:
        """Hours from one window to the next."""

    @property
    def validation_fraction(self) -> float:
        """Share of the hours in the validation part."""

    @property
    def test_fraction(self) -> float:
        """Share of the hours in the test part."""


def check_hourly(options: HourlyOptions) -> None:
    """Check the common options of hourly sources; raise a `UserError` that names the field."""
    check_at_least(options, 1, "window", "horizon", "stride", words="at least {:g} hour")
    for name in ("validation_fraction", "test_fraction"):
        value = getattr(options, name)
        require(0.0 < value < 1.0, name, f"must be between 0 and 1, got {value}")
    both = options.validation_fraction + options.test_fraction
    problem = f"and test_fraction must leave something to train on, got {both:g} together"
    require(both < 1.0, "validation_fraction", problem)


def check_fractions(validation: float, test: float) -> None:
    """Refuse held-out fractions that leave nothing to train on."""
    require(0.0 <= validation < 1.0, "validation_fraction", f"must be in [0, 1), got {validation}")
    require(0.0 <= test < 1.0, "test_fraction", f"must be in [0, 1), got {test}")
    left = f"and validation_fraction must leave something to train on, got {test} and {validation}"
    require(validation + test < 1.0, "test_fraction", left)
