"""The rows of files with the same columns: what a column holds, its numbers, its texts, and the place of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from clients.core.arrays import F64, I64, Array
from clients.core.errors import DataError, PartitionError
from clients.tables.frame import Frame, place_in
from clients.tables.text.dialect import USUAL_MISSING
from clients.tables.text.formats import looks_like_time
from clients.tables.text.times import is_time_name

Kind = Literal["number", "truth", "text", "time", "empty", "nested"]
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
        return place_in(self.frames, row)

    def is_nested(self, name: str) -> bool:
        """Return whether a column of Parquet holds lists or records."""
        import pyarrow as pa

        return any(pa.types.is_nested(f.table.schema.field(name).type) for f in self.frames)

    def kind(self, name: str) -> Kind:
        """Return what a column holds."""
        import pyarrow as pa

        if self.is_nested(name):
            return "nested"
        if all(pa.types.is_boolean(f.table.schema.field(name).type) for f in self.frames):
            return "truth"
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


def _are_texts(table: RowTable, name: str) -> bool:
    """Return whether numbers of a text file are names: 007 and 7 are two, so some begin with a zero."""
    return any(len(t) > 1 and t[0] == "0" for t in map(str.strip, table.codes(name)[1]))


def partition_key(table: RowTable, name: str) -> Array:
    """Return the key of a natural partition: a column of text or of whole numbers.

    Raises:
        PartitionError: it is neither, or has an empty row.
        DataError: it holds an infinite number.
    """
    if table.kind(name) in ("number", "time") and all(f.is_numeric(name) for f in table.frames):
        values = table.numbers(name, "partition.key")
        whole = bool((values == np.rint(values)).all())
        if whole and not _are_texts(table, name):
            return values.astype(np.int64)
        if not whole and not np.isnan(values).any():
            raise PartitionError("key", f"names {name!r}, which holds numbers that are not whole")
    codes, texts = table.codes(name)
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise PartitionError("key", f"{table.place(row)}: column {name!r} is empty, and it names the client")
    return np.asarray(texts)[codes]
