"""Turns columns of text into numbers: decimal marks, thousands, markers of missing values. Nothing is dropped silently.

A column is read whole: polars casts the plain numbers, and only what is left is looked at closer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clients.core.arrays import F64
from clients.tables.text.dialect import USUAL_MISSING

_SPACES = {" ": "[ \u00a0\u202f]"}
_COMMA_DECIMAL = (
    r"^[+-]?((0|[1-9]\d*)?,(\d{1,2}|\d{4,})|[1-9]\d{3,},\d{3}|0?,\d{3})([eE][+-]?\d+)?$"
    r"|^[+-]?\d{1,3}(\.\d{3})+,\d+$"
)
_COMMA_EITHER = r"^[+-]?[1-9]\d{0,2},\d{3}$"
_TRUTH = {"true": 1.0, "True": 1.0, "TRUE": 1.0, "false": 0.0, "False": 0.0, "FALSE": 0.0}


@dataclass(frozen=True)
class Numerals:
    """How numbers are written.

    Attributes:
        decimal: "." or ",".
        thousands: separator of groups of three digits; empty for none.
        missing: texts that mark a missing value, besides the usual.
        asked: whether a text such as "1,234" may be a fraction or a thousand, since neither key is set.
    """

    decimal: str = "."
    thousands: str = ""
    missing: tuple[str, ...] = ()
    asked: bool = False

    def resembles(self, text: str) -> bool:
        """Return whether a text that is not a number would be one with another decimal mark or thousands."""
        return bool(self._other_marks(text))

    def hint(self, text: str) -> str:
        """Return how a text that is not a number could be read as one, or as a missing value."""
        return self._other_marks(text) or f"If {text!r} marks a missing value, set missing = [{text!r}]."

    def _other_marks(self, text: str) -> str:
        if self.asked and re.match(_COMMA_EITHER, text):
            whole, fraction = text.replace(",", ""), text.replace(",", ".")
            return f"It may be {fraction} or {whole}: set decimal = ',' or thousands = ','."
        for mark in (",", ".", " ", "'", "\u00a0", "\u202f"):
            if mark != self.thousands and re.match(rf"^[+-]?\d{{1,3}}({re.escape(mark)}\d{{3}})+([.,]\d+)?$", text):
                key = " " if mark in "\u00a0\u202f" else mark
                return f"If {key!r} separates thousands, set thousands = {key!r}."
        if self.decimal != "," and re.match(r"^[+-]?\d*,\d+$", text):
            return "If ',' is the decimal mark, set decimal = ','."
        if self.decimal == "," and re.match(r"^[+-]?\d*\.\d+$", text):
            return "The decimal mark is ','; set decimal if it is not."
        return ""


@dataclass(frozen=True)
class Parsed:
    """A column as numbers.

    Attributes:
        values: float64 (n,), NaN where it is missing or no number.
        first_bad: row of the first text that is neither a number nor a marker of a missing value, or -1.
        numbers: how many are numbers.
        bad: how many are neither.
        markers: how often each text marked a missing value; an empty cell counts as "".
        truth: whether it held only true and false, which are 1 and 0.
    """

    values: F64
    first_bad: int = -1
    numbers: int = 0
    bad: int = 0
    markers: dict[str, int] = field(default_factory=dict)
    truth: bool = False


def find_decimal(columns: Sequence[Any], thousands: str = "") -> tuple[str, bool]:
    """Return the decimal mark of columns of text, and whether a comma among digits stays open.

    A comma is the decimal mark where most texts of a column that are not plain numbers are certain to have one: "1,5",
    "0,125", "12345,678" or "1.234,5". "1,234" may be either, and decides nothing.

    Args:
        columns: `polars.Series` of text.
        thousands: what separates groups of three digits, and is left out.

    Example:
        >>> import polars as pl
        >>> find_decimal([pl.Series(["1,5", "1,234"])]), find_decimal([pl.Series(["1,234"])])
        ((',', False), ('.', True))
    """
    import polars as pl

    either = False
    for column in columns:
        texts = column.filter(column.str.contains(",", literal=True)).str.strip_chars()
        if not len(texts):
            continue
        if thousands:
            texts = texts.str.replace_all(_SPACES.get(thousands, re.escape(thousands)), "")
        certain = int(texts.str.contains(_COMMA_DECIMAL).sum())
        others = int(texts.str.contains(_COMMA_EITHER).sum())
        plain = column.filter(~column.str.contains(",", literal=True)).cast(pl.Float64, strict=False)
        words = int(plain.null_count())
        if certain and certain + others > words and (certain + others) * 2 > len(texts):
            return ",", False
        either |= others * 2 > len(texts)
    return ".", either


def thousand_points(texts: Any, values: F64) -> str:
    """Return a text such as "1.234" of a column whose points may separate thousands; empty where they do not.

    They may where every number with a point has three digits after it and one to three before, as 1.234 and 12.345,
    and every other is a whole number below 1000: counts that are written with separators look so. Fractions that are
    written with three digits have a point in all rows.

    Example:
        >>> import polars as pl
        >>> thousand_points(pl.Series(["987", "1.234"]), np.array([987, 1.234]))
        '1.234'
        >>> thousand_points(pl.Series(["2.500", "1.234"]), np.array([2.5, 1.234]))
        ''
    """
    known = values[~np.isnan(values)]
    broken = known[known != np.floor(known)]
    small = bool((np.abs(known) < 1000).all())
    if not len(broken) or not small or (np.abs(broken) < 1).any() or (known == np.floor(known)).sum() == 0:
        return ""
    texts = texts.filter(~np.isnan(values)).str.strip_chars()
    pointed = texts.str.contains(".", literal=True)
    if (
        pointed.all()
        or not pointed.any()
        or not texts.filter(pointed).str.contains(r"^[+-]?[1-9]\d{0,2}\.\d{3}$").all()
    ):
        return ""
    return str(texts.filter(pointed)[0])


def to_numbers(table: Any, numerals: Numerals) -> list[Parsed]:
    """Read columns as numbers.

    Args:
        table: a `polars.DataFrame` of text, numbers or truth values.
        numerals: how numbers are written.
    """
    import polars as pl

    if numerals.decimal == "." and not numerals.thousands:
        cast = table.select(pl.all().cast(pl.Float64, strict=False))
        left = np.array(cast.null_count().row(0)) - np.array(table.null_count().row(0))
        dirty = np.array(cast.select(pl.all().is_nan().any() | pl.all().is_infinite().any()).row(0), object) == True  # noqa: E712
    else:
        cast, left, dirty = table, np.ones(table.width), np.ones(table.width, np.bool_)
    numeric = {float(m) for m in numerals.missing if _is_number(m)}
    empty = table.null_count().row(0)
    parsed: list[Parsed] = []
    for i, column in enumerate(table.get_columns()):
        if column.dtype == pl.String and (left[i] or dirty[i]):
            parsed.append(_closer(column, numerals, numeric))
            continue
        if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean, pl.Null)):
            parsed.append(Parsed(np.full(len(column), np.nan), 0, bad=len(column)))
            continue
        values = np.array(cast.to_series(i).to_numpy(), np.float64)
        markers = {"": int(empty[i])} if empty[i] else {}
        if column.dtype.is_float() and (nan := int(np.isnan(values).sum()) - int(empty[i])):
            markers["NaN"] = nan
        parsed.append(_marked(values, markers, numeric))
    return parsed


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _marked(values: F64, markers: dict[str, int], numeric: set[float], bad: Any = None) -> Parsed:
    """Return a column whose values that mark missing ones are NaN."""
    for value in numeric:
        marks = values == value
        if marks.any():
            markers[f"{value:g}"] = markers.get(f"{value:g}", 0) + int(marks.sum())
            values[marks] = np.nan
    known = int((~np.isnan(values)).sum())
    first = int(np.flatnonzero(bad)[0]) if bad is not None and bad.any() else -1
    return Parsed(values, first, known, 0 if bad is None else int(bad.sum()), markers)


def _closer(column: Any, numerals: Numerals, numeric: set[float]) -> Parsed:
    """Read a column of text that holds more than plain numbers."""
    import polars as pl

    texts = column.str.strip_chars()
    wanted = [*USUAL_MISSING, *numerals.missing]
    is_missing = texts.is_in(wanted) | texts.is_null()
    found = texts.filter(is_missing).fill_null("").value_counts()
    markers = {str(k): int(n) for k, n in found.iter_rows()}
    texts = texts.set(is_missing, None)
    values = _plain(texts, numerals).cast(pl.Float64, strict=False)
    values = values.fill_nan(None)  # a spelling of NaN that is not listed is no number
    bad = (values.is_null() & ~is_missing).to_numpy()
    if bad.any() and bad.sum() == len(texts) - is_missing.sum():
        truth = texts.replace_strict(_TRUTH, default=None, return_dtype=pl.Float64)
        if truth.null_count() == is_missing.sum():
            known = int(len(truth) - truth.null_count())
            return Parsed(np.array(truth.to_numpy(), np.float64), -1, known, 0, markers, truth=True)
    return _marked(np.array(values.to_numpy(), np.float64), markers, numeric, bad)


def _plain(texts: Any, numerals: Numerals) -> Any:
    """Return texts with the decimal mark "." and no separators of thousands; null where a mark is misplaced."""
    mark, decimal = numerals.thousands, numerals.decimal
    if mark:
        one = _SPACES.get(mark, re.escape(mark))
        point = re.escape(decimal)
        grouped = texts.str.contains(rf"^[+-]?\d{{1,3}}({one}\d{{3}})+({point}\d*)?([eE][+-]?\d+)?$")
        has = texts.str.contains(one)
        texts = texts.set((has & ~grouped).fill_null(False), None)
        texts = texts.str.replace_all(one, "")
    if decimal == ",":
        if mark != ".":
            texts = texts.set(texts.str.contains(".", literal=True).fill_null(False), None)
        texts = texts.str.replace(",", ".", literal=True)
    return texts
