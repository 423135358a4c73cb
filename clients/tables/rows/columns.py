"""Chooses and reads the columns of labelled rows: features, label, client and part, from one file or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clients.core.errors import DataError, listed
from clients.tables.columns import counts_rows
from clients.tables.frame import Frame
from clients.tables.rows.encoding import SHOWN, Column
from clients.tables.rows.row_table import RowTable

if TYPE_CHECKING:
    from clients.tables.options import TableOptions

_ROWS_OF_AN_INDEX = 10
_NO_FEATURE = {"time": "a time", "empty": "empty", "nested": "lists"}


@dataclass(frozen=True)
class Roles:
    """What each column is used as.

    Attributes:
        features: the columns of features, in the file's order (or in that of the option `features`).
        categorical: which of them are categories.
        notices: for people.
    """

    features: tuple[str, ...]
    categorical: frozenset[str]
    notices: tuple[str, ...]


def roles_of(table: RowTable, options: TableOptions, key: str = "") -> Roles:
    """Choose the features.

    Args:
        table: the files.
        options: name columns.
        key: the key of a natural partition, which is no feature unless `features` names it.

    Raises:
        DataError: a name is no column, a column has two roles, or nothing is left.
    """
    times = (options.time,) if isinstance(options.time, str) else options.time
    named: dict[str, tuple[str, ...]] = {
        "target": (options.target,),
        "id_column": (options.id_column,),
        "split_column": (options.split_column,),
        "time": times,
        "features": options.features,
        "categorical": options.categorical,
    }
    for field, names in named.items():
        for frame in table.frames:
            frame.require_columns([n for n in names if n], field)
    used = {options.target: "the label", options.id_column: "the client", options.split_column: "the part"}
    used |= dict.fromkeys(times, "the time")
    skipped = {n: why for n, why in used.items() if n}
    for name in options.features:
        if name in skipped or name in options.exclude:
            why = skipped.get(name, "excluded")
            raise DataError("features", f"names {name!r}, which is {why}", fix="Leave it out of one of the two.")
    for name in options.features:
        if table.is_nested(name):
            raise DataError("features", f"names {name!r}, which holds lists, and not one number or text a row")
    wanted = options.features or [n for n in table.names if n not in skipped and n not in options.exclude]
    for frame in table.frames:
        frame.parse([n for n in wanted if not table.is_nested(n)])  # at once, which is faster
    if not options.features:
        skipped |= _default_skipped(table, options, key, skipped)
    names = options.features or tuple(n for n in table.names if n not in skipped)
    if not names:
        raise DataError(
            "features", f"{table.where} has no column left to be a feature; it has {', '.join(table.names)}"
        )
    stray = [n for n in options.categorical if n not in names]
    if stray:
        raise DataError("categorical", f"names {stray[0]!r}, which is no feature", fix="Name features only.")
    categories = frozenset(n for n in names if n in options.categorical or _is_categories(table, n))
    return Roles(names, categories, _notices(table, names, categories, skipped))


def _default_skipped(table: RowTable, options: TableOptions, key: str, used: dict[str, str]) -> dict[str, str]:
    """Return the columns that are no features by default, with the reason."""
    found = dict.fromkeys(options.exclude, "excluded")
    if key:
        found[key] = "the partition's key"
    for i, name in enumerate(table.names):
        if name in found or name in used:
            continue
        kind = table.kind(name)
        if kind in _NO_FEATURE:
            found[name] = _NO_FEATURE[kind]
        elif i == 0 and kind == "number" and _is_index(table.frames[0], name):
            found[name] = "counts the rows"
    return found


def _is_index(frame: Frame, name: str) -> bool:
    """Return whether a first column counts rows; a few rows of a column with a name may count by chance."""
    return (not name or frame.table.num_rows >= _ROWS_OF_AN_INDEX) and counts_rows(frame, name)


def _is_categories(table: RowTable, name: str) -> bool:
    """Return whether a feature is text. Text among numbers is refused: it may be a mark of a missing value."""
    kind = table.kind(name)
    if kind == "time":
        raise DataError("features", f"column {name!r} is a time, and a feature must be numbers or text")
    if kind != "text":
        return False
    for frame in table.frames:
        parsed = frame.parsed(name)
        if parsed.bad and parsed.numbers >= parsed.bad:
            try:
                frame.numbers(name, "features")
            except DataError as error:
                fix = f"List it in missing if it marks a missing value, or add {name!r} to categorical or exclude."
                raise DataError(error.field, error.problem, fix=fix) from None
    return True


def _has_leading_zeros(table: RowTable, name: str) -> bool:
    """Return whether a column of a text file has numbers such as 01067, which may be codes."""
    import polars as pl

    columns: list[Any] = [pl.from_arrow(f.table.column(name)) for f in table.frames if not f.is_typed(name)]
    return any(column.str.contains(r"^\s*0\d").any() for column in columns)


def _notices(
    table: RowTable, names: tuple[str, ...], categories: frozenset[str], skipped: dict[str, str]
) -> tuple[str, ...]:
    numbers = [n for n in names if n not in categories]
    texts = [n for n in names if n in categories]
    found = f"features: {len(numbers)} of numbers" + (f" ({listed(numbers, SHOWN)})" if numbers else "")
    found += f", {len(texts)} of categories ({listed(texts, SHOWN)})" if texts else ""
    notices = [found]
    zeros = [n for n in numbers if _has_leading_zeros(table, n)]
    if zeros:
        notices.append(f"numbers that begin with a zero: {listed(zeros)}; add codes such as postcodes to categorical")
    if skipped:
        notices.append("no features: " + listed([f"{name or repr(name)} ({why})" for name, why in skipped.items()], 20))
    return tuple(notices)


def read_features(table: RowTable, roles: Roles) -> tuple[Column, ...]:
    """Read the columns of features.

    Raises:
        DataError: naming the place of a value that cannot be used.
    """
    columns = []
    for name in roles.features:
        if name in roles.categorical:
            columns.append(Column(name, None, *table.codes(name)))
        else:
            columns.append(Column(name, table.numbers(name, "features")))
    return tuple(columns)
