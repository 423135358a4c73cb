"""Writes small tables and reads them as series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clients.tables.layouts import read_series
from clients.tables.options import TableOptions
from clients.tables.reading import Reading
from clients.tables.series import Series


def written(folder: Path, text: str | bytes, name: str = "x.csv") -> Path:
    """Write a file, and return its path."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def series_of(path: Path, **options: Any) -> tuple[list[Series], Reading]:
    """Read the series of a table, and how they were read."""
    reading = Reading()
    return read_series(TableOptions(path=str(path), **{"gaps": "drop", **options}), reading), reading


def numbers(series: Series) -> list[float | None]:
    """Return the readings of the first channel, None where one is missing."""
    return [None if np.isnan(v) else v for v in series.values[:, 0].tolist()]


def hours(series: Series) -> list[str]:
    """Return the times to the minute."""
    assert series.time is not None
    return [str(t).replace("T", " ") for t in series.time.astype("M8[us]").astype("M8[m]")]
