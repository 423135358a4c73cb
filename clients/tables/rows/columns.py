"""Chooses and reads the columns of labelled rows: features, label, client and part, from one file or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from clients.core.arrays import F64, I64, Array
from clients.core.errors import DataError
from clients.tables.columns import counts_rows
from clients.tables.frame import Frame
from clients.tables.rows.encoding import Column, listed
from clients.tables.text.dialect import USUAL_MISSING
from clients.tables.text.formats import looks_like_time
from clients.tables.text.times import is_time_name

if TYPE_CHECKING:
    from clients.tables.options import TableOptions

Kind = Literal["number", "truth", "text", "time", "empty"]
_SECONDS = 1e8  # since 1970: a smaller number in a column called "time" is a duration


@dataclass(frozen=True)
class RowTable:
    """The rows of files with the same columns, one after the other.

    Attributes:
        frames: the files; a frame may hold several.
    """

    frames: tuple[Frame, ...]

    @cached_property
    def ends(self) -> I64:
        """The row after the last of each frame."""
        return np.cumsum([f.table.num_rows for f in self.frames])

    @property
    def file_rows(self) -> I64:
        """How many rows each file has."""
        return np.array([source.rows for f in self.frames for source in f.sources], np.int64)

    @property
    def names(self) -> list[str]:
        """Column names."""
        return self.frames[0].names

    @property
    def where(self) -> str:
        """The file, or the first and the number of the others, for messages."""
        others = len(self.file_rows) - 1
        return f"{self.frames[0].file}{f' and {others} more files' if others else ''}"

    def place(self, row: int) -> str:
        """Describe the place of a row, for people."""
        which = int(np.searchsorted(self.ends, row, side="right"))
        return self.frames[which].place(row - (int(self.ends[which - 1]) if which else 0))

    def kind(self, name: str) -> Kind:
        """Return what a column holds."""
        parsed = [f.parsed(name) for f in self.frames]
        if not any(p.numbers or p.bad for p in parsed):
            return "empty"
        if all(f.is_time(name) for f in self.frames):
            return "time"
        numbers = all(f.is_numeric(name) for f in self.frames)
        if not numbers:
            return "time" if all(looks_like_time(f.first_text(name)) for f in self.frames) else "text"
        seconds = is_time_name(name) and min(float(np.nanmin(p.values, initial=np.inf)) for p in parsed) >= _SECONDS
        return "truth" if all(p.truth for p in parsed) else "time" if seconds else "number"

    def numbers(self, name: str, field: str) -> F64:
        """Return a column as numbers, NaN where it is empty.

        Raises:
            DataError: naming the first value that is no number.
        """
        return np.concatenate([f.numbers(name, field) for f in self.frames])

    def codes(self, name: str) -> tuple[I64, tuple[str, ...]]:
        """Return a column as text: each row's position among the distinct values, -1 where empty, and the values.

        Spaces around a text are no part of it.
        """
        place: dict[str, int] = {}
        pieces = []
        for frame in self.frames:
            marks = {*USUAL_MISSING, *(frame.dialect.missing if frame.dialect else ())}
            names, codes = frame.codes(name)
            bare = [(n, n.strip()) for n in names]
            at = [-1 if n != b and b in marks else place.setdefault(b, len(place)) for n, b in bare]
            pieces.append(np.array([*at, -1], np.int64)[codes])
        values = sorted(place)
        rank = np.empty(len(values) + 1, np.int64)
        rank[[place[v] for v in values]] = np.arange(len(values))
        rank[-1] = -1
        return rank[np.concatenate(pieces)], tuple(values)


def row_table(frames: Sequence[Frame]) -> RowTable:
    """Join files.

    Raises:
        DataError: they differ in a column.
    """
    first = frames[0]
    for frame in frames[1:]:
        other = sorted(set(frame.names) ^ set(first.names))
        if other:
            problem = f"{frame.file} and {first.file} differ in column {other[0]!r}"
            raise DataError("path", problem, fix="Labelled rows need the same columns in all files.")
    return RowTable(tuple(frames))


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
    named = {"target": (options.target,), "id_column": (options.id_column,), "split_column": (options.split_column,)}
    named |= {"time": times, "features": options.features, "categorical": options.categorical}
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
    unnamed = [n for n in table.names if n not in skipped and n not in options.exclude]
    for frame in table.frames:
        frame.parse(options.features or unnamed)  # at once, which is faster
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
    categories = frozenset(n for n in names if n in options.categorical or _is_categories(table, n, options))
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
        if kind in ("time", "empty"):
            found[name] = "a time" if kind == "time" else "empty"
        elif i == 0 and kind == "number" and counts_rows(table.frames[0], name):
            found[name] = "counts the rows"
    return found


def _is_categories(table: RowTable, name: str, options: TableOptions) -> bool:
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


def _notices(
    table: RowTable, names: tuple[str, ...], categories: frozenset[str], skipped: dict[str, str]
) -> tuple[str, ...]:
    numbers = [n for n in names if n not in categories]
    texts = [n for n in names if n in categories]
    found = f"features: {len(numbers)} columns of numbers" + (f" ({listed(numbers)})" if numbers else "")
    found += f", {len(texts)} of categories ({listed(texts)})" if texts else ""
    notices = [found]
    if skipped:
        notices.append("no features: " + listed([f"{name} ({why})" for name, why in skipped.items()], 20))
    return tuple(notices)


def read_features(table: RowTable, roles: Roles) -> list[Column]:
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
    return columns


def partition_key(table: RowTable, name: str) -> Array:
    """Return the key of a natural partition: a column of text or of whole numbers.

    Raises:
        DataError: it is neither, or has an empty row.
    """
    if table.kind(name) in ("number", "time") and all(f.is_numeric(name) for f in table.frames):
        values = table.numbers(name, "key")
        if (values == np.rint(values)).all():
            return values.astype(np.int64)
    codes, texts = table.codes(name)
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise DataError("key", f"{table.place(row)}: column {name!r} is empty, and it names the client")
    return np.asarray(texts)[codes]
