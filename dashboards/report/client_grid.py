"""The client grid: pictures of clients by rounds, small enough for a page."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.arrays import F64, I64, Bool
from clients.core.errors import RunFolderError
from server.record.client_table import part_files, read_part, rounds_of

METRICS = ("client_drift", "cosine", "train_loss", "update_norm")
FIXED = {"cosine": (-1.0, 1.0)}
MOST_ROWS = 400
FEWEST_CELLS = 20_000
"""A page of so many runs that each gets fewer cells draws no probes, no error surface and no forecasts."""
STEPS = 253
"""A drawn value is one of this many steps between the smallest and the largest, each a byte from 1 on."""
EMPTY, NOT_FINITE = 0, 255
LOG_FROM = 30.0
"""Values whose largest is this many times the smallest are drawn on a logarithmic scale."""


def client_grid(
    folder: Path, clients: int, *, cells: int = 120_000, metrics: Sequence[str] = METRICS
) -> dict[str, Any] | None:
    """Read a run's `clients/` folder into grids, part by part.

    Args:
        folder: the folder.
        clients: the number of clients; indices are below it.
        cells: the most cells of a grid. Clients or rounds that share a cell show their mean.
        metrics: columns to draw.

    Returns:
        `clients`, `rounds` (up to the last one written), `rows`, `columns` (row = client * rows // clients,
        column = (round - 1) * columns // rounds), `metrics`: name -> `low`, `high`, `log`, and `cells`, one byte a
        cell in base64, row by row (0: no client, 255: not finite, else a step of the scale). None where there are no
        client rows, or they cannot be read.
    """
    parts = _parts(folder)
    rounds = max((last for _, last, _ in parts), default=0)
    if clients < 1 or rounds < 1:
        return None
    rows = min(clients, MOST_ROWS, max(1, math.isqrt(cells)))
    columns = min(rounds, max(1, cells // rows))
    sums = {name: CellMeans(rows * columns) for name in metrics}
    any_rows = False
    for part in _read(path for _, _, path in parts):
        client, round_index = part["client"], part["round"]
        known = (client >= 0) & (client < clients) & (round_index >= 1) & (round_index <= rounds)
        if not known.all():
            part = {name: values[known] for name, values in part.items()}
            client, round_index = part["client"], part["round"]
        cell = client * rows // clients * columns + (round_index - 1) * columns // rounds
        for name in metrics:
            if name in part:
                sums[name].add(cell, part[name], part.get(f"{name} null"))
        any_rows = any_rows or len(client) > 0
    if not any_rows:
        return None
    drawn = {name: picture for name in metrics if (picture := sums[name].picture(FIXED.get(name))) is not None}
    shape = {"clients": clients, "rounds": rounds, "rows": rows, "columns": columns}
    return shape | {"metrics": drawn}


def grid_signature(folder: Path) -> tuple[tuple[str, int], ...]:
    """Return a value that changes whenever `client_grid` does: the parts and their sizes."""
    found = []
    for _, _, part in _parts(folder):
        with suppress(OSError):
            found.append((part.name, part.stat().st_size))
    return tuple(found)


class CellMeans:
    """Running means over cells, and their picture.

    Args:
        cells: the number of cells.
    """

    def __init__(self, cells: int) -> None:
        self.total, self.count, self.bad = np.zeros(cells), np.zeros(cells, np.int64), np.zeros(cells, bool)

    def add(self, cell: I64, values: F64, null: Bool | None) -> None:
        """Add values, each to its cell; those that are `null` were not measured."""
        if null is not None:
            cell, values = cell[~null], values[~null]
        finite = np.isfinite(values)
        if not finite.all():
            self.bad[cell[~finite]] = True
            cell, values = cell[finite], values[finite]
        self.total += np.bincount(cell, values, len(self.total))
        self.count += np.bincount(cell, minlength=len(self.total))

    def means(self) -> F64:
        """Return the means; nan where there is none."""
        out = np.full(len(self.total), np.nan)
        np.divide(self.total, self.count, out=out, where=self.count > 0)
        return out

    def picture(self, fixed: tuple[float, float] | None) -> dict[str, Any] | None:
        """Return the means as bytes on a scale."""
        means = self.means()
        known = means[np.isfinite(means)]
        if not len(known):
            return None
        low, high = fixed or (float(known.min()), float(known.max()))
        positive = known[known > 0]
        log = fixed is None and low >= 0 and len(positive) > 0 and high > LOG_FROM * float(positive.min())
        if log:
            low = float(positive.min())
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            part = (np.log(means / low) / math.log(high / low)) if log else (means - low) / ((high - low) or 1.0)
            step = 1 + np.rint(np.clip(np.nan_to_num(part, nan=0.0), 0.0, 1.0) * STEPS)
        code = np.where(np.isfinite(means), step, EMPTY)
        code[self.bad] = NOT_FINITE
        return {"low": low, "high": high, "log": log,
                "cells": base64.b64encode(code.astype(np.uint8).tobytes()).decode()}  # fmt: skip


def _parts(folder: Path) -> list[tuple[int, int, Path]]:
    """Return (first round, last round, file) of each part; of two with the same first round, the longer one."""
    longest: dict[int, tuple[int, int, Path]] = {}
    for part in part_files(folder):
        with suppress(RunFolderError):  # another name is not a part
            first, last = rounds_of(part)
            longest[first] = first, last, part
    return [longest[first] for first in sorted(longest)]


def _read(parts: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the parts as columns, `<name> null` beside those with gaps; skip a part that is damaged or gone."""
    for part in parts:
        try:
            table = read_part(part, ["round", "client", *METRICS])
        except RunFolderError:
            continue
        names = table.column_names
        kinds = {name: np.int64 if name in ("round", "client") else np.float64 for name in names}
        found = {name: table[name].to_numpy().astype(kind, copy=False) for name, kind in kinds.items()}
        yield found | {f"{n} null": table[n].is_null().to_numpy() for n in names if table[n].null_count}
