"""Checks that the keys of a table fit its task and layout."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from clients.core.errors import require
from clients.core.options import check_at_least, check_below_one

if TYPE_CHECKING:
    from clients.tables.options import TableOptions

FORECAST_KEYS = (
    "columns", "window", "horizon", "stride", "frequency", "max_gap", "missing_value", "time_zone", "sort",
    "duplicates",
)  # fmt: skip
"""Keys of forecasts alone."""
LABELLED_KEYS = ("categorical", "max_categories", "split_column", "client_test_fraction")
"""Keys of labelled rows alone."""
COLUMN_KEYS = (
    "target", "features", "id_column", "time", "time_format", "categorical", "split_column", "gaps",
    "delimiter", "decimal", "thousands", "encoding", "comment", "skip_rows", "missing",
)  # fmt: skip
"""Keys of files with columns, which LEAF's have not."""


def refuse_keys(options: object, names: tuple[str, ...], reason: str) -> None:
    """Refuse keys that are set to anything but their default."""
    defaults = {f.name: f.default for f in fields(options)}  # type: ignore[arg-type]
    for name in names:
        value = getattr(options, name)
        require(value == defaults[name], name, f"{reason}, got {value!r}", fix="Leave it out.")


def check_task(options: TableOptions) -> None:
    """Refuse keys of another task or layout, and values that the task has no meaning for.

    Raises:
        UserError: naming the key.
    """
    task = options.task
    if task == "forecast":
        refuse_keys(options, LABELLED_KEYS, "is for labelled rows (task 'classification' or 'regression')")
        leaf = "'leaf' is for labelled rows"
        require(options.layout != "leaf", "layout", leaf, fix="Set task = 'classification' or 'regression'.")
        fix = "For forecasts gaps is 'error', 'interpolate' or 'drop'."
        require(options.gaps != "mean", "gaps", "'mean' is for labelled rows", fix=fix)
        return
    refuse_keys(options, FORECAST_KEYS, f"is for forecasts, and task is {task!r}")
    fix = "Name the client of each row in id_column, and leave layout out."
    require(options.layout != "long", "layout", "'long' is for forecasts", fix=fix)
    fix = "For labelled rows gaps is 'error', 'mean' or 'drop'."
    require(options.gaps != "interpolate", "gaps", "'interpolate' is for forecasts", fix=fix)
    check_at_least(options, 2, "max_categories", words="at least {:g}")
    check_below_one(options, "client_test_fraction", words="at least 0 and below 1")
    if options.layout == "leaf":
        refuse_keys(options, COLUMN_KEYS, "is for files with columns, and layout is 'leaf'")
        return
    require(bool(options.target), "target", f"must name the column of labels with task = {task!r}")
    files = options.layout == "files"
    fix = "Leave layout out: id_column names the client of each row."
    require(
        not (files and options.id_column), "id_column", "is set, and layout = 'files' makes each file a client", fix=fix
    )
    roles = {"target": options.target, "id_column": options.id_column, "split_column": options.split_column}
    for name, other in (("id_column", "target"), ("split_column", "target"), ("split_column", "id_column")):
        same = bool(roles[name]) and roles[name] == roles[other]
        require(not same, name, f"and {other} must be different columns, got {roles[name]!r}")
