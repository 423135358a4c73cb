"""A run's rounds as columns: one value of each metric for each round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from clients.core.arrays import Array
from server.record.columns import Columns


def _flat(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of all values in a line."""
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _array(values: list[Any]) -> Array:
    """Return the narrowest array: int64, float64 with nan where missing, or objects with None where missing."""
    known = {type(value) for value in values}
    if known == {int}:
        return np.array(values, np.int64)
    if known <= {int, float, bool, type(None)}:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    objects = np.empty(len(values), object)
    objects[:] = values
    return objects


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
    def _flat_lines(self) -> list[dict[str, Any]]:
        return [dict(_flat(line)) for line in self.lines]

    @cached_property
    def columns(self) -> list[str]:
        """Names that at least one round has, in order of appearance; keys inside a mapping follow a dot."""
        return list(dict.fromkeys(name for line in self._flat_lines for name in line))

    def __len__(self) -> int:
        """Return the number of rounds, with round 0 where it was recorded."""
        return len(self.lines)

    def __getitem__(self, name: str) -> Array:
        """Return a column, one value for each round.

        Args:
            name: a metric, as in `columns`.

        Returns:
            int64 where every round has an integer; else float64, nan in rounds without it; objects for text and lists,
            None in rounds without it.

        Raises:
            UserError: no round has the metric.
        """
        self.check_column(name)
        return _array([line.get(name) for line in self._flat_lines])
