"""Finds columns of numbers that can only be times: counts since 1970 and dates written as digits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from clients.core.arrays import F64, I64
from clients.tables.text.epochs import DIGITS, are_dates

if TYPE_CHECKING:
    from clients.tables.frame import Frame


def numbers_since_1970(frame: Frame, owners: I64 | None = None, *, regular: bool = False) -> list[str]:
    """Return columns of numbers since 1970: all lie between 2001 and 2033, and their name or their order tells so.

    Args:
        frame: the table.
        owners: each row's series; the order is that of its rows. None for one series.
        regular: whether most steps of a column without a name of times must be the same, since other times are known.
            A meter that counts does not advance so.
    """
    found: list[str] = []
    for name in frame.names:
        text = frame.first_text(name) or ""
        if not re.match(r"^1\d{9}(\d{3}|\d{6}|\d{9})?(\.\d+)?$", text):
            continue
        parsed = frame.parsed(name)
        known = parsed.values[~np.isnan(parsed.values)]
        scale = 10.0 ** (len(text.split(".")[0]) - 1)
        if parsed.first_bad >= 0 or not ((known >= scale) & (known < 2 * scale)).all():
            continue
        steps = _steps(parsed.values, owners)
        told = re.search("(time|stamp|epoch|date)$", name.lower()) is not None
        if told or (bool((steps > 0).all()) and (not regular or _is_regular(steps))):
            found.append(name)
    return found


def digits_of_dates(frame: Frame, owners: I64 | None = None) -> list[str]:
    """Return columns of whole numbers that are all dates such as 2024030105, and never go back within a series."""
    found: list[str] = []
    for name in frame.names:
        text = (frame.first_text(name) or "").strip()
        if len(text) not in DIGITS or not re.match(r"^(19|20)\d+$", text):
            continue
        parsed = frame.parsed(name)
        values = parsed.values
        if parsed.first_bad >= 0 or np.isnan(values).any() or (values != np.floor(values)).any():
            continue
        width = len(str(int(values.max())))
        steps = _steps(values, owners)
        if width == len(text) and len(steps) and (steps >= 0).all() and (steps > 0).any():
            found += [name] * are_dates(values, DIGITS[width])
    return found


def _steps(values: F64, owners: I64 | None) -> F64:
    """Return the steps from row to row within each series."""
    if owners is None:
        return np.diff(values)
    order = np.argsort(owners, kind="stable")
    inside = owners[order][1:] == owners[order][:-1]
    return np.diff(values[order])[inside]


def _is_regular(steps: F64) -> bool:
    if not len(steps):
        return False
    _, counts = np.unique(steps, return_counts=True)
    return bool(2 * counts.max() > len(steps))
