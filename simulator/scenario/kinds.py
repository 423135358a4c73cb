"""Maps the sections of a scenario to tables of kinds, and tells pydantic how to read a kind."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union

from pydantic import Field, GetCoreSchemaHandler

from clients.core.errors import ScenarioError, unknown_name
from clients.core.rows import Table


@dataclass(frozen=True, eq=False)
class OneOf:
    """An annotation: the value is the options of one of a table's kinds, selected by `kind`."""

    table: Table[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """Return the schema of the union of the table's options."""
        options = self.table.options
        if len(options) == 1:
            return handler.generate_schema(options[0])
        return handler.generate_schema(Annotated[Union[options], Field(discriminator="kind")])  # noqa: UP007


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


def tables(scenario: type, *, named: bool) -> dict[str, Table[Any]]:
    """Return the table of each section that holds a kind; with `named`, of each section of named tables."""
    hints = typing.get_type_hints(scenario, include_extras=True)
    found = {section: [part for part in parts(hint) if isinstance(part, OneOf)] for section, hint in hints.items()}
    return {
        section: annotations[0].table
        for section, annotations in found.items()
        if annotations and (typing.get_origin(hints[section]) is dict) == named
    }


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
    if given["kind"] not in kinds:
        raise ScenarioError(f"{section}.kind", unknown_name(given["kind"], kinds, kinds.what))
