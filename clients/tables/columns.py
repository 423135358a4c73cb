"""Chooses the columns of a wide table that are sensors, and says what the others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clients.core.arrays import Bool
from clients.core.errors import DataError, unknown_name
from clients.tables.frame import Frame
from clients.tables.reading import Reading, counted, listed
from clients.tables.text.times import other_times

if TYPE_CHECKING:
    from clients.tables.options import TableOptions


_EVEN_STEPS = 10  # fewer even steps of a sensor may be chance


def sensors(options: TableOptions, frame: Frame, times: tuple[str, ...], reading: Reading) -> tuple[str, ...]:
    """Return the columns of sensors: those of the options, or all columns of numbers except times and a row count.

    Args:
        options: which to keep.
        frame: the first of the files.
        times: columns of the times.
        reading: gets what was skipped, and why.

    Raises:
        DataError: no column is left, or one that is chosen does not exist.
    """
    chosen = options.columns or options.clients
    field = "columns" if options.columns else "clients"
    if chosen:
        frame.require_columns(chosen, field)
    frame.require_columns(options.exclude, "exclude")
    if chosen:
        return tuple(c for c in chosen if c not in options.exclude)
    left = [n for n in frame.names if n not in times and n not in options.features and n not in options.exclude]
    also = set(other_times(frame, times))
    skipped: dict[str, str] = {n: "time" for n in left if n in also}
    left = [n for n in left if n not in also]
    frame.parse(left)
    for name in left:
        if why := _no_sensor(frame, name):
            skipped[name] = why
    if left and left[0] == frame.names[0] and left[0] not in skipped:
        if counts_rows(frame, left[0]):
            skipped[left[0]] = "counts rows"
        elif step := _even_step(frame, left[0]):
            skipped[left[0]] = f"counts in steps of {step:g}"
    found = [n for n in left if n not in skipped]
    reading.parts.append(counted(len(found), "column", "of numbers"))
    if skipped:
        reading.record["columns_skipped"] = ", ".join(skipped)
        reading.parts.append(f"{len(skipped):,} skipped ({_told(skipped)})")
    if not found:
        told = _told(skipped) or ", ".join(frame.names)
        raise DataError(
            "columns",
            f"{frame.file} has no column of numbers to forecast; it has {told}",
            fix="Check delimiter and decimal.",
        )
    return tuple(found)


def _told(skipped: dict[str, str]) -> str:
    return listed((f"{name or repr(name)}: {why}" for name, why in skipped.items()), "; ")


def _no_sensor(frame: Frame, name: str) -> str:
    """Return why a column is no sensor: its first text that is not a number; empty if it is one.

    A column of mostly numbers is one, and its first bad value will be refused.
    """
    parsed = frame.parsed(name)
    if parsed.first_bad < 0 or parsed.numbers >= parsed.bad:
        return ""
    text = str(frame.table.column(name)[parsed.first_bad].as_py())
    if not frame.is_typed(name) and frame.numerals.resembles(text.strip()):
        return ""
    place = frame.place(parsed.first_bad).rsplit(", ", 1)[1]
    return f"{text[:40]!r}, {place}"


def counts_rows(frame: Frame, name: str) -> bool:
    """Return whether a first column counts rows, from any number on; data frames are often saved with such an index."""
    values = frame.numbers(name, "columns")
    same: Bool = np.ones(max(len(values) - 1, 0), np.bool_)
    same[frame.starts[1:-1] - 1] = False  # a count starts again in every file
    steps = np.diff(values)[same]
    if len(values) <= 2 or not len(steps):
        return False
    return bool((steps == 1).all() or (not name and (steps >= 1).all() and (values == np.floor(values)).all()))


def _even_step(frame: Frame, name: str) -> float:
    """Return the step by which a first column grows from each row to the next, as elapsed seconds do, or 0."""
    values = frame.numbers(name, "columns")
    same: Bool = np.ones(max(len(values) - 1, 0), np.bool_)
    same[frame.starts[1:-1] - 1] = False
    steps = np.diff(values)[same]
    if len(steps) < _EVEN_STEPS or not steps[0] > 0:
        return 0.0
    return float(steps[0]) if np.allclose(steps, steps[0], rtol=1e-6, atol=1e-9 * float(np.abs(values).max())) else 0.0


def keep_clients(options: TableOptions, names: Sequence[str]) -> list[int]:
    """Return which clients are kept, in their order.

    Raises:
        DataError: a name of `clients` or `exclude` is not a client.
    """
    known = set(names)
    for field in ("clients", "exclude"):
        for name in getattr(options, field):
            if name not in known:
                raise DataError(field, unknown_name(name, names, "a client"))
    chosen, out = set(options.clients or names), set(options.exclude)
    kept = [i for i, name in enumerate(names) if name in chosen and name not in out]
    if not kept:
        raise DataError("exclude", "leaves no client")
    return kept
