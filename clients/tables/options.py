"""Options of readings from the user's files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clients.core.errors import require
from clients.core.numbers.bounds import AtMost, Level
from clients.core.options import DataOptions, check_at_least, check_below_one
from clients.tables.finding import find_tables, leaf_paths
from clients.tables.task_options import TableTask, TaskOptions
from clients.tables.text.dialect import Dialect
from clients.tables.text.steps import parse_frequency
from clients.tables.text.zones import check_zone

Scale = Literal["client", "global", "none"]
"""The mean and deviation that scale readings; see `TableOptions.scale`."""
Gaps = Literal["error", "interpolate", "mean", "drop"]
"""The treatment of missing values and rows; see `TableOptions.gaps`."""
Duplicates = Literal["error", "first", "last", "mean"]
"""The treatment of rows of one time; see `TableOptions.duplicates`."""

LAYOUTS = "Set layout = 'long' (with id_column) or 'files'; a table with a column for each client has `columns`."
USUAL_MAX_GAP = 6
"""The longest run that is interpolated where `max_gap` is unset, in steps."""


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
    scale: Scale | None

    @property
    def is_scaled(self) -> bool:
        """Whether `scale` divides readings by their deviation."""
        return self.scale != "none"

    def files(self) -> list[Path]:
        """Return the files of the table: itself, those of a folder, or those of a pattern."""
        return find_tables(self.path).files


@dataclass(frozen=True, kw_only=True)
class TableOptions(WindowedOptions, TaskOptions):
    """Readings to forecast, or labelled rows.

    Attributes:
        path: a file (.csv, .csv.gz, .csv.xz, .tsv, .parquet, .h5), a folder of them, or a glob such as "air/*.csv.xz".
            Files are read in order of their names. A file or a glob may also end in .txt, .dat or .data.
        time: the column of timestamps (or of numbers since 1970); or columns of text to join, such as ["Date",
            "Time"]; or the columns of year, month, day and so on; empty finds them. Without any, rows are taken as
            evenly spaced.
        time_format: format of the times for strptime, which goes before every guess; or the unit of numbers since 1970,
            "s", "ms", "us" or "ns"; or "excel" for days as spreadsheets count.
        time_zone: zone of times without an offset, such as "Europe/Berlin"; empty takes them as they are. Times are
            turned into UTC. A local time that occurs twice at the end of daylight saving is taken in the file's order.
        unit: the unit of the readings to forecast, such as "ug/m3"; errors are then reported in it too.
        features: additional input columns; with "wide" every client gets them. Labelled rows take all columns that have
            no other use by default.
        columns: the sensors to keep, for "wide"; empty keeps every numeric column.
        clients: names of the clients to keep, for any layout; empty keeps all.
        exclude: names of clients to leave out; for "wide" also of other columns; without the column of
            times, rows are taken as evenly spaced. For labelled rows columns that are no
            features, and clients.
        frequency: time between rows, such as "5min" or "1h"; empty takes the commonest step. Checked either way.
        max_gap: longest run of missing values to interpolate, in steps; 6 if it is unset.
        validation_fraction: share of a client's time, after the training part; of labelled rows a share of each
            client's rows, or of all rows before a partition, at random.
        test_fraction: share of a client's time, at the end; of labelled rows as `validation_fraction`.
        scale: subtract the mean and divide by the standard deviation of the training part, per "client" or over all
            clients ("global"), targets too; or "none". Unset is "client" for forecasts, "global" for labelled rows and
            "none" for LEAF's.
        missing_value: a reading of the forecast sensors that marks a missing value, such as 0 in METR-LA.
        sort: whether rows that are out of order are put in order of time.
        duplicates: what to do about rows of one time and client: "error"; keep the "first" or the "last" in the file,
            or their "mean".
        delimiter: what separates the columns of a CSV, such as ";"; empty finds it.
        decimal: the decimal mark, "." or ","; empty finds it.
        thousands: what separates groups of three digits: ",", ".", " ", "'" or "_"; empty for none.
        encoding: encoding of a CSV, such as "cp1252" or "utf-16"; empty finds it.
        comment: lines of a CSV that begin with it are left out, such as "#".
        skip_rows: lines of a CSV before its header.
        missing: texts that mark a missing value, such as ["?", "n/a"], besides an empty field, NA, NaN and null.
    """

    kind: Literal["table"] = "table"
    path: str
    task: TableTask = "forecast"
    layout: Literal["wide", "long", "files", "leaf"] = "wide"
    time: str | tuple[str, ...] = ()
    time_format: str = ""
    time_zone: str = ""
    id_column: str = ""
    target: str = ""
    unit: str = ""
    features: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    max_categories: AtMost = 100
    split_column: str = ""
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    window: int = 12
    horizon: int = 1
    stride: int = 1
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    client_test_fraction: float = 0.0
    scale: Scale | None = None
    frequency: str = ""
    gaps: Gaps = "error"
    max_gap: AtMost | None = None
    missing_value: Level | None = None
    sort: bool = False
    duplicates: Duplicates = "error"
    delimiter: str = ""
    decimal: Literal["", ".", ","] = ""
    thousands: str = ""
    encoding: str = ""
    comment: str = ""
    skip_rows: AtMost = 0
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.path), "path", "must name a file, a folder or a pattern, got nothing")
        check_at_least(self, 1, "window", "horizon", "stride", words="at least {:g}")
        check_below_one(self, "validation_fraction", "test_fraction", words="at least 0 and below 1")
        marks = self.missing_value is None or math.isfinite(self.missing_value)
        require(marks, "missing_value", f"must be finite, got {self.missing_value}")
        held = self.validation_fraction + self.test_fraction
        require(held < 1, "validation_fraction", f"and test_fraction must add up to less than 1, got {held}")
        assert self.dialect is not None  # it checks itself
        self.check_task()
        if self.task == "forecast":
            self._check_forecast()

    def _check_forecast(self) -> None:
        wide = self.layout == "wide"
        require(wide or bool(self.target), "target", f"must name the column to forecast with layout = '{self.layout}'")
        require(not (wide and self.target), "target", "is for layouts 'long' and 'files'", fix=LAYOUTS)
        require(not (wide and self.id_column), "id_column", "is for layouts 'long' and 'files'", fix=LAYOUTS)
        require(self.layout != "long" or bool(self.id_column), "id_column", "must name a column with layout = 'long'")
        require(wide or not self.columns, "columns", "is for layout = 'wide'", fix="Use target and features.")
        twice = f"must not name the target {self.target!r}: its readings are always an input"
        require(not self.target or self.target not in self.features, "features", twice, fix="Leave it out.")
        unset = self.max_gap is None or (self.gaps == "interpolate" and self.max_gap >= 1)
        require(unset, "max_gap", f"must be at least 1, with gaps = 'interpolate', got {self.max_gap}")
        require(not (self.columns and self.clients), "clients", "cannot be set beside columns", fix="Use one of them.")
        parse_frequency(self.frequency)
        check_zone(self.time_zone)

    @property
    def scale_of_task(self) -> Scale:
        """The scale, or the task's default."""
        if self.scale is not None:
            return self.scale
        return "client" if self.task == "forecast" else "none" if self.layout == "leaf" else "global"

    @property
    def is_scaled(self) -> bool:
        """Whether targets are divided by their deviation."""
        return self.scale_of_task != "none"

    def files(self) -> list[Path]:
        """Return the files of the table, or of LEAF's folder."""
        if self.layout != "leaf":
            return super().files()
        train, test = leaf_paths(self.path)
        return [*train, *(test or ())]

    @property
    def dialect(self) -> Dialect:
        """How CSV files are written, as far as the options say."""
        return Dialect(
            delimiter=self.delimiter,
            decimal=self.decimal,
            thousands=self.thousands,
            encoding=self.encoding,
            comment=self.comment,
            skip_rows=self.skip_rows,
            missing=self.missing,
        )

    @property
    def longest_gap(self) -> int:
        """The longest run of missing values to interpolate, in steps."""
        return self.max_gap or USUAL_MAX_GAP
