"""Numbers, sizes and times in words for people."""

from __future__ import annotations

import math
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: object, digits: int = 3) -> str:
    """Return a number for people: some significant digits, a plain notation where that is short.

    Example:
        >>> [number(x) for x in (0.28449, 14.2, 2130.0, 2.1e7, 0.0, 3.2e-6, float("nan"), "inf")]
        ['0.284', '14.2', '2,130', '2.1e7', '0', '3.2e-6', 'nan', 'inf']
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(float(value))
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        short = float(f"{value:.{digits}g}")
        return f"{short:,.0f}" if abs(short) >= 10 ** (digits - 1) else f"{short:g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def rounded(value: object, digits: int) -> float | None:
    """Return a number with few significant digits, for data of a page; None for anything that is no finite number.

    Example:
        >>> rounded(1.23456789, 6), rounded(None, 6), rounded(float("inf"), 6)
        (1.23457, None, None)
    """
    return float(f"{value:.{digits}g}") if is_number(value) else None


def share(value: object, decimals: int = 3) -> str:
    """Return an accuracy with a fixed number of decimals, anything that is no finite number as `number` does.

    Example:
        >>> share(0.9), share(1, 2), share("nan")
        ('0.900', '1.00', 'nan')
    """
    return f"{value:.{decimals}f}" if is_number(value) else number(value)


def count(value: float, one: str, many: str | None = None) -> str:
    """Return how many, with the word that goes with it.

    Example:
        >>> count(1, "round"), count(1437, "example")
        ('1 round', '1,437 examples')
    """
    return f"{value:,.0f} {one if value == 1 else many or one + 's'}"


def data_size(size: float) -> str:
    """Return bytes in decimal units.

    Example:
        >>> data_size(29_300_000), data_size(512), data_size(1_500)
        ('29 MB', '512 B', '1.5 kB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.2g} {unit}" if size < 10 else f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def simulated(seconds: float) -> str:
    """Return simulated time in the unit that fits.

    Example:
        >>> simulated(840), simulated(45), simulated(3600 * 5)
        ('14 simulated minutes', '45 simulated seconds', '5 simulated hours')
    """
    for size, unit, limit in ((1, "second", 100), (60, "minute", 120), (3600, "hour", 72), (86400, "day", math.inf)):
        if seconds / size < limit:
            return count(round(seconds / size), f"simulated {unit}")
    return f"{seconds} simulated seconds"


def clock_time(seconds: float) -> str:
    """Return minutes and seconds, hours where there are some.

    Example:
        >>> clock_time(7.2), clock_time(3725)
        ('0:07', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
