"""What the shell offers for a scenario and for `--set`, read from the built-in files without any heavy import."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

NAMED = ("faults", "drifts")
"""Sections whose tables have names of the user's choice, which nothing can offer."""


def scenario_names(incomplete: str) -> list[str]:
    """Return the built-in scenarios whose names begin as typed.

    Example:
        >>> scenario_names("quad")
        ['quadratic-scaffold', 'quadratic-two-clients']
    """
    names = (file.name.removesuffix(".toml") for file in _files())
    return sorted(name for name in names if name.startswith(incomplete))


def set_keys(incomplete: str) -> list[str]:
    """Return the keys of the built-in scenarios that begin as typed, each with its `=`.

    Example:
        >>> set_keys("algorithm.k")
        ['algorithm.kind=']
    """
    keys = {key for file in _files() for key in _keys(tomllib.loads(file.read_text("utf-8")))}
    return sorted(f"{key}=" for key in keys if key.startswith(incomplete))


def _files() -> list[Traversable]:
    folder = resources.files("simulator.scenario") / "builtin"
    return [file for file in folder.iterdir() if file.name.endswith(".toml")]


def _keys(table: Mapping[str, Any], section: str = "") -> Iterator[str]:
    for key, value in table.items():
        path = f"{section}{key}"
        if path in NAMED:
            continue
        if isinstance(value, Mapping):
            yield from _keys(value, f"{path}.")
        else:
            yield path
