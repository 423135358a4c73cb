"""The table of lessons, in the order in which they lead through the subject."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.lessons import classical, data, federated, fitting, games, networks, optimizers, rates
from simulator.lessons.lesson import Lesson

ROWS: tuple[Lesson, ...] = (
    *optimizers.ROWS,
    *rates.ROWS,
    *networks.ROWS,
    *fitting.ROWS,
    *classical.ROWS,
    *games.ROWS,
    *data.ROWS,
    *federated.ROWS,
)
LESSONS: Mapping[str, Lesson] = {row.name: row for row in ROWS}
"""Each lesson by its name."""
