"""Options of the recorded series for forecasts, and the table that each is read as."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clients.core.errors import require
from clients.core.file_paths import find_file
from clients.core.numbers.bounds import AtMost
from clients.tables.options import Scale, TableOptions, WindowedOptions


class FilledOptions(WindowedOptions):
    """Readings whose short gaps are filled.

    This is no dataclass: each kind declares these fields at their place among its own.

    Attributes:
        max_gap: longest run of missing readings to fill on a straight line, in steps; windows that touch a longer one
            are dropped. 0 fills none.
    """

    max_gap: AtMost


@dataclass(frozen=True, kw_only=True)
class MetrLaOptions(FilledOptions):
    """Speeds at road sensors, in miles an hour, to forecast: one client a sensor.

    Attributes:
        path: the .h5 as published (needs the extra `hdf5`), or a CSV or Parquet of times and one column a sensor.
        sensors: sensors to keep; empty keeps all.
        zero_is_missing: whether a speed of 0 marks a missing reading. It does in METR-LA, and not in PEMS-BAY.
        window: past steps of five minutes the model sees.
    """

    kind: Literal["metr_la"] = "metr_la"
    path: str = "data/metr-la.h5"
    sensors: tuple[str, ...] = ()
    zero_is_missing: bool = True
    window: int = 12
    horizon: int = 12
    stride: int = 1
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    scale: Scale = "client"
    max_gap: AtMost = 3

    def __post_init__(self) -> None:
        metr_la_table(self)


def metr_la_table(options: MetrLaOptions) -> TableOptions:
    """Return the table that these options describe."""
    return _table(
        options,
        frequency="5min",
        layout="wide",
        columns=options.sensors,
        missing_value=0.0 if options.zero_is_missing else None,
        unit="mph",
    )


AIR_UNITS = dict.fromkeys(("PM2.5", "PM10", "SO2", "NO2", "CO", "O3"), "ug/m3") | {
    "TEMP": "deg C",
    "PRES": "hPa",
    "DEWP": "deg C",
    "RAIN": "mm",
    "WSPM": "m/s",
}
"""The units of the columns of numbers, as the data's page (UCI 501) states them."""


@dataclass(frozen=True, kw_only=True)
class AirQualityOptions(FilledOptions):
    """A pollutant to forecast from its past and the weather: one client a station.

    Attributes:
        path: a folder with one CSV a station (also .gz, .xz), or a pattern.
        target: the pollutant: PM2.5, PM10, SO2, NO2, CO or O3 in micrograms a cubic metre.
        features: additional columns of numbers; the wind's direction is text and cannot be one.
        station: the column that names the station; empty names it by the file.
        frequency: time between rows.
    """

    kind: Literal["air_quality"] = "air_quality"
    path: str = "data/air-beijing"
    target: str = "PM2.5"
    features: tuple[str, ...] = ("TEMP", "PRES", "DEWP", "RAIN", "WSPM")
    station: str = "station"
    window: int = 24
    horizon: int = 1
    stride: int = 1
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    scale: Scale = "client"
    frequency: str = "1h"
    max_gap: AtMost = 6

    def __post_init__(self) -> None:
        require(self.target not in self.features, "features", f"must not name the target, {self.target!r}, again")
        air_quality_table(self)


def air_quality_table(options: AirQualityOptions) -> TableOptions:
    """Return the table that these options describe."""
    return _table(
        options,
        frequency=options.frequency,
        layout="files",
        id_column=options.station,
        target=options.target,
        features=options.features,
        unit=AIR_UNITS.get(options.target, ""),
    )


FILE = "household_power_consumption.txt"


POWER = "Global_active_power"


METERS = {
    "Sub_metering_1": "kitchen",
    "Sub_metering_2": "laundry",
    "Sub_metering_3": "water heater and air conditioner",
}


COLUMNS = (POWER, "Global_reactive_power", "Voltage", "Global_intensity", *METERS)
"""The columns of the file besides `Date` and `Time`."""


@dataclass(frozen=True, kw_only=True)
class HouseholdPowerOptions(FilledOptions):
    """Hourly mean power to forecast.

    Attributes:
        path: household_power_consumption.txt, or its folder.
        clients: "months": a client is a calendar month of the household's power; "meters": one of the four meters.
        features: further columns of `COLUMNS`, for "months"; sub-meters are in kW like the power itself.
        minutes: an hour with fewer known minutes than this is missing.
        window: past hours the model sees; horizon and stride are in hours too.
        validation_fraction: share of a client's time, after the training part. Months are split each by itself, so one
            month's test lies before another's training.
    """

    kind: Literal["household_power"] = "household_power"
    path: str = f"data/{FILE}"
    clients: Literal["months", "meters"] = "months"
    features: tuple[str, ...] = ()
    minutes: int = 30
    window: int = 24
    horizon: int = 1
    stride: int = 1
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    scale: Scale = "global"
    max_gap: AtMost = 3

    def __post_init__(self) -> None:
        others = [c for c in COLUMNS if c != POWER]
        wrong = [f for f in self.features if f not in others]
        require(not wrong, "features", f"must be of {', '.join(others)}, got {wrong}")
        require(self.clients == "months" or not self.features, "features", "is for clients = 'months'")
        require(1 <= self.minutes <= 60, "minutes", f"must be from 1 to 60, got {self.minutes}")
        household_power_table(self)

    def files(self) -> list[Path]:
        """Return the file, or the one of its name in the folder."""
        place = Path(self.path).expanduser()
        return [find_file(str(place / FILE if place.is_dir() else place), "path")]


def household_power_table(options: HouseholdPowerOptions) -> TableOptions:
    """Return how the hours are split, scaled and windowed."""
    return _table(options, frequency="1h", unit="kW")


def _table(options: FilledOptions, *, frequency: str, **layout: Any) -> TableOptions:
    """Return a table with the options' windows, split, scale and gaps."""
    return TableOptions(
        path=options.path,
        window=options.window,
        horizon=options.horizon,
        stride=options.stride,
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        scale=options.scale,
        frequency=frequency,
        gaps="interpolate" if options.max_gap else "drop",
        max_gap=options.max_gap or None,
        **layout,
    )
