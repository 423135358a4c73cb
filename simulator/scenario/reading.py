"""Makes the dataclasses of a scenario from tables: every key is read by its type hint, and mistakes are collected."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from clients.core.errors import UserError
from clients.core.numbers.bounds import problem_with
from simulator.scenario.kinds import classes_of, hints_of, is_named, table_in
from simulator.scenario.mistakes import (
    Mistake,
    first_of,
    missing,
    no_section,
    out_of_range,
    refused,
    unknown_key,
    wrong_type,
)
from simulator.scenario.plain import plain
from simulator.scenario.values import Mismatch, alternatives, read

T = TypeVar("T")


def read_table(root: type[T], table: Mapping[str, Any], source: str) -> T:
    """Return the scenario that a table describes.

    Args:
        root: the class of scenarios.
        table: plain values; kinds are checked already (`check_kinds`).
        source: where the table comes from, for messages.

    Raises:
        ScenarioError: the first mistake, with the number of others.
    """
    reader = Reader(root, source)
    made: T | None = reader.options(root, table, "")
    if reader.mistakes:
        raise first_of(reader.mistakes, source)
    assert made is not None
    return made


class Reader:
    """Reads tables and options, and collects mistakes.

    Args:
        root: the class of scenarios.
        source: where the values come from, for messages.
    """

    def __init__(self, root: type, source: str) -> None:
        self._root, self._source = root, source
        self.mistakes: list[Mistake] = []

    def options(self, cls: type[T], table: Mapping[str, Any], path: str, kinds: Any = None) -> T | None:
        """Return the options that a table describes; None after a mistake."""
        before, hints = len(self.mistakes), hints_of(cls)
        for key in table:
            if key not in hints:
                known, kind = list(hints), table.get("kind")
                self.mistakes.append(unknown_key(_join(path, str(key)), self._root, known, kinds, kind))
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # every class here is a dataclass
            needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if needed and field.name not in table:
                self.mistakes.append(missing(_join(path, field.name), self._source))
        values = {key: self.value(value, hints[key], _join(path, key)) for key, value in table.items() if key in hints}
        if len(self.mistakes) > before:
            return None
        try:
            made = cls(**values)
        except UserError as error:
            self.mistakes.append(refused(path, error))
            return None
        self._refuse_nan(values, path, hints)
        return made

    def _refuse_nan(self, values: Mapping[str, Any], path: str, hints: Mapping[str, Any]) -> None:
        """Refuse nan where the options did not: it passes a check that compares, because every comparison is false."""
        for key, value in values.items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, float) and math.isnan(number) for number in numbers):
                self.mistakes.append(wrong_type(_join(path, key), value, hints[key]))

    def value(self, value: Any, hint: Any, path: str) -> Any:
        """Return the value of a key or a section."""
        classes = classes_of(hint)
        if not classes:
            try:
                found = read(value, hint)
            except Mismatch:
                problem = problem_with(value, hint) if isinstance(value, int | list) else ""
                self.mistakes.append(out_of_range(path, problem) if problem else wrong_type(path, value, hint))
                return None
            if problem := problem_with(found, hint):
                self.mistakes.append(out_of_range(path, problem))
            return found
        if value is None and type(None) in alternatives(hint):
            return None
        if is_named(hint) and isinstance(value, Mapping):
            inner = typing.get_args(hint)[1]
            return {name: self.value(table, inner, _join(path, str(name))) for name, table in value.items()}
        if dataclasses.is_dataclass(value) and isinstance(value, tuple(classes)):
            return self.checked(value, path)
        if not isinstance(value, Mapping):
            self.mistakes.append(no_section(path, value, hint))
            return None
        kinds = table_in(hint)
        cls = kinds[value["kind"]].options if kinds is not None else classes[0]
        return self.options(cls, value, path, kinds)

    def checked(self, options: Any, path: str) -> Any:
        """Return options made in Python with every value read as from a table; the same object if nothing changes."""
        changed = {}
        for key, hint in hints_of(type(options)).items():
            given = getattr(options, key)
            is_section = bool(classes_of(hint))
            found = self.value(given if is_section else plain(given, path), hint, _join(path, key))
            if found is not given and (type(found) is not type(given) or found != given):
                changed[key] = found
        self._refuse_nan(vars(options), path, hints_of(type(options)))
        if not changed or self.mistakes:
            return options
        return dataclasses.replace(options, **changed)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
