"""Names, titles and keys of the built-in scenarios, for lists and completion; plain TOML without a heavy import."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

NAMED = ("faults", "drifts")
"""Sections whose tables have names chosen by the user, which completion cannot know."""


def titles() -> dict[str, str]:
    """Return the title of every built-in scenario by its name, in alphabetical order."""
    return {name: table.get("title", "") for name, table in _tables()}


def scenario_names(incomplete: str) -> list[str]:
    """Return the built-in scenarios whose names begin as typed.

    Example:
        >>> scenario_names("quad")
        ['quadratic-newton', 'quadratic-scaffold', 'quadratic-two-clients']
    """
    return [name for name in titles() if name.startswith(incomplete)]


def set_keys(incomplete: str) -> list[str]:
    """Return the keys of the built-in scenarios that begin as typed, each with its `=`.

    Example:
        >>> set_keys("algorithm.k")
        ['algorithm.kind=']
    """
    keys = {key for _, table in _tables() for key in _keys(table)}
    return sorted(f"{key}=" for key in keys if key.startswith(incomplete))


def _tables() -> Iterator[tuple[str, dict[str, Any]]]:
    folder = resources.files("simulator.scenario") / "builtin"
    for file in sorted(folder.iterdir(), key=lambda file: file.name.removesuffix(".toml")):
        if file.name.endswith(".toml"):
            yield file.name.removesuffix(".toml"), tomllib.loads(file.read_text("utf-8"))


def _keys(table: Mapping[str, Any], section: str = "") -> Iterator[str]:
    for key, value in table.items():
        path = f"{section}{key}"
        if path in NAMED:
            continue
        if isinstance(value, Mapping):
            yield from _keys(value, f"{path}.")
        else:
            yield path
