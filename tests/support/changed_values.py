"""JSON values with one value changed, for readers that must take or name whatever a file holds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
DROPPED = object()
VALUES = (
    DROPPED, None, True, -1, 0, 1.5, 1e308, 10**30, 10**400, "a text", "nan", "inf", "\ud800", [], {}, ["x"], [None],
    {"a": "b"}, {"mean": None}, DEEP,
)  # fmt: skip
Keys = tuple[str | int, ...]


def keys_of(value: Any, before: Keys = ()) -> Iterator[Keys]:
    """Yield the keys that lead to every value inside; of a list, to its first."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*before, key)
        yield from keys_of(item, (*before, key))


def changed(value: Any, keys: Keys, new: object) -> Any:
    """Return a copy with another value at some keys, or without the key."""
    made = copy.deepcopy(value)
    parts = made
    for key in keys[:-1]:
        parts = parts[key]
    if new is DROPPED:
        del parts[keys[-1]]
    else:
        parts[keys[-1]] = new
    return made
