"""The one clock of a generated world: hours since midnight of its first day, weekdays, season and the sun.

The sun's elevation a at hour h of day n of the year follows Duffie and Beckman (2013), "Solar engineering of thermal
processes", equations 1.6.1a and 1.6.5: sin a = sin(phi) sin(delta) + cos(phi) cos(delta) cos(15 degrees (h - 12)),
delta = 23.45 degrees sin(360 degrees (284 + n) / 365), taken at the hour of the local sun.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import numpy.typing as npt

from clients.core.arrays import F64, I64

LATITUDE = np.deg2rad(40.0)
YEAR_DAYS = 365.25


def weekday(start: str, hours: npt.ArrayLike) -> I64:
    """Return the day of the week (Monday is 0) at hours since midnight of the ISO date `start`.

    Example:
        >>> weekday("2026-01-05", [0.0, 23.9, 24.0, -1.0]).tolist()
        [0, 0, 1, 6]
    """
    days = np.floor(np.asarray(hours, np.float64) / 24.0).astype(np.int64)
    result: I64 = (date.fromisoformat(start).weekday() + days) % 7
    return result


def season(start: str, hours: npt.ArrayLike) -> F64:
    """Return the angle of the year in radians, rising with time: 0 at the first of January of the year of `start`."""
    first = date.fromisoformat(start).timetuple().tm_yday - 1
    result: F64 = 2.0 * np.pi * (first + np.asarray(hours, np.float64) / 24.0) / YEAR_DAYS
    return result


def daylight(start: str, hours: npt.ArrayLike) -> F64:
    """Return the sine of the sun's elevation, 0 at night: clear-sky sunshine relative to the sun overhead, in 0..1."""
    hours = np.asarray(hours, np.float64)
    declination = np.deg2rad(23.45) * np.sin(season(start, hours) + 2.0 * np.pi * 285.0 / YEAR_DAYS)
    noon = np.cos(2.0 * np.pi * (hours - 12.0) / 24.0)
    height = np.sin(LATITUDE) * np.sin(declination) + np.cos(LATITUDE) * np.cos(declination) * noon
    return np.asarray(np.maximum(height, 0.0))
