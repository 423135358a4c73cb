"""Factors of a study: lists and ranges of values, crossed or taken together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from clients.core.errors import ScenarioError, unknown_name
from simulator.scenario.kinds import hints_of
from simulator.scenario.plain import plain
from simulator.scenario.sections import Scenario
from simulator.scenario.values import shown

RANGE = ("from", "to", "steps", "scale")
SCALES = ("linear", "log")
MOST_VALUES = 10_000
REMOVED = ""
"""The value that removes a key, as `--set key=` does."""


def flattened(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a table with dots: `local.local_lr = 0.1` without quotes is a table in TOML.

    None from Python becomes the empty text, which removes a key in a study file.

    Example:
        >>> flattened({"local": {"local_lr": 0.1}, "run.rounds": 5})
        {'local.local_lr': 0.1, 'run.rounds': 5}
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key in hints_of(Scenario) and isinstance(value, Mapping) and not _is_range(value):
            found |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            found[key] = value
    return {key: REMOVED if value is None else value for key, value in found.items()}


def factor_values(table: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the values of each factor.

    Args:
        table: [factors] without `zip`: a list of values by key, or a range `{from, to, steps, scale}`.

    Raises:
        ScenarioError: a factor has no values, the same one twice, or a range that is not valid.

    Example:
        >>> factor_values({"local.local_lr": {"from": 0.01, "to": 1, "steps": 3, "scale": "log"}})
        {'local.local_lr': (0.01, 0.1, 1.0)}
    """
    found: dict[str, tuple[Any, ...]] = {}
    for key, given in flattened(table).items():
        value, path = plain(given, f"factors.{key}"), f"factors.{key}"
        if _is_range(value):
            found[key] = _range(value, path)
            continue
        if not isinstance(value, list) or not value:
            fix = "One value for every arm belongs to [set]. A range is { from = 0.01, to = 1, steps = 5 }."
            raise ScenarioError(path, f"must be a list of values, got {shown(value)}", fix=fix)
        for i, item in enumerate(value):
            if any(item == other and type(item) is type(other) for other in value[:i]):
                raise ScenarioError(path, f"must have different values, got {shown(item)} twice")
        found[key] = tuple(REMOVED if item is None else item for item in value)
    return found


def combinations(factors: Mapping[str, Sequence[Any]], *, zipped: bool) -> list[dict[str, Any]]:
    """Return the values of each arm by key: every combination in order, the last factor fastest; or zipped.

    Example:
        >>> combinations({"a": [1, 2], "b": [3, 4]}, zipped=True)
        [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    """
    rows = zip(*factors.values(), strict=True) if zipped else itertools.product(*factors.values())
    return [dict(zip(factors, row, strict=True)) for row in rows]


def _is_range(value: Any) -> bool:
    return isinstance(value, Mapping) and "from" in value and "to" in value


def _range(table: Mapping[str, Any], path: str) -> tuple[Any, ...]:
    """Return the values of a range, both ends included; whole numbers where the ends and all steps are whole."""
    for key in table:
        if key not in RANGE:
            raise ScenarioError(f"{path}.{key}", unknown_name(key, RANGE, "a key of a range"))
    low, high = (_number(table[key], f"{path}.{key}") for key in ("from", "to"))
    steps, scale = table.get("steps"), table.get("scale", "linear")
    if not isinstance(steps, int) or isinstance(steps, bool) or not 2 <= steps <= MOST_VALUES:
        given = "is missing" if steps is None else f"must be a whole number from 2 to {MOST_VALUES}, got {shown(steps)}"
        raise ScenarioError(f"{path}.steps", given, fix="The number of values, both ends included.")
    if scale not in SCALES:
        raise ScenarioError(f"{path}.scale", unknown_name(scale, SCALES, "a scale"))
    if low == high:
        raise ScenarioError(f"{path}.to", f"must differ from from, got {shown(high)} for both")
    if scale == "log" and min(low, high) <= 0:
        raise ScenarioError(f"{path}.from", f"must be positive on a log scale, got {shown(min(low, high))}")
    shares = [i / (steps - 1) for i in range(steps)]
    if scale == "log":
        inner = [math.exp((1 - s) * math.log(low) + s * math.log(high)) for s in shares[1:-1]]
    else:
        inner = [(1 - s) * low + s * high for s in shares[1:-1]]
    values = [low, *(float(f"{value:.6g}") for value in inner), high]
    if isinstance(low, int) and isinstance(high, int) and all(float(value).is_integer() for value in values):
        return tuple(int(value) for value in values)
    return tuple(float(value) for value in values)


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ScenarioError(path, f"must be a number, got {shown(value)}")
    return value
