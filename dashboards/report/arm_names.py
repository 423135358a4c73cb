"""Names the arms of a comparison in words: only what differs between their scenarios.

A kind is its value (`scaffold`), another key its last word and its value (`local_lr 0.05`), a fault or a drift the
name of its section in words (`stuck sensors` for `[faults.stuck_sensors]`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dashboards.report.formats import number

IGNORED = ("title", "name", "run.seed", "run.checkpoint_seconds", "run.checkpoint_rounds", "run.keep_parameters_every")
"""Keys of a scenario that do not distinguish arms."""
NAMED = ("faults", "drifts")
"""Sections of tables whose names the user has chosen."""
HOW = "engine."
"""Keys that say how numbers are computed: they name an arm only where nothing else does."""

Flat = Mapping[str, Any]


def flat_scenario(scenario: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the keys of a scenario with dots, without those in `IGNORED`.

    Args:
        scenario: its tables, as read from TOML.
        prefix: put before each key.

    Example:
        >>> flat_scenario({"title": "x", "algorithm": {"kind": "fedprox", "mu": 0.1}})
        {'algorithm.kind': 'fedprox', 'algorithm.mu': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in scenario.items():
        name = prefix + key
        if isinstance(value, Mapping):
            found |= flat_scenario(value, f"{name}.")
        elif name not in IGNORED:
            found[name] = value
    return found


def differing_keys(flat: Sequence[Flat]) -> list[str]:
    """Return the keys in which scenarios differ, without those that follow from a different `kind`.

    Example:
        >>> differing_keys([{"algorithm.kind": "fedavg"}, {"algorithm.kind": "fedprox", "algorithm.mu": 0.1}])
        ['algorithm.kind']
    """

    def values(key: str, of: Sequence[Flat]) -> set[str]:
        return {str(one.get(key)) for one in of}

    differ = [key for key in dict.fromkeys(key for one in flat for key in one) if len(values(key, flat)) > 1]

    def follows(key: str) -> bool:
        kind = f"{key.rpartition('.')[0]}.kind"
        if kind == key or kind not in differ:
            return False
        return all(len(values(key, [o for o in flat if str(o.get(kind)) == k])) == 1 for k in values(kind, flat))

    telling = [key for key in differ if not follows(key)]
    return [key for key in telling if not key.startswith(HOW)] or telling


def arm_names(scenarios: Sequence[Flat]) -> list[str]:
    """Return a name for each scenario: what differs from the others, in words.

    Args:
        scenarios: flat scenarios, of `flat_scenario`; equal ones get the same name.

    Returns:
        One name each; `the scenario` where nothing differs. Scenarios that differ have different names.

    Example:
        >>> arm_names([{"algorithm.kind": "fedavg", "local.local_lr": 0.02},
        ...            {"algorithm.kind": "scaffold", "local.local_lr": 0.05}])
        ['fedavg, local_lr 0.02', 'scaffold, local_lr 0.05']
        >>> arm_names([{"model.kind": "gru"}, {"model.kind": "gru", "faults.stuck_sensors.kind": "stuck_at",
        ...                                    "faults.stuck_sensors.severity": 1.0}])
        ['without faults', 'stuck sensors']
    """
    differ = differing_keys(scenarios)
    sections = {name: _sections(name, scenarios, differ) for name in NAMED}
    plain = sorted(
        (key for key in differ if key.partition(".")[0] not in NAMED), key=lambda key: not key.endswith(".kind")
    )
    short = _short_keys(plain)
    names = []
    for flat in scenarios:
        words = [_setting(short[key], flat[key]) for key in plain if key in flat]
        for section, tables in sections.items():
            words += _named_words(section, tables, flat, differ)
        names.append(", ".join(words) or _clean(sections))
    return _distinct(names, scenarios, differ)


def _sections(section: str, scenarios: Sequence[Flat], differ: Sequence[str]) -> dict[str, bool]:
    """Return the named tables in which scenarios differ, in order: whether some of the scenarios lack it."""
    tables = dict.fromkeys(key.split(".")[1] for flat in scenarios for key in flat if key.startswith(f"{section}."))
    touched = {key.split(".")[1] for key in differ if key.startswith(f"{section}.")}
    return {name: any(f"{section}.{name}.kind" not in flat for flat in scenarios) for name in tables if name in touched}


def _clean(sections: Mapping[str, Mapping[str, bool]]) -> str:
    """Return the name of a scenario that has nothing of what the others have."""
    without = [section for section, tables in sections.items() if tables]
    return f"without {' and '.join(without)}" if without else "the scenario"


def _named_words(section: str, tables: Mapping[str, bool], flat: Flat, differ: Sequence[str]) -> list[str]:
    """Return the words for the faults or drifts of a scenario."""
    words: list[str] = []
    present = [name for name in tables if f"{section}.{name}.kind" in flat]
    for name in present:
        inside = f"{section}.{name}."
        keys = [key for key in differ if key.startswith(inside) and key in flat]
        if tables[name]:  # its presence is a difference; its keys are a second one only between those that have it
            words.append(_words_of(name))
            continue
        settings = [_setting(key.removeprefix(inside), flat[key]) for key in keys]
        words += [f"{_words_of(name)} {', '.join(settings)}"] if settings else []
    return words


def _distinct(names: Sequence[str], scenarios: Sequence[Flat], differ: Sequence[str]) -> list[str]:
    """Add the other keys of faults and drifts where scenarios that differ have the same name."""
    found = list(names)
    for i, name in enumerate(names):
        same = [j for j, other in enumerate(names) if other == name]
        keys = [key for key in differ if len({_text(scenarios[j].get(key)) for j in same}) > 1]
        short = _short_keys(keys)
        settings = [_setting(short[key], scenarios[i][key]) for key in keys if key in scenarios[i]]
        found[i] = ", ".join([name, *settings])
    return found


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return the last word of each key, with its section where two keys end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: key if last.count(end) > 1 and end != "kind" else end for key, end in zip(keys, last, strict=True)}


def _setting(key: str, value: Any) -> str:
    if key.rpartition(".")[2] == "kind":
        return str(value).replace("_", " ") if "." in key else str(value)
    return f"{key} {_text(value)}"


def _text(value: Any) -> str:
    """Return a value in words: a number short, a list without its quotes."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float) and number(value, 6).replace(",", "") == number(value, 12).replace(",", ""):
        return number(value, 6).replace(",", "")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(item) for item in value)}]"
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, Mapping) else str(value)


def _words_of(name: str) -> str:
    """Return the name of a section in words.

    Example:
        >>> _words_of("stuck_sensors")
        'stuck sensors'
    """
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or name
