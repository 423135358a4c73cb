"""Time steps and times in text, for options and for people."""

from __future__ import annotations

import re

import numpy as np

from clients.core.errors import DataError

UNITS = {"ms": 10**3, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
"""Units of a step, in microseconds."""


def parse_frequency(text: str) -> int:
    """Return a frequency such as "5min", "1h", "30s" or "1d" in microseconds; 0 for an empty one.

    Raises:
        DataError: it is not a frequency.

    Example:
        >>> parse_frequency("5min") // 10**6
        300
    """
    if not text:
        return 0
    found = re.fullmatch(r"\s*(\d*)\s*(ms|s|min|h|d)\s*", text.lower())
    step = int(found[1] or 1) * UNITS[found[2]] if found else 0
    if step <= 0:
        raise DataError("frequency", f"must be a number and one of {', '.join(UNITS)}, such as '5min', got {text!r}")
    return step


def show_time(microseconds: int) -> str:
    """Format a time for people.

    Example:
        >>> show_time(parse_frequency("1h"))
        '1970-01-01 01:00:00'
    """
    stamp = np.datetime64(int(microseconds), "us")
    return str(stamp.astype("M8[s]") if microseconds % 10**6 == 0 else stamp).replace("T", " ")


def show_step(microseconds: int) -> str:
    """Format a time step in the largest unit that divides it.

    Example:
        >>> show_step(5400 * 10**6)
        '90min'
    """
    unit = next((u for u in ("d", "h", "min", "s", "ms") if microseconds % UNITS[u] == 0), "")
    return f"{microseconds // UNITS[unit]}{unit}" if unit else f"{microseconds}us"
