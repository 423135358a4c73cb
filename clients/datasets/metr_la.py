"""METR-LA and PEMS-BAY: speeds at road sensors every five minutes, as Li et al. (ICLR 2018, DCRNN) published them.

METR-LA has 207 loop detectors of Los Angeles County from March to June 2012, PEMS-BAY 325 of the Bay Area from
January to May 2017. One client is one sensor. In METR-LA 0 means a missing reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from clients.core.options import STRICT
from clients.core.population import Population
from clients.datasets.published import Published, require_published
from clients.tables.table import TableOptions, table_population

METR_LA = Published(
    name="METR-LA",
    page="https://github.com/liyaguang/DCRNN (Data Preparation)",
    licence="none stated there for the data, which are of the Los Angeles Metropolitan Transportation Authority; "
    "PEMS-BAY is of Caltrans' PeMS",
    take="metr-la.h5 (or pems-bay.h5)",
)


@dataclass(frozen=True, kw_only=True)
class MetrLaOptions:
    """Speeds at road sensors, in miles an hour, to forecast: one client a sensor.

    Attributes:
        path: the .h5 as published (needs the extra `hdf5`), or a CSV or Parquet of times and a column a sensor.
        sensors: those to keep; empty keeps all.
        zero_is_missing: whether a speed of 0 means that nothing was read, as in METR-LA. In PEMS-BAY it does not.
        window: past steps of five minutes the model sees.
        horizon: steps ahead; all values from 1 to `horizon` are forecast.
        stride: steps from one window to the next.
        validation_fraction: share of a sensor's time, after the training part.
        test_fraction: share of its time, at the end.
        scale: by the training part's mean and deviation, per "client" or over all ("global"); or "none".
        max_gap: longest run of missing readings to fill on a straight line, in steps; windows that touch a longer one
            are dropped. 0 fills none.
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
    scale: Literal["client", "global", "none"] = "client"
    max_gap: int = 3
    __pydantic_config__: ClassVar = STRICT

    def __post_init__(self) -> None:
        metr_la_table(self)


def metr_la_table(options: MetrLaOptions) -> TableOptions:
    """Return the options of the table."""
    return TableOptions(
        path=options.path,
        layout="wide",
        columns=options.sensors,
        window=options.window,
        horizon=options.horizon,
        stride=options.stride,
        validation_fraction=options.validation_fraction,
        test_fraction=options.test_fraction,
        scale=options.scale,
        frequency="5min",
        gaps="interpolate" if options.max_gap else "drop",
        max_gap=options.max_gap or None,
        missing_value=0.0 if options.zero_is_missing else None,
    )


def metr_la_population(options: MetrLaOptions, *, dtype: torch.dtype = torch.float32) -> Population:
    """Read the speeds and make the population: features [n, window, 1], targets [n, horizon].

    Raises:
        DataError: the file is missing (the message names its source) or unusable (it names the place).
    """
    require_published(options.path, METR_LA)
    return table_population(metr_la_table(options), dtype=dtype)
