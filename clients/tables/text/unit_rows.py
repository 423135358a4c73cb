"""Finds rows of units under a header, such as "TS", "degC", "%": they have no time and no number."""

from __future__ import annotations

import re

from clients.tables.text.dialect import USUAL_MISSING
from clients.tables.text.formats import looks_like_time

MOST_UNIT_ROWS = 3
"""The most rows of units that a file may begin with."""
_NUMBER = re.compile(r"^[+-]?[\d.,' ]*\d[\d.,]*(e[+-]?\d+)?$", re.I)


def count_unit_rows(rows: list[list[str | None]]) -> int:
    """Return how many of the first rows hold units: they have no time and no number where the row after them has both.

    Such a row could not be used in any case, since it has no time.

    Example:
        >>> count_unit_rows([["TS", "degC"], [None, "Avg"], ["2024-03-01 05:00", "3.5"], ["2024-03-01 06:00", "3.6"]])
        2
        >>> count_unit_rows([["n/a", "low"], ["2024-03-01", "high"]])
        0
    """
    data = next((i for i, row in enumerate(rows) if any(map(_is_value, row))), 0)
    if not 0 < data <= MOST_UNIT_ROWS or not any(map(looks_like_time, rows[data])):
        return 0
    for row in rows[:data]:
        units = [below for cell, below in zip(row, rows[data], strict=True) if cell and cell.strip()]
        numbers = sum(_is_value(below) or below in (None, *USUAL_MISSING) for below in units)
        if not units or 2 * numbers <= len(units):
            return 0
    return data


def _is_value(cell: str | None) -> bool:
    return cell is not None and (_NUMBER.match(cell.strip()) is not None or looks_like_time(cell))
