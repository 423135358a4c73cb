"""Turns values from Python and TOML into plain ones, and options into tables."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from clients.core.errors import ScenarioError
from simulator.scenario.kinds import hints_of

DEEPEST = 20
"""The most tables and lists inside each other; a scenario needs four."""


def plain(value: Any, path: str = "", depth: int = 0) -> Any:
    """Return a value as text, numbers, true or false, None, lists and tables with text keys.

    NumPy's scalars and arrays become numbers and lists, paths and dates become text, and options become tables of
    the values that differ from their defaults. Other objects stay as they are, and no key takes them.

    Raises:
        ScenarioError: it is nested too deeply, or the key of a table is no text.
    """
    if depth > DEEPEST:
        raise ScenarioError(
            path.split(".")[0] or "scenario", f"has more than {DEEPEST} tables and lists inside each other"
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = given_values(value)
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ScenarioError(path or "scenario", f"must have texts as keys, got {wrong[0]!r:.60}")
        return {key: plain(inner, f"{path}.{key}".strip("."), depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, path, depth + 1) for inner in value]
    if isinstance(value, datetime.date | datetime.time):
        return str(value)
    if isinstance(value, PathLike):
        return str(fspath(value))
    found = _from_array(value)
    return found if found is value else plain(found, path, depth + 1)


def _from_array(value: Any) -> Any:
    """Return NumPy's scalars and arrays, and tensors, as numbers and lists."""
    tolist = getattr(value, "tolist", None)
    return tolist() if callable(tolist) and not isinstance(value, type) else value


def given_values(options: Any) -> dict[str, Any]:
    """Return the values of options that differ from the defaults, and the kind: as a user would write them."""
    values = {}
    for field in dataclasses.fields(options):
        if field.name not in hints_of(type(options)):
            continue
        value = _from_array(getattr(options, field.name))
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name == "kind" or default is dataclasses.MISSING or value != default:
            values[field.name] = value
    return values


def all_values(value: Any) -> Any:
    """Return options as a table with every default, without what is unset: for TOML."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all_values({key: getattr(value, key) for key in hints_of(type(value))})
    if isinstance(value, Mapping):
        return {key: all_values(inner) for key, inner in value.items() if inner is not None}
    return [all_values(inner) for inner in value] if isinstance(value, list | tuple) else value


def copied(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a table and of the tables in it."""
    return {key: copied(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def plain_table(section: Any, key: str) -> Any:
    """Return a table from Python with plain values; options, and tables of options, as they are."""
    if isinstance(section, Mapping) and not all(map(dataclasses.is_dataclass, section.values())):
        return plain(section, key)
    return section


def kind_of(section: Any) -> Any:
    """Return what `check_kinds` reads of a section: options have an attribute `kind`."""
    if isinstance(section, Mapping):
        return {name: kind_of(inner) for name, inner in section.items()}
    return {"kind": section.kind} if dataclasses.is_dataclass(section) and hasattr(section, "kind") else section
