"""The task of a table: forecasts or labelled rows, the keys of each, and checks that a table has only those."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from clients.core.errors import require
from clients.core.options import DataOptions, check_at_least, check_below_one

TableTask = Literal["forecast", "classification", "regression"]
"""What is learnt from a table."""

FORECAST_KEYS = (
    "columns", "window", "horizon", "stride", "frequency", "max_gap", "missing_value", "time_format", "time_zone",
    "sort", "duplicates",
)  # fmt: skip
"""Keys of forecasts alone."""
LABELLED_KEYS = ("categorical", "max_categories", "split_column", "client_test_fraction", "classes")
"""Keys of labelled rows alone."""
COLUMN_KEYS = (
    "target", "features", "id_column", "time", "categorical", "split_column", "gaps",
    "delimiter", "decimal", "thousands", "encoding", "comment", "skip_rows", "missing", "classes",
)  # fmt: skip
"""Keys of files with columns, which LEAF's have not."""


class TaskOptions(DataOptions):
    """The keys that depend on the task.

    This is no dataclass: a kind declares these fields among its own.

    Attributes:
        task: "forecast" cuts series into windows; "classification" and "regression" take each row as an example with a
            label. Keys that only one of them uses say so.
        layout: "wide": one column a sensor (files of the same columns follow each other in time); "long": one row for
            each sensor and time, with the sensor in `id_column`; "files": one file a sensor or site. Labelled rows have
            one row an example and one column a feature ("wide"); "files" makes each file a client; "leaf" reads LEAF's
            JSON, a file or a folder with `train` and `test`.
        id_column: the column that names the client, for "long"; for "files" a column of one value, or empty to name
            clients by file. For labelled rows the client of each row; without it a partition deals rows out.
        target: the column to forecast, for "long" and "files"; the column of labels of labelled rows.
        gaps: what to do about missing values and rows: "error"; "interpolate" on straight lines within a part, and drop
            windows that touch what is still missing; "drop" windows that touch any. For labelled rows "error"; "mean"
            fills numbers by the training mean, makes missing text a category, and drops rows without a label; "drop"
            drops rows.
        categorical: features of labelled rows that are categories although they hold numbers, such as postcodes. Text
            is a category in any case. Categories are one-hot.
        max_categories: the most categories of a feature, and the most classes, of labelled rows.
        split_column: the column that names each labelled row's part: "train", "validation" or "test". Without it rows
            are split at random by the seed, each client by itself, and a client keeps at least one training row.
        classes: the labels of a classification, in order, such as ["no", "yes"] or ["0", "1"]; empty takes those of the
            rows. Nodes with data of their own need them, since not each has all classes.
        client_test_fraction: share of its training rows that each client of a partition holds out, for labelled rows.
    """

    task: TableTask
    layout: str
    gaps: str
    target: str
    id_column: str
    categorical: tuple[str, ...]
    max_categories: int
    split_column: str
    client_test_fraction: float
    classes: tuple[str, ...]

    @property
    def takes_partition(self) -> bool:
        """Whether a partition may deal out the examples: labelled rows, but not series."""
        return self.task != "forecast"

    def check_task(self) -> None:
        """Refuse keys of another task or layout, and values that the task has no meaning for.

        Raises:
            UserError: naming the key.
        """
        if self.task == "forecast":
            self._check_no_labels()
            return
        _refuse_keys(self, FORECAST_KEYS, f"is for forecasts, and task is {self.task!r}")
        fix = "Name the client of each row in id_column, and leave layout out."
        require(self.layout != "long", "layout", "'long' is for forecasts", fix=fix)
        fix = "For labelled rows gaps is 'error', 'mean' or 'drop'."
        require(self.gaps != "interpolate", "gaps", "'interpolate' is for forecasts", fix=fix)
        check_at_least(self, 2, "max_categories", words="at least {:g}")
        if self.classes:
            require(self.task == "classification", "classes", f"is for classification, and task is {self.task!r}")
            require(len(set(self.classes)) == len(self.classes) > 1, "classes", "must be two labels or more, each once")
        check_below_one(self, "client_test_fraction", words="at least 0 and below 1")
        if self.layout == "leaf":
            _refuse_keys(self, COLUMN_KEYS, "is for files with columns, and layout is 'leaf'")
        else:
            self._check_columns()

    def _check_no_labels(self) -> None:
        _refuse_keys(self, LABELLED_KEYS, "is for labelled rows (task 'classification' or 'regression')")
        fix = "Set task = 'classification' or 'regression'."
        require(self.layout != "leaf", "layout", "'leaf' is for labelled rows", fix=fix)
        fix = "For forecasts gaps is 'error', 'interpolate' or 'drop'."
        require(self.gaps != "mean", "gaps", "'mean' is for labelled rows", fix=fix)

    def _check_columns(self) -> None:
        require(bool(self.target), "target", f"must name the column of labels with task = {self.task!r}")
        if self.split_column:
            _refuse_keys(
                self, ("validation_fraction", "test_fraction"), "has no effect where split_column names the parts"
            )
        both = "is set, and layout = 'files' makes each file a client"
        fix = "Leave layout out: id_column names the client of each row."
        require(not (self.layout == "files" and self.id_column), "id_column", both, fix=fix)
        roles = {"target": self.target, "id_column": self.id_column, "split_column": self.split_column}
        for name, other in (("id_column", "target"), ("split_column", "target"), ("split_column", "id_column")):
            same = bool(roles[name]) and roles[name] == roles[other]
            require(not same, name, f"and {other} must be different columns, got {roles[name]!r}")


def _refuse_keys(options: TaskOptions, names: tuple[str, ...], reason: str) -> None:
    """Refuse keys that are set to anything but their default."""
    defaults = {f.name: f.default for f in fields(options)}
    for name in names:
        value = getattr(options, name)
        require(value == defaults[name], name, f"{reason}, got {value!r}", fix="Leave it out.")
