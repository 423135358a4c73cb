"""The course of a loss: its level and noise at the end, what it gained, and how it moves; robust against outliers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from clients.core.arrays import F64, I64
from server.convergence.facts import NO_AGGREGATE
from server.convergence.noise import direction
from server.verdicts.thresholds import BLOCKS, CLEAR, FEWEST, ROUNDING, TAIL

Line = Mapping[str, Any]
_SIGMA = 1.4826
"""Standard deviations of normal values in one median absolute deviation."""
_MEDIAN = 1.2533
"""Standard error of a median over that of a mean, of normal values."""


@dataclass(frozen=True)
class Motion:
    """How a stretch of values moves.

    Attributes:
        change: from its first to its last block, by Theil and Sen's line through the medians of blocks; negative
            where it falls.
        error: standard error of `change`.
        direction: 1 where the medians rise, -1 where they fall, 0 where they only vary (Mann and Kendall's test).
    """

    change: float
    error: float
    direction: int

    @property
    def falls(self) -> bool:
        """Whether the fall is clear."""
        return self.direction < 0 and -self.change > CLEAR * self.error

    @property
    def rises(self) -> bool:
        """Whether the rise is clear."""
        return self.direction > 0 and self.change > CLEAR * self.error


@dataclass(frozen=True)
class Course:
    """The finite values of a measure that is better the lower it is.

    Attributes:
        name: the fact.
        rounds: int64 [n], the rounds that measured it, in order.
        values: float64 [n].
    """

    name: str
    rounds: I64
    values: F64

    def __len__(self) -> int:
        return len(self.values)

    def since(self, index: int) -> Course:
        """Return the course from a place on."""
        return Course(self.name, self.rounds[index:], self.values[index:])

    @cached_property
    def tail(self) -> F64:
        """The newest third, at least `FEWEST` values."""
        return self.values[-max(FEWEST, len(self) // TAIL) :]

    @cached_property
    def level(self) -> float:
        """Where it is: the median of the newest quarter of the tail, three values or more."""
        return float(np.median(self.tail[-max(3, len(self.tail) // 4) :]))

    @cached_property
    def smooth(self) -> F64:
        """Running medians of five values, three in a short record; as long as the values."""
        return running_median(self.values, 5 if len(self) >= 20 else 3)

    @cached_property
    def best(self) -> int:
        """The place of the lowest running median: one lucky value is no best."""
        return int(np.argmin(self.smooth))

    @cached_property
    def gained(self) -> float:
        """How far the lowest running median lies below the first value; at least 0."""
        return max(float(self.values[0] - self.smooth[self.best]), 0.0)

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the tail around its own line, from median absolute deviations."""
        return scatter(self.tail)

    @cached_property
    def motion(self) -> Motion:
        """How the tail moves."""
        return motion_of(self.tail)

    @cached_property
    def rounding(self) -> float:
        """Differences that rounding makes."""
        return ROUNDING * max(abs(float(self.values[0])), abs(self.level), 1e-300)


def course_of(lines: Sequence[Line], name: str, *, sign: float = 1.0) -> Course:
    """Return the course of a fact: its finite values, times `sign`; rounds without an aggregate do not count."""
    found = [
        (line["round"], value)
        for line in lines
        if not line.get(NO_AGGREGATE) and (value := line.get(name)) is not None and math.isfinite(value)
    ]
    rounds = np.array([r for r, _ in found], np.int64)
    return Course(name, rounds, sign * np.array([v for _, v in found], np.float64))


def running_median(values: F64, width: int) -> F64:
    """Return centred running medians, of fewer values at the ends.

    Example:
        >>> running_median(np.array([5.0, 1.0, 4.0, 9.0, 3.0]), 3).tolist()
        [3.0, 4.0, 4.0, 4.0, 6.0]
    """
    half = width // 2
    if len(values) < width:
        return np.full(len(values), float(np.median(values))) if len(values) else values
    middle = np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)
    first = [float(np.median(values[: i + half + 1])) for i in range(half)]
    last = [float(np.median(values[len(values) - half - 1 - i :])) for i in reversed(range(half))]
    return np.concatenate([first, middle, last])


def block_medians(values: F64) -> F64:
    """Return the medians of `BLOCKS` stretches of about equal length; the values where there are not more."""
    if len(values) <= BLOCKS:
        return values
    return np.array([np.median(block) for block in np.array_split(values, BLOCKS)])


def slope_of(values: F64) -> float:
    """Return Theil and Sen's slope, the median of the slopes between all pairs of a few values.

    Example:
        >>> slope_of(np.array([0.0, 1.0, 2.0, 3.0, 90.0]))
        1.0
    """
    i, j = np.triu_indices(len(values), 1)
    return float(np.median((values[j] - values[i]) / (j - i))) if len(i) else 0.0


def scatter(values: F64) -> float:
    """Return the standard deviation around the line through the medians of blocks, from absolute deviations."""
    if len(values) < 3:
        return 0.0
    blocks = block_medians(values)
    slope = slope_of(blocks) * len(blocks) / len(values)
    rest = values - slope * np.arange(len(values))
    return _SIGMA * float(np.median(np.abs(rest - np.median(rest))))


def motion_of(values: F64) -> Motion:
    """Return how a stretch of values moves.

    The standard error is the larger of two: that of white noise of the values' own scatter, and that of the medians'
    scatter around their line, which correlated noise makes larger.
    """
    blocks = block_medians(values)
    count = len(blocks)
    if count < 2:
        return Motion(0.0, 0.0, 0)
    slope, middle = slope_of(blocks), np.arange(count) - 0.5 * (count - 1)
    rest = blocks - slope * middle
    rest -= np.median(rest)
    among = _SIGMA * float(np.median(np.abs(rest)))
    white = _MEDIAN * scatter(values) / math.sqrt(max(len(values) / count, 1.0))
    error = max(among, white) / math.sqrt(float(middle.dot(middle))) * (count - 1)
    return Motion(slope * (count - 1), error, direction(blocks.tolist()))
