"""Shapes of JSON values: a shape is a function that raises `Misfit` for a value that readers cannot use.

A shape checks what readers rely on and nothing more: keys that it does not name may hold anything that is not nested
too deeply. So a record of another version of fedscape is readable, and a damaged one is refused with the key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Shape = Callable[[Any], None]
DEEPEST = 24
"""The deepest nesting of a value whose key no shape names. Records are nested four levels deep."""
LARGEST_WHOLE, LAST_ROUND = 2**53, 2**31 - 1


class Misfit(ValueError):
    """A value has not the shape that readers need.

    Args:
        wanted: what it must be.
        value: the value.
        missing: a key that the value lacks.

    Attributes:
        path: the keys that lead to the value, the outermost last.
    """

    def __init__(self, wanted: str, value: object, *, missing: str = "") -> None:
        super().__init__(wanted)
        self.wanted, self.value, self.missing = wanted, value, missing
        self.path: list[str] = []

    def __str__(self) -> str:
        """Return the problem as a clause."""
        where = ".".join(reversed(self.path))
        if self.missing:
            return f"{where} lacks {self.missing!r}".lstrip()
        return f"{where or 'it'} must be {self.wanted}, got {_kind(self.value)}"


def _kind(value: object) -> str:
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, str):
        return f"{value!r:.40}"
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__


def number(value: Any) -> None:
    """A number, also nan or infinite."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Misfit("a number", value)


def whole(value: Any) -> None:
    """A whole number of at least 0."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_WHOLE:
        raise Misfit("a whole number", value)


def round_index(value: Any) -> None:
    """The number of a round: client rows keep it in 32 bits."""
    whole(value)
    if value > LAST_ROUND:
        raise Misfit(f"a round up to {LAST_ROUND:,}", value)


def text(value: Any) -> None:
    """A text."""
    if not isinstance(value, str):
        raise Misfit("a text", value)


def flag(value: Any) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise Misfit("true or false", value)


def anything(value: Any) -> None:
    """Any value that is nested at most `DEEPEST` levels deep."""
    level = [value]
    for _ in range(DEEPEST):
        if not level:
            return
        level = [
            item
            for parts in level
            if isinstance(parts, dict | list)
            for item in (parts.values() if isinstance(parts, dict) else parts)
            if isinstance(item, dict | list)
        ]
    if level:
        raise Misfit(f"nested at most {DEEPEST} levels deep", value)


def maybe(shape: Shape) -> Shape:
    """Return the shape of a value that may be null."""

    def check(value: Any) -> None:
        if value is not None:
            shape(value)

    return check


def either(first: Shape, second: Shape) -> Shape:
    """Return the shape of a value that has one of two shapes; the problem is that of the second."""

    def check(value: Any) -> None:
        try:
            first(value)
        except Misfit:
            second(value)

    return check


def list_of(shape: Shape, *, least: int = 0) -> Shape:
    """Return the shape of a list with at least `least` values of a shape."""

    def check(value: Any) -> None:
        if not isinstance(value, list) or len(value) < least:
            raise Misfit(f"a list of at least {least} values" if least else "a list", value)
        for index, item in enumerate(value):
            _part(shape, item, str(index))

    return check


def table_of(shape: Shape) -> Shape:
    """Return the shape of a table whose values have a shape, by any name."""

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Misfit("a table", value)
        for name, item in value.items():
            _part(shape, item, name)

    return check


def table(needed: Mapping[str, Shape], known: Mapping[str, Shape] | None = None) -> Shape:
    """Return the shape of a table with some known keys; other keys may hold `anything`.

    Args:
        needed: keys that must be there.
        known: keys that may be there.

    Example:
        >>> try:
        ...     table({"round": whole}, {"drift": table_of(number)})({"round": 1, "drift": {"mean": "high"}})
        ... except Misfit as problem:
        ...     print(problem)
        drift.mean must be a number, got 'high'
    """
    shapes = {**(known or {}), **needed}

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise Misfit("a table", value)
        for name in needed:
            if name not in value:
                raise Misfit("a table", value, missing=name)
        for name, item in value.items():
            shape = shapes.get(name)
            if shape is not None:
                _part(shape, item, name)
            elif isinstance(item, dict | list):
                _part(anything, item, name)

    return check


def _part(shape: Shape, value: Any, name: str) -> None:
    try:
        shape(value)
    except Misfit as misfit:
        misfit.path.append(f"{name:.60}")
        raise
