"""Finds keys of a scenario: those of its present kinds and of all kinds, and the key that a short name means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from clients.core.errors import ScenarioError
from simulator.scenario.answers import answer
from simulator.scenario.kinds import classes_of, hints_of, is_named, table_in
from simulator.scenario.values import shown

Path = tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """A key of a scenario.

    Attributes:
        path: its sections and its name.
        hint: its type.
    """

    path: Path
    hint: Any

    @property
    def name(self) -> str:
        """The key as written after --set."""
        return ".".join(self.path)


def keys_of(root: type, table: Mapping[str, Any] | None = None) -> list[Key]:
    """Return the keys of a scenario, without those at its top level that are sections.

    Args:
        root: the class of scenarios.
        table: a scenario: only keys of its kinds, its named tables and its optional sections are returned. Without
            one, the keys of all kinds are.
    """
    found: dict[Path, Key] = {}
    for section, hint in hints_of(root).items():
        given = None if table is None else table.get(section)
        for key in _inside((section,), hint, given, everything=table is None):
            found.setdefault(key.path, key)
    return list(found.values())


def hint_of(path: Sequence[str], root: type, table: Mapping[str, Any]) -> Any:
    """Return the type of a key in a scenario with the kinds of `table`; None if the kinds have no such key."""
    hint: Any = hints_of(root).get(path[0])
    given: Any = table.get(path[0])
    for step in path[1:]:
        if hint is None:
            return None
        if is_named(hint):
            hint = get_args(hint)[1]
        else:
            classes = _classes(hint, given, everything=False) or classes_of(hint)
            hint = next((hints_of(cls)[step] for cls in classes if step in hints_of(cls)), None)
        given = given.get(step) if isinstance(given, Mapping) else None
    return hint


def resolve(words: Path, root: type, table: Mapping[str, Any], *, is_value: bool = True) -> Path:
    """Return the whole path of a key; a key without its section is found where it is unique.

    The keys of the scenario's own kinds come before those of other kinds, and outer tables before inner ones.

    Args:
        words: the key as given.
        root: the class of scenarios.
        table: the scenario.
        is_value: whether it gets a value, and not a table. [features] is a section, and `features` also a key of data.

    Raises:
        ScenarioError: several sections have such a key, or none has.
    """
    if words[0] in hints_of(root):
        also = _ending(words, keys_of(root, table)) if is_value and len(words) == 1 else []
        return also[0].path if len(also) == 1 and classes_of(hints_of(root)[words[0]]) else words
    short = ".".join(words)
    found = _ending(words, keys_of(root, table))
    if not found and (instead := answer(words[-1])):
        raise ScenarioError(short, "is not a key of a scenario", fix=instead)
    found = found or _ending(words, everywhere := keys_of(root))
    if len(found) > 1:
        named = ", ".join(key.name for key in found)
        raise ScenarioError(short, f"is a key of several sections: {named}", fix="Write one of these.")
    if found:
        return found[0].path
    if len(words) > 1:
        return words  # an unknown section, which the check of the whole table explains
    near = get_close_matches(short, sorted({key.path[-1] for key in everywhere}), n=1, cutoff=0.6)
    nearest = [key for key in keys_of(root, table) if near and key.path[-1] == near[0]]
    nearest = nearest or [key for key in everywhere if near and key.path[-1] == near[0]]
    fix = f"Nearest: {', '.join(key.name for key in nearest[:3])}." if nearest else "Write section.key=value."
    raise ScenarioError("--set", f"{shown(short)} is not a key of any section", fix=fix)


def _ending(words: Path, keys: Sequence[Key]) -> list[Key]:
    """Return the keys whose paths end as given, of the outermost tables that have any."""
    found = [key for key in keys if key.path[-len(words) :] == words]
    outermost = min((len(key.path) for key in found), default=0)
    return [key for key in found if len(key.path) == outermost]


def _inside(path: Path, hint: Any, given: Any, *, everything: bool) -> Iterator[Key]:
    """Yield a key and those of the table that it holds."""
    if is_named(hint):
        names = given if isinstance(given, Mapping) else {}
        for name, inner in names.items():
            yield from _inside((*path, name), get_args(hint)[1], inner, everything=False)
        return
    if not classes_of(hint) or len(path) > 1:
        yield Key(path, hint)
    for cls in _classes(hint, given, everything=everything):
        for name, inner_hint in hints_of(cls).items():
            inner = given.get(name) if isinstance(given, Mapping) else None
            yield from _inside((*path, name), inner_hint, inner, everything=everything)


def _classes(hint: Any, given: Any, *, everything: bool) -> list[type]:
    """Return the classes of the table under a key: of its kind, or of all kinds."""
    classes, kinds = classes_of(hint), table_in(hint)
    if everything or not classes:
        return classes
    kind: Any = given.get("kind") if isinstance(given, Mapping) else None
    if kinds is not None:
        return [kinds[kind].options] if kind in kinds else []
    is_present = isinstance(given, Mapping) or type(None) not in get_args(hint)
    return classes[:1] if is_present else []
