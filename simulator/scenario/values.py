"""Reads one value of a scenario by its type hint, and describes values and types in plain words."""

from __future__ import annotations

import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from clients.core.errors import any_of

EXACT, NUMBERS, SHAPES = 0, 1, 2
"""How freely a value is read. EXACT: its type is right. NUMBERS: 64.0 is also a whole number, 1 also a number. SHAPES:
one value is also a list of one, and a list of one is also that value."""
LARGEST = 2**63
_SCALARS = (str, int, float, bool)


class Mismatch(Exception):
    """A value does not have the type that a key needs."""


def read(value: Any, hint: Any, freedom: int = SHAPES) -> Any:
    """Return a value as its type hint wants it: a list as a tuple, 64.0 as 64, 32 as (32,) where a list is meant.

    Args:
        value: from TOML or Python; plain types.
        hint: the type of a key that is no section.
        freedom: EXACT, NUMBERS or SHAPES. A union takes the first type that fits with the least freedom.

    Raises:
        Mismatch: the value does not fit.

    Example:
        >>> read(32, tuple[int, ...]), read([0.5], float), read(64.0, int)
        ((32,), 0.5, 64)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return read(value, arguments[0], freedom)
    if origin in (typing.Union, types.UnionType):
        return _first_fit(value, arguments, freedom)
    if origin in (tuple, list):
        return _read_list(value, origin, arguments, freedom)
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise Mismatch
        return {key: read(inner, arguments[1], freedom) for key, inner in value.items()}
    if freedom == SHAPES and isinstance(value, list | tuple) and len(value) == 1:
        return _read_scalar(value[0], hint, NUMBERS)
    return _read_scalar(value, hint, freedom)


def fits(value: Any, hint: Any, freedom: int = SHAPES) -> bool:
    """Return whether a value can be read as a type hint wants it."""
    try:
        read(value, hint, freedom)
    except Mismatch:
        return False
    return True


def takes_list(hint: Any) -> bool:
    """Return whether a key's values are lists alone; one that also takes a single value is not."""
    options = [option for option in alternatives(hint) if option is not type(None)]
    return all(typing.get_origin(option) in (tuple, list) for option in options)


def alternatives(hint: Any) -> list[Any]:
    """Return the types in a union; a list of one for any other hint."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return alternatives(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return [option for argument in arguments for option in alternatives(argument)]
    return [hint]


def words(hint: Any, *, many: bool = False) -> str:
    """Describe what a type hint allows.

    Example:
        >>> words(int | None), words(tuple[float, ...]), words(Literal["any", "all", "never"])
        ('a whole number', 'a list of numbers', "'any', 'all' or 'never'")
    """
    options: list[Any] = []
    for option in alternatives(hint):
        if option is not type(None):
            options += list(typing.get_args(option)) if typing.get_origin(option) is Literal else [option]
    return any_of(list(dict.fromkeys(_word(option, many=many) for option in options)))


def shown(value: Any) -> str:
    """Return a value in a message: short, whatever its size and depth."""
    return _SHORT.repr(value)


def _first_fit(value: Any, options: tuple[Any, ...], freedom: int) -> Any:
    for allowed in range(freedom + 1):
        for option in options:
            try:
                return read(value, option, allowed)
            except Mismatch:
                continue
    raise Mismatch


def _read_list(value: Any, origin: type, arguments: tuple[Any, ...], freedom: int) -> Any:
    if freedom == SHAPES and isinstance(value, _SCALARS):
        value, freedom = [value], NUMBERS
    if not isinstance(value, list | tuple):
        raise Mismatch
    is_open = origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis)
    if not is_open and len(value) != len(arguments):
        raise Mismatch
    hints = [arguments[0]] * len(value) if is_open else list(arguments)
    return origin(read(inner, hint, min(freedom, NUMBERS)) for inner, hint in zip(value, hints, strict=True))


def _read_scalar(value: Any, hint: Any, freedom: int) -> Any:
    if typing.get_origin(hint) is Literal:
        whole = int(value) if freedom and isinstance(value, float) and value.is_integer() else value
        allowed = typing.get_args(hint)
        if any(type(whole) is type(option) and whole == option for option in allowed):
            return whole
        raise Mismatch
    if hint is Any or (hint is type(None) and value is None):
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    if hint in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, hint, freedom)
    raise Mismatch


def _number(value: float, hint: type, freedom: int) -> float:
    if type(value) is not hint and freedom == EXACT:
        raise Mismatch
    if hint is int:
        if (isinstance(value, float) and not value.is_integer()) or not -LARGEST <= value < LARGEST:
            raise Mismatch
        return int(value)
    try:
        return float(value)
    except OverflowError:
        raise Mismatch from None


def _word(option: Any, *, many: bool) -> str:
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if origin in (tuple, list):
        if origin is list or arguments[1:] == (Ellipsis,):
            return f"{'lists' if many else 'a list'} of {words(arguments[0], many=True)}"
        return f"a list of {len(arguments)} {words(arguments[0], many=True)}"
    if origin is dict:
        return "tables" if many else "a table of keys"
    singular, plural = _WORDS.get(option, (f"{option!r}", f"{option!r}"))
    return plural if many else singular


_WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
    Any: ("a value", "values"),
}


class _Short(reprlib.Repr):
    """Values as TOML writes them, cut after some characters, items and levels."""

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"

    def repr_NoneType(self, value: None, level: int) -> str:
        return "None"

    def repr_int(self, value: int, level: int) -> str:
        digits = int(value.bit_length() * 0.30103) + 1
        return repr(value) if digits < 25 else f"a whole number of about {digits} digits"

    def repr_tuple(self, value: Any, level: int) -> str:
        return self.repr_list(list(value), level)


_SHORT = _Short()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlist, _SHORT.maxdict = 4, 60, 60, 8, 4
