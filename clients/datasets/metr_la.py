"""METR-LA and PEMS-BAY: speeds at road sensors every five minutes, as Li et al. (ICLR 2018, DCRNN) published them.

METR-LA has 207 loop detectors of Los Angeles County from March to June 2012, PEMS-BAY 325 of the Bay Area from
January to May 2017. One client is one sensor. In METR-LA 0 means a missing reading.
"""

from __future__ import annotations

import torch

from clients.core.population import Population
from clients.datasets.published import Published, require_published
from clients.datasets.series_options import MetrLaOptions, metr_la_table
from clients.tables.table import table_population

METR_LA = Published(
    name="METR-LA",
    page="https://github.com/liyaguang/DCRNN (Data Preparation)",
    licence="none stated there for the data, which are of the Los Angeles Metropolitan Transportation Authority; "
    "PEMS-BAY is of Caltrans' PeMS",
    take="metr-la.h5 (or pems-bay.h5)",
)


def metr_la_population(options: MetrLaOptions, *, dtype: torch.dtype = torch.float32) -> Population:
    """Read the speeds and make the population: features [n, window, 1], targets [n, horizon].

    Raises:
        DataError: the file is missing (the message names its source) or unusable (it names the place).
    """
    require_published(options.path, METR_LA)
    return table_population(metr_la_table(options), dtype=dtype)
