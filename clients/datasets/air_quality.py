"""Air quality at many stations, a CSV a station: the twelve of Beijing (UCI 501) or others of that form.

Hourly from March 2013 to February 2017: six pollutants and the weather of the nearest weather station (Zhang et al.
2017, "Cautionary tales on air-quality improvement in Beijing", Proc. R. Soc. A 473). One client is one station.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from clients.core.errors import require
from clients.core.options import STRICT
from clients.core.population import Population
from clients.datasets.published import Published, require_published
from clients.tables.table import TableOptions, table_population

BEIJING = Published(
    name="Beijing Multi-Site Air Quality (UCI 501)",
    page="https://archive.ics.uci.edu/dataset/501/beijing+multi+site+air+quality+data",
    licence="CC BY 4.0",
    take="the zip, and out of it the folder with the twelve PRSA_Data_*.csv (they may be packed as .gz or .xz)",
)


@dataclass(frozen=True, kw_only=True)
class AirQualityOptions:
    """A pollutant to forecast from its past and the weather: one client a station.

    Attributes:
        path: a folder of a CSV a station (also .gz, .xz), or a pattern.
        target: the pollutant: PM2.5, PM10, SO2, NO2, CO or O3 in micrograms a cubic metre.
        features: further columns of numbers; the wind's direction is text, and so none.
        station: the column that names the station; empty names it by the file.
        window: past steps the model sees.
        horizon: steps ahead; all values from 1 to `horizon` are forecast.
        stride: steps from one window to the next.
        validation_fraction: share of a station's time, after the training part.
        test_fraction: share of its time, at the end.
        scale: by the training part's mean and deviation, per "client" or over all ("global"); or "none".
        frequency: time between rows.
        max_gap: longest run of missing values to fill on a straight line, in steps; windows that touch a longer one are
            dropped. 0 fills none.
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
    scale: Literal["client", "global", "none"] = "client"
    frequency: str = "1h"
    max_gap: int = 6
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        require(self.target not in self.features, "features", f"must not name the target, {self.target!r}, again")
        air_quality_table(self)


def air_quality_table(options: AirQualityOptions) -> TableOptions:
    """Return the options of the table."""
    return TableOptions(
        path=options.path,
        layout="files",
        id_column=options.station,
        target=options.target,
        features=options.features,
        window=options.window,
        horizon=options.horizon,
        stride=options.stride,
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        scale=options.scale,
        frequency=options.frequency,
        gaps="interpolate" if options.max_gap else "drop",
        max_gap=options.max_gap or None,
    )


def air_quality_population(options: AirQualityOptions, *, dtype: torch.dtype = torch.float32) -> Population:
    """Read the stations and make the population: features [n, window, 1 + features], targets [n, horizon].

    Raises:
        DataError: the files are missing (saying where they are to be had) or unusable (saying where in which).
    """
    require_published(options.path, BEIJING)
    return table_population(air_quality_table(options), dtype=dtype)
