"""Options of the generated series: traffic, meters, air."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.city.options import HourlyOptions, SeriesOptions
from clients.core.errors import require, unknown_name
from clients.core.options import check_at_least, check_below_one, check_range

POLLUTANT_NAMES = ("pm25", "no2", "o3")


@dataclass(frozen=True, kw_only=True)
class TrafficOptions(SeriesOptions):
    """Speeds at road sensors (`[data] kind = "traffic"`).

    Attributes:
        clients: sensors.
        task: "forecast" the speeds of the next `horizon` steps, or "congestion": whether the last is below 40 mph.
        step_minutes: 5, 15 or 60.
        roads: main roads through the city, each with two carriageways.
        incidents_per_day: in the whole city on a weekday.
    """

    kind: Literal["traffic"] = "traffic"
    clients: int = 207
    task: Literal["forecast", "congestion"] = "forecast"
    step_minutes: int = 15
    window: int = 12
    horizon: int = 4
    stride: int = 4
    roads: int = 6
    incidents_per_day: float = 14.0
    validation_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.task in ("forecast", "congestion"), "task", f"must be forecast or congestion, got {self.task!r}")
        require(self.step_minutes in (5, 15, 60), "step_minutes", f"must be 5, 15 or 60, got {self.step_minutes}")
        check_at_least(self, 1, "window", "horizon", "stride", "roads")
        require(self.roads <= 1000, "roads", f"must be <= 1000, got {self.roads}")
        check_range(self, 0, 1000, "incidents_per_day")
        check_below_one(self, "validation_fraction", "test_fraction", words="from 0 to below 1")
        both = self.validation_fraction + self.test_fraction
        require(both < 1.0, "test_fraction", f"must leave some time to train on, got {both} with validation_fraction")


@dataclass(frozen=True, kw_only=True)
class MetersOptions(HourlyOptions):
    """Smart meters of households.

    Attributes:
        clients: households.
        task: forecast: the load of the next hours; peak_hour: at which hour of tomorrow the load will be highest (24
            classes), predicted at midnight.
        electric_heating: share of homes that are heated by a heat pump, 0 to 1.
        ev: share with an electric car.
        solar: share with solar panels; their load is net and may be negative.
        window: past hours that the model sees; whole days for peak_hour.
        horizon: hours ahead that it forecasts; 24 for peak_hour.
        stride: hours from one window to the next; whole days for peak_hour.
    """

    kind: Literal["meters"] = "meters"
    clients: int = 200
    task: Literal["forecast", "peak_hour"] = "forecast"
    electric_heating: float = 0.2
    ev: float = 0.15
    solar: float = 0.15
    window: int = 24
    horizon: int = 24
    stride: int = 24
    validation_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = self.task in ("forecast", "peak_hour")
        require(allowed, "task", f"must be 'forecast' or 'peak_hour', got {self.task!r}")
        check_range(self, 0, 1, "electric_heating", "ev", "solar")
        self.check_hourly()
        if self.task == "peak_hour":
            for name in ("window", "stride"):
                value = getattr(self, name)
                require(value % 24 == 0, name, f"must be a multiple of 24 hours for peak_hour, got {value}")
            require(self.horizon == 24, "horizon", f"must be 24 hours for peak_hour, got {self.horizon}")


@dataclass(frozen=True, kw_only=True)
class AirOptions(HourlyOptions):
    """Air quality at stations of the generated city.

    Attributes:
        clients: stations.
        pollutant: which one is forecast: pm25, no2 or o3; the others are inputs.
        window: past hours that the model sees; horizon and stride are in hours too.
    """

    kind: Literal["air"] = "air"
    clients: int = 12
    pollutant: Literal["pm25", "no2", "o3"] = "pm25"
    window: int = 24
    horizon: int = 6
    stride: int = 3
    validation_fraction: float = 0.1
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.pollutant in POLLUTANT_NAMES
        require(known, "pollutant", "must be " + unknown_name(self.pollutant, POLLUTANT_NAMES, "measured"))
        self.check_hourly()
