"""A run's rounds as columns: one value of each metric for each round."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from clients.core.arrays import Array
from server.record.columns import Columns

_NUMBERS = frozenset({int, float, bool, type(None)})
_EXACT = 2**53  # whole numbers below are exact in float64


def _flat(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of all values in a line."""
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class _Column:
    """The values of one metric: numbers, 8 bytes each; of any other kind only that there are some."""

    def __init__(self) -> None:
        self.numbers = array("d")
        self.types: set[type] = set()

    def put(self, row: int, value: Any) -> None:
        """Add the value of a row; rows before it without one are missing."""
        self.types.add(type(value) if type(value) is not int or abs(value) < _EXACT else object)
        if type(value) in _NUMBERS:
            self.numbers.extend([math.nan] * (row - len(self.numbers)))
            self.numbers.append(math.nan if value is None else value)

    @property
    def is_numeric(self) -> bool:
        """Whether every value is a number or missing."""
        return self.types <= _NUMBERS

    def values(self, rows: int) -> Array:
        """Return int64 where every row has an integer, else float64 with nan where a row has none."""
        found = np.full(rows, np.nan)
        found[: len(self.numbers)] = self.numbers
        return found.astype(np.int64) if self.types == {int} and not np.isnan(found).any() else found


class RoundTable(Columns):
    """The lines of `rounds.jsonl`, read by column.

    Args:
        lines: one mapping for each round, in order, as from `read_rounds`.

    Example:
        >>> table = RoundTable([{"round": 0, "loss": 2.5}, {"round": 1, "client_drift": {"mean": 0.5}}])
        >>> table["loss"]
        array([2.5, nan])
        >>> table["client_drift.mean"]
        array([nan, 0.5])
        >>> table.columns
        ['round', 'loss', 'client_drift.mean']
    """

    example = "rounds['validation_loss']"
    what = "in any round of this run"

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self.lines = lines

    @cached_property
    def _columns(self) -> dict[str, _Column]:
        """All columns, gathered in one pass over the lines."""
        found: dict[str, _Column] = {}
        for row, line in enumerate(self.lines):
            for name, value in _flat(line):
                found.setdefault(name, _Column()).put(row, value)
        return found

    @cached_property
    def columns(self) -> list[str]:
        """Names that at least one round has, in order of appearance; keys inside a mapping follow a dot."""
        return list(self._columns)

    def __len__(self) -> int:
        """Return the number of rounds, with round 0 where it was recorded."""
        return len(self.lines)

    def __getitem__(self, name: str) -> Array:
        """Return a column, one value for each round.

        Args:
            name: a metric, as in `columns`.

        Returns:
            int64 where every round has an integer; else float64, nan in rounds without it; objects for text, lists
            and integers beyond int64, None in rounds without it.

        Raises:
            UserError: no round has the metric.
        """
        self.check_column(name)
        column = self._columns[name]
        if column.is_numeric:
            return column.values(len(self.lines))
        found = [dict(_flat(line)).get(name) for line in self.lines]
        whole = [value for value in found if type(value) is int]  # larger than float64 holds exactly
        if len(whole) == len(found) and all(-(2**63) <= value < 2**63 for value in whole):
            return np.array(whole, np.int64)
        objects = np.empty(len(found), object)
        objects[:] = found
        return objects
