"""Reads the value of a `--set` as people type it in a shell, by the type of its key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

from simulator.scenario.kinds import classes_of, hints_of, table_in
from simulator.scenario.values import EXACT, NUMBERS, SHAPES, alternatives, fits

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
NOTHING = ("none", "null")
_PAIRS = {"[": "]", "(": ")", "{": "}"}


def interpret(text: str, hint: Any) -> Any:
    """Return the value that a text means for a key.

    TOML comes first. Then come lists and tables whose quotes the shell has removed, true and false in other words, and
    the text itself. The first reading that has the key's type is taken; without one, the value is left for the check
    of types, which names what is allowed.

    Args:
        text: what follows `=`.
        hint: the key's type; None if the key is not known.

    Returns:
        The value; None for "none" and "null" where the key may be unset.

    Example:
        >>> interpret("[TEMP, PRES]", tuple[str, ...]), interpret("64,32", tuple[int, ...]), interpret("2020", str)
        (['TEMP', 'PRES'], [64, 32], '2020')
    """
    text = text.strip()
    readings = list(_readings(text, hint))
    if hint is None:
        return readings[0]
    if classes_of(hint):
        return next((value for value in readings if isinstance(value, Mapping)), readings[0])
    for freedom in (EXACT, NUMBERS, SHAPES):
        for value in readings:
            if fits(value, hint, freedom):
                return value
    if text.lower() in NOTHING and type(None) in alternatives(hint):
        return None
    return readings[0]


def _readings(text: str, hint: Any) -> Iterator[Any]:
    """Yield what a text may mean, the most literal first."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # a number with too many digits is a plain ValueError
        table = {}
    if table.keys() == {"value"}:
        yield table["value"]
    if text[:1] in ("[", "(") and text[-1:] == _PAIRS[text[0]]:
        yield _list(text[1:-1], hint)
    if text[:1] == "{" and text[-1:] == "}" and (inner := _table(text[1:-1], hint)) is not None:
        yield inner
    if bool in alternatives(hint) and text.lower() in (*TRUE, *FALSE):
        yield text.lower() in TRUE
    if (number := _number(text)) is not None:
        yield number
    if "," in text and text[:1] not in _PAIRS:
        yield _list(text, hint)
    yield text


def _list(text: str, hint: Any) -> list[Any]:
    inner = _element(hint)
    return [interpret(_unquoted(part), inner) for part in split(text) if part.strip()]


def _table(text: str, hint: Any) -> dict[str, Any] | None:
    """Return a table such as `metric=validation_loss, patience=5`; None where a part has no value."""
    pairs = [part.partition("=" if "=" in part else ":") for part in split(text) if part.strip()]
    if not all(sign for _, sign, _ in pairs):
        return None
    texts = {_unquoted(key): value for key, _, value in pairs}
    hints = _hints(hint, texts.get("kind", ""))
    return {key: interpret(value, hints.get(key)) for key, value in texts.items()}


def _hints(hint: Any, kind: str) -> Mapping[str, Any]:
    """Return the types of a table's keys."""
    kinds, classes = table_in(hint), classes_of(hint)
    if kinds is not None and _unquoted(kind) in kinds:
        classes = [kinds[_unquoted(kind)].options]
    return hints_of(classes[0]) if classes else {}


def _element(hint: Any) -> Any:
    """Return the type of a list's elements, for a key that takes a list."""
    inner = [a for o in alternatives(hint) if get_origin(o) in (tuple, list) for a in get_args(o) if a is not Ellipsis]
    return Union[tuple(inner)] if inner else None  # noqa: UP007


def _number(text: str) -> float | None:
    """Return a number that Python reads and TOML does not, such as `.5`."""
    if not set(text) <= set("0123456789+-._eE"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def split(text: str) -> list[str]:
    """Split a text at the commas that are outside of brackets and quotes.

    Example:
        >>> split("a, [b, c], 'd, e'")
        ['a', ' [b, c]', " 'd, e'"]
    """
    parts, start, depth, quote = [], 0, 0, ""
    for index, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "[({":
            depth += 1
        elif sign in "])}":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]
