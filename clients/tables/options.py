"""Options of readings from the user's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clients.core.errors import require
from clients.core.options import DataOptions, check_at_least, check_below_one
from clients.tables.files import parse_frequency

Scale = Literal["client", "global", "none"]
"""The mean and deviation that scale readings; see `TableOptions.scale`."""
Gaps = Literal["error", "interpolate", "drop"]
"""The treatment of missing values and rows; see `TableOptions.gaps`."""


class WindowedOptions(DataOptions):
    """Readings that are cut by time and forecast through windows.

    This is not a dataclass: each kind declares these fields among its own.

    Attributes:
        path: path of the files.
        window: past steps the model sees.
        horizon: steps ahead; all values from 1 to `horizon` are forecast.
        stride: steps from one window to the next.
        validation_fraction: share of a client's time, after the training part.
        test_fraction: share of a client's time, at the end.
        scale: subtract the mean and divide by the standard deviation of the training part, per "client" or over all
            clients ("global"), targets too; or "none".
    """

    path: str
    window: int
    horizon: int
    stride: int
    validation_fraction: float
    test_fraction: float
    scale: Scale

    @property
    def is_scaled(self) -> bool:
        """Whether `scale` divides readings by their deviation."""
        return self.scale != "none"


@dataclass(frozen=True, kw_only=True)
class TableOptions(WindowedOptions):
    """Readings to forecast.

    Attributes:
        path: a file (.csv, .csv.gz, .csv.xz, .parquet, .h5), a folder of them, or a glob such as "air/*.csv.xz".
        layout: "wide": one column a sensor (files of the same columns follow each other in time); "long": one row for
            each sensor and time, with the sensor in `id_column`; "files": one file a sensor or site.
        time: the column of timestamps (or of seconds since 1970), or the columns of year, month, day and so on; empty
            finds them. Without any, rows are taken as evenly spaced.
        time_format: format of the times for strptime, if it is not ISO 8601.
        id_column: the column that names the client, for "long"; for "files" a column of one value, or empty to name
            clients by file.
        target: the column to forecast, for "long" and "files".
        unit: the unit of the readings to forecast, such as "ug/m3"; errors are then reported in it too.
        features: additional input columns; with "wide" every client gets them.
        columns: the sensors to keep, for "wide"; empty keeps every numeric column.
        frequency: time between rows, such as "5min" or "1h"; empty takes the commonest step. Checked either way.
        gaps: what to do about missing values and rows: "error"; "interpolate" on straight lines within a part, and drop
            windows that touch what is still missing; "drop" windows that touch any.
        max_gap: longest run of missing values to interpolate, in steps; unset for any.
        missing_value: a reading of the forecast sensors that marks a missing value, such as 0 in METR-LA.
    """

    kind: Literal["table"] = "table"
    path: str
    layout: Literal["wide", "long", "files"] = "wide"
    time: str | tuple[str, ...] = ()
    time_format: str = ""
    id_column: str = ""
    target: str = ""
    unit: str = ""
    features: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    window: int = 12
    horizon: int = 1
    stride: int = 1
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    scale: Scale = "client"
    frequency: str = ""
    gaps: Gaps = "error"
    max_gap: int | None = None
    missing_value: float | None = None

    def __post_init__(self) -> None:
        require(bool(self.path), "path", "must name a file, a folder or a pattern, got nothing")
        check_at_least(self, 1, "window", "horizon", "stride", words="at least {:g}")
        check_below_one(self, "validation_fraction", "test_fraction", words="at least 0 and below 1")
        held = self.validation_fraction + self.test_fraction
        require(held < 1, "validation_fraction", f"and test_fraction must add up to less than 1, got {held}")
        wide = self.layout == "wide"
        require(wide or bool(self.target), "target", f"must name the column to forecast with layout = '{self.layout}'")
        require(not (wide and self.target), "target", "is for layouts 'long' and 'files'", fix="Use columns.")
        require(not (wide and self.id_column), "id_column", "is for layouts 'long' and 'files'")
        require(self.layout != "long" or bool(self.id_column), "id_column", "must name a column with layout = 'long'")
        require(wide or not self.columns, "columns", "is for layout = 'wide'", fix="Use target and features.")
        unset = self.max_gap is None or (self.gaps == "interpolate" and self.max_gap >= 1)
        require(unset, "max_gap", f"must be at least 1, with gaps = 'interpolate', got {self.max_gap}")
        parse_frequency(self.frequency)
