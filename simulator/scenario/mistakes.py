"""Turns pydantic's errors into one sentence a mistake: key, value, what is allowed, nearest name."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from clients.core.errors import ScenarioError, UserError, unknown_name
from simulator.scenario.kinds import OneOf, parts, tables

PLAIN_NAMES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dataclass_type": "a section (a table of keys)",
    "finite_number": "a finite number",
}


def explain(error: ValidationError, source: str, root: type) -> ScenarioError:
    """Return the first mistake of a validation as a `ScenarioError`, with the number of others."""
    found = error.errors()
    first = min(found, key=lambda e: (_rank(e), len(e["loc"])))
    raised = _one(first, root)
    others = len({_path(e, root) for e in found}) - 1
    more = f" ({others} more after this one)" if others > 0 and first["type"] != "value_error" else ""
    return ScenarioError(raised.field, raised.problem + more, fix=raised.fix or f"In {source}.")


def _rank(error: Mapping[str, Any]) -> int:
    """Rank unknown keys first: they explain others."""
    return 0 if error["type"] in ("unexpected_keyword_argument", "extra_forbidden") else 1


def _one(error: Mapping[str, Any], root: type) -> UserError:
    path = _path(error, root)
    kind, got = error["type"], error.get("input")
    if kind == "value_error":
        inner = error["ctx"]["error"]
        if isinstance(inner, UserError):
            field = f"{path}.{inner.field}" if path else inner.field
            return UserError(_without_double(field), inner.problem, fix=inner.fix)
        return UserError(path, str(inner))
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        section, _, key = path.rpartition(".")
        return UserError(
            path,
            unknown_name(key, _keys(error, root), f"a key of {f'[{section}]' if section else 'a scenario'}"),
            fix=f"To remove a key of another kind: --set {path}=." if section in tables(root, named=False) else "",
        )
    if kind == "missing":
        return UserError(path, "is missing")
    if kind == "literal_error":
        return UserError(path, f"must be {error['ctx']['expected']}, got {got!r}")
    wanted = PLAIN_NAMES.get(kind)
    return UserError(path, f"must be {wanted}, got {got!r}" if wanted else f"{error['msg']}, got {got!r}")


def _without_double(field: str) -> str:
    """Drop a repeated level: an inner field that names its own table (schedule.schedule.every)."""
    parts = field.split(".")
    return ".".join(p for i, p in enumerate(parts) if i == 0 or p != parts[i - 1])


def _steps(error: Mapping[str, Any], root: type) -> tuple[list[str], type | None]:
    """Walk an error's location through the dataclasses, skipping tags of unions; return keys and the last class."""
    keys: list[str] = []
    classes: list[type] = [root]
    is_name = False
    for step in error["loc"]:
        if is_name:  # of a named table, such as [faults.NAME]: the user chose it
            keys.append(str(step))
            is_name = False
            continue
        named = {f.name: f for c in classes for f in dataclasses.fields(c)}
        tagged = [c for c in classes if step in (getattr(c, "kind", None), c.__name__)]
        if tagged:
            classes = tagged
        elif isinstance(step, int):
            keys.append(str(step))
        elif str(step) in named or classes:
            keys.append(str(step))
            owner = next((c for c in classes if str(step) in {f.name for f in dataclasses.fields(c)}), None)
            hint = typing.get_type_hints(owner, include_extras=True)[str(step)] if owner else None
            classes, is_name = _classes(hint), typing.get_origin(hint) is dict
    return keys, classes[0] if classes else None


def _classes(hint: Any) -> list[type]:
    """Return the dataclasses that a type hint allows."""
    found = [c for part in parts(hint) for c in (part.table.options if isinstance(part, OneOf) else [part])]
    return [c for c in found if isinstance(c, type) and dataclasses.is_dataclass(c)]


def _path(error: Mapping[str, Any], root: type) -> str:
    return ".".join(_steps(error, root)[0])


def _keys(error: Mapping[str, Any], root: type) -> list[str]:
    """Return the keys allowed where an unknown one was found."""
    _, owner = _steps({**error, "loc": error["loc"][:-1]}, root)
    return [f.name for f in dataclasses.fields(owner)] if owner is not None and dataclasses.is_dataclass(owner) else []
