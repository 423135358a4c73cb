"""Air quality at many stations, one CSV a station: the twelve of Beijing (UCI 501) or others of that form.

Hourly from March 2013 to February 2017: six pollutants and the weather of the nearest weather station (Zhang et al.
2017, "Cautionary tales on air-quality improvement in Beijing", Proc. R. Soc. A 473). One client is one station.
"""

from __future__ import annotations

import torch

from clients.core.population import Population
from clients.datasets.published import Published, require_published
from clients.datasets.series_options import AirQualityOptions, air_quality_table
from clients.tables.table import table_population

BEIJING = Published(
    name="Beijing Multi-Site Air Quality (UCI 501)",
    page="https://archive.ics.uci.edu/dataset/501/beijing+multi+site+air+quality+data",
    licence="CC BY 4.0",
    take="the zip, and out of it the folder with the twelve PRSA_Data_*.csv (they may be packed as .gz or .xz)",
)


def air_quality_population(options: AirQualityOptions, *, dtype: torch.dtype = torch.float32) -> Population:
    """Read the stations and make the population: features [n, window, 1 + features], targets [n, horizon].

    Raises:
        DataError: the files are missing (the message names their source) or unusable (it names the place).
    """
    require_published(options.path, BEIJING)
    return table_population(air_quality_table(options), dtype=dtype)
