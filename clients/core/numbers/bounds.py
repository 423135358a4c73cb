"""The numbers that options may take, with the reason; an option without a range of its own has that of its type.

A range is an annotation of the option's type: `rounds: Annotated[int, Within(high=10**9, why="...")]`. Whoever reads
options checks it (`simulator.scenario.reading`), so that no number that is accepted ends in an overflow or takes the
machine's memory. What several options need together is foreseen in bytes (`simulator.engines.memory`).
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Within:
    """An annotation of a number: its range and the reason.

    Attributes:
        low: least value.
        high: largest value.
        smallest: least size of a number that is not 0.
        why: the reason, a clause.
        may_be_infinite: whether inf is a value of its own, such as a link without a limit.
    """

    low: float = -math.inf
    high: float = math.inf
    smallest: float = 0.0
    why: str = ""
    may_be_infinite: bool = False

    def allows(self, value: float) -> bool:
        """Return whether a number is in the range; nan never is."""
        if self.may_be_infinite and value == math.inf:
            return True
        return self.low <= value <= self.high and not math.isinf(value) and (value == 0 or abs(value) >= self.smallest)

    def limit_for(self, value: float) -> str:
        """Return the limit that a number breaks, in words.

        Example:
            >>> Within(high=10**6).limit_for(10**7), Within(smallest=1e-18).limit_for(1e-30)
            ('at most 1,000,000', '0, or at least 1e-18 in size')
        """
        if value > self.high:
            return f"at most {_shown(self.high)}"
        if value < self.low == -self.high:
            return f"at most {_shown(self.high)} in size"
        return f"at least {_shown(self.low)}" if value < self.low else f"0, or at least {self.smallest:g} in size"


def _shown(value: float) -> str:
    if not isinstance(value, int):
        return f"{value:g}"
    digits = int(value.bit_length() * 0.30103) + 1
    return f"{value:,}" if digits < 25 else f"a whole number of about {digits} digits"


WHOLE = Within(-(10**6), 10**6, why="options multiply, and a larger one takes too much memory or time")
"""The range of a whole number that has no range of its own."""
REAL = Within(-1e18, 1e18, smallest=1e-18, why="float32, the type of a run, must hold its square")
"""The range of a number that has no range of its own."""

_ROUNDS = Within(-(10**9), 10**9, why="no run is longer than a billion rounds")
_LIMIT = Within(-(10**18), 10**18, why="it is a limit, and nothing has so many")
_VALUE = Within(-1e100, 1e100, why="float64 must hold its square")

Rounds = Annotated[int, _ROUNDS]
"""A number of rounds: nothing is allocated for it."""
AtMost = Annotated[int, _LIMIT]
"""A limit on something that is counted anyway, such as the examples of a batch."""
Level = Annotated[float, _VALUE]
"""A number that is only compared, such as the threshold of a criterion."""
Name = Annotated[int, Within(-(2**63), 2**63 - 1, why="it is a name, an int64")]
"""A whole number that is a name."""


def problem_with(value: object, hint: Any) -> str:
    """Return what is wrong with the size of a value's numbers, as the end of a sentence; empty if nothing is.

    It passes nan, of which the options' own checks say what they need.

    Args:
        value: of an option: a number, a text, or lists of them.
        hint: the option's type.

    Example:
        >>> problem_with(10**9, int)
        'must be at most 1,000,000, got 1,000,000,000: options multiply, and a larger one takes too much memory \
or time'
        >>> problem_with((0.5, 2.0), tuple[float, ...])
        ''
    """
    ranges = dict(_ranges(hint))
    for number in _numbers(value):
        within = ranges.get(int if isinstance(number, int) and int in ranges else float)
        if within is not None and not within.allows(number) and number == number:
            return f"must be {within.limit_for(number)}, got {_shown(number)}: {within.why}"
    return ""


def _ranges(hint: Any, own: Within | None = None) -> Iterator[tuple[type, Within]]:
    """Yield the range of each type of number in a hint."""
    if hint is int or hint is float:
        yield hint, own or (WHOLE if hint is int else REAL)
    elif typing.get_origin(hint) is Annotated:
        inner, *notes = typing.get_args(hint)
        yield from _ranges(inner, next((note for note in notes if isinstance(note, Within)), own))
    else:
        for inner in typing.get_args(hint):
            yield from _ranges(inner, own)


def _numbers(value: object) -> Iterator[int | float]:
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
