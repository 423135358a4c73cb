"""A table from one or more files: columns as numbers and as text, and the place of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import F64, I64
from clients.core.errors import DataError, unknown_name
from clients.tables.text.csv_files import Source
from clients.tables.text.dialect import USUAL_MISSING, Dialect
from clients.tables.text.numerals import Numerals, Parsed, find_decimal, thousand_points, to_numbers


@dataclass(frozen=True)
class Frame:
    """A table whose rows come from one file, or from several of the same columns, one after the other.

    Attributes:
        table: a `pyarrow.Table` with distinct column names; of a CSV all columns are text, null where a cell is empty.
        sources: the files and their rows.
        dialect: how a CSV is written, as found; None for other files.
        named: of a CSV, the same columns with null for every unquoted text that marks a missing value; None where
            `table` has the same.
        quoted: whether cells of a CSV may hold the separator.
        remarks: what was changed while the file was read.
        given: how numbers and missing values in the text of other files are written, as far as it is known.
    """

    table: Any
    sources: tuple[Source, ...]
    dialect: Dialect | None = None
    named: Any = None
    quoted: bool = True
    remarks: tuple[str, ...] = ()
    given: Dialect = field(default_factory=Dialect)
    _parsed: dict[str, Parsed] = field(default_factory=dict, repr=False, compare=False)

    @property
    def file(self) -> Path:
        """The first file."""
        return self.sources[0].file

    @cached_property
    def names(self) -> list[str]:
        """Column names."""
        return list(self.table.column_names)

    @cached_property
    def starts(self) -> I64:
        """The row at which each file starts, and the number of rows, int64 (files + 1,)."""
        return np.concatenate(([0], np.cumsum([s.rows for s in self.sources]))).astype(np.int64)

    @cached_property
    def numerals(self) -> Numerals:
        """How numbers are written; the decimal mark is found where it is not given."""
        dialect = self.dialect or self.given
        decimal, undecided = dialect.decimal, False
        if not decimal:
            decimal = "." if dialect.thousands == "," else ","
            if dialect.thousands not in (",", "."):
                decimal, undecided = find_decimal(self._text_columns(), dialect.thousands)
        return Numerals(decimal, dialect.thousands, dialect.missing, undecided)

    def place(self, row: int) -> str:
        """Describe the place of row `row` (from 0), for people."""
        which = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.sources[which].place(row - int(self.starts[which]))

    def require_columns(self, names: Sequence[str], field: str) -> None:
        """Refuse names that are not columns."""
        known = set(self.names)
        for name in names:
            if name not in known:
                raise DataError(field, f"{self.file}: {unknown_name(name, self.names, 'a column')}")

    def is_numeric(self, name: str) -> bool:
        """Return whether a column holds only numbers (or is empty)."""
        return self.parsed(name).first_bad < 0

    def is_time(self, name: str) -> bool:
        """Return whether a column was read as timestamps or dates."""
        import pyarrow as pa

        if name not in self._typed:
            return False

        kind = self.table.schema.field(name).type
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))

    @cached_property
    def _typed(self) -> frozenset[str]:
        import pyarrow as pa

        return frozenset(f.name for f in self.table.schema if not pa.types.is_string(f.type))

    def is_typed(self, name: str) -> bool:
        """Return whether the file itself says that a column is not text."""
        return name in self._typed

    def first_text(self, name: str) -> str | None:
        """Return the first text of a column of text that is not empty."""
        column = self.table.column(name)
        if column.null_count == len(column):
            return None
        if not column.null_count:
            return str(column[0].as_py())
        return str(column.drop_null()[0].as_py())

    def parse(self, names: Sequence[str]) -> None:
        """Read columns as numbers at once, which is faster than one by one."""
        import polars as pl

        new = [n for n in dict.fromkeys(names) if n not in self._parsed]
        if new:
            columns: Any = pl.from_arrow(self.table.select(new).rename_columns([str(i) for i in range(len(new))]))
            self._parsed.update(zip(new, to_numbers(columns, self.numerals), strict=True))

    def parsed(self, name: str) -> Parsed:
        """Return a column as numbers, with what is not a number."""
        self.parse([name])
        return self._parsed[name]

    def numbers(self, name: str, field: str) -> F64:
        """Return a column as float64, NaN where it is missing.

        Raises:
            DataError: it holds text, or an infinity; the first is named.
        """
        parsed = self.parsed(name)
        if parsed.first_bad >= 0:
            text = str(self.table.column(name)[parsed.first_bad].as_py())
            problem = f"{self.place(parsed.first_bad)}, column {name!r}: {text!r} is not a number"
            fix = self.numerals.hint(text.strip())
            if field == "features" and not parsed.numbers and not self.numerals.resembles(text.strip()):
                fix = "The column holds text alone: leave it out of features."
            raise DataError(field, problem, fix=fix)
        infinite = np.isinf(parsed.values)
        if infinite.any():
            row = int(np.flatnonzero(infinite)[0])
            raise DataError(field, f"{self.place(row)}, column {name!r}: {parsed.values[row]} is not finite")
        self._refuse_either(name, field, parsed)
        return parsed.values

    def _refuse_either(self, name: str, field: str, parsed: Parsed) -> None:
        """Refuse a column whose points may separate thousands; where commas separate columns they do not."""
        dialect = self.dialect or self.given
        known = dialect.decimal or dialect.thousands or dialect.delimiter == "," or self.numerals.decimal == ","
        if known or self.is_typed(name) or parsed.truth:
            return
        import polars as pl

        column: Any = pl.from_arrow(self.table.column(name))
        if text := thousand_points(column, parsed.values):
            place = self.place(int(column.str.strip_chars().index_of(text)))
            problem = f"{place}, column {name!r}: {text!r} may be {float(text):g} or {text.replace('.', '')}"
            raise DataError(field, f"{problem}; others have no point", fix="Set decimal = '.' or thousands = '.'.")

    def matrix(self, names: Sequence[str], field: str) -> F64:
        """Return columns as float64 (rows, columns); see `numbers`."""
        self.parse(names)
        return np.stack([self.numbers(name, field) for name in names], axis=1)

    def texts(self, name: str) -> list[str | None]:
        """Return a column as text, None where it is missing. A quoted "NA" is text."""
        names, codes = self.codes(name)
        lookup: list[str | None] = [*names, None]
        return [lookup[c] for c in codes.tolist()]

    def codes(self, name: str) -> tuple[list[str], I64]:
        """Return the distinct texts of a column, in order of first appearance, and each row's index, -1 where missing.

        Example:
            >>> import pyarrow as pa
            >>> from pathlib import Path
            >>> frame = Frame(pa.table({"id": ["b", None, "b", "NA"]}), (Source(Path("x.csv"), 4),), Dialect())
            >>> names, codes = frame.codes("id")
            >>> names, codes.tolist()
            (['b'], [0, -1, 0, -1])
        """
        import pyarrow as pa

        column = (self.table if self.named is None else self.named).column(name)
        if not pa.types.is_string(column.type):
            column = column.cast(pa.string())
        coded = column.combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.unify_dictionaries().combine_chunks()
        names: list[str] = coded.dictionary.to_pylist()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        if self.named is None:
            missing = set(self.given.missing if self.dialect is None else (*USUAL_MISSING, *self.dialect.missing))
            real = {n: i for i, n in enumerate(n for n in names if n not in missing)}
            if len(real) < len(names):
                return list(real), np.array([*(real.get(n, -1) for n in names), -1], np.int64)[codes]
        return names, codes

    def _text_columns(self) -> list[Any]:
        """Return the columns of text that hold a comma, which only quotes or another separator allow."""
        import polars as pl

        if self.dialect is not None and self.dialect.delimiter == "," and not self.quoted:
            return []
        columns: Any = pl.from_arrow(self.table.rename_columns([str(i) for i in range(len(self.names))]))
        return [c for c in columns.get_columns() if c.dtype == pl.String and c.str.contains(",", literal=True).any()]


def place_in(frames: Sequence[Frame], row: int) -> str:
    """Describe the place of a row of frames that follow each other."""
    ends = np.cumsum([f.table.num_rows for f in frames])
    which = int(np.searchsorted(ends, row, side="right"))
    return frames[which].place(row - (int(ends[which - 1]) if which else 0))
