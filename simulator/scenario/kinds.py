"""Maps the sections of a scenario to tables of kinds, and finds the dataclasses in a type hint."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from clients.core.errors import ScenarioError, unknown_name
from clients.core.rows import Table
from simulator.scenario.answers import VALUES


@dataclass(frozen=True, eq=False)
class OneOf:
    """An annotation: the value is the options of one of a table's kinds, selected by `kind`."""

    table: Table[Any]


def parts(hint: Any) -> list[Any]:
    """Return the classes and annotations in a type hint, including those of a dictionary's values."""
    if isinstance(hint, OneOf):
        return [hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return [found for annotation in arguments[1:] if isinstance(annotation, OneOf) for found in parts(annotation)]
    if origin in (typing.Union, types.UnionType):
        return [found for argument in arguments for found in parts(argument)]
    return parts(arguments[1]) if origin is dict else [hint]


def hints_of(cls: Any) -> Mapping[str, Any]:
    """Return the type hints of a dataclass's keys, in order; a field with the metadata `is_key: False` is no key."""
    return _hints_of(cls)


@cache
def _hints_of(cls: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.metadata.get("is_key", True)}


def classes_of(hint: Any) -> list[type]:
    """Return the dataclasses that a type hint allows, those of every kind."""
    found = [c for part in parts(hint) for c in (part.table.options if isinstance(part, OneOf) else [part])]
    return [c for c in found if isinstance(c, type) and dataclasses.is_dataclass(c)]


def table_in(hint: Any) -> Table[Any] | None:
    """Return the table of kinds in a type hint; None without one."""
    return next((part.table for part in parts(hint) if isinstance(part, OneOf)), None)


def is_named(hint: Any) -> bool:
    """Return whether a section holds tables with names chosen by the user, such as [faults.NAME]."""
    return typing.get_origin(hint) is dict and bool(classes_of(hint))


def tables(scenario: type, *, named: bool) -> dict[str, Table[Any]]:
    """Return the table of each section that holds a kind; with `named`, of each section of named tables."""
    found = {section: table_in(hint) for section, hint in hints_of(scenario).items() if is_named(hint) == named}
    return {section: table for section, table in found.items() if table is not None}


def check_kinds(table: Mapping[str, Any], scenario: type, source: str) -> None:
    """Refuse sections whose `kind` is missing or unknown.

    Raises:
        ScenarioError: the message names the section, what is allowed and the nearest name.
    """
    for section, kinds in tables(scenario, named=False).items():
        if isinstance(given := table.get(section), Mapping):
            _check_kind(section, given, kinds, source)
    for section, kinds in tables(scenario, named=True).items():
        given = table.get(section, {})
        if not isinstance(given, Mapping) or not all(isinstance(inner, Mapping) for inner in given.values()):
            raise ScenarioError(section, f"must hold named tables in {source}, such as [{section}.my_name]")
        for name, inner in given.items():
            _check_kind(f"{section}.{name}", inner, kinds, source)


def _check_kind(section: str, given: Mapping[str, Any], kinds: Table[Any], source: str) -> None:
    if "kind" not in given:
        raise ScenarioError(f"{section}.kind", f"is missing in {source}. All: {', '.join(kinds)}")
    kind = given["kind"]
    if kind not in kinds:
        fix = VALUES.get(f"{section}.kind", {}).get(kind.lower(), "") if isinstance(kind, str) else ""
        raise ScenarioError(f"{section}.kind", unknown_name(kind, kinds, kinds.what), fix=fix)
