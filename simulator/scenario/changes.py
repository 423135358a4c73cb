"""Applies `--set` to a scenario's table: finds keys, reads values, collects lists, and adapts tables to a new kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from clients.core.errors import ScenarioError
from simulator.scenario.keys import Path, hint_of, resolve
from simulator.scenario.kinds import hints_of, tables
from simulator.scenario.plain import copied, plain
from simulator.scenario.shell import interpret
from simulator.scenario.values import fits, shown, takes_list

FORM = "must be section.key=value"


@dataclass
class Change:
    """One `--set`.

    Attributes:
        words: the key as given, split at its points.
        text: the value as a text; None if `value` is given.
        value: the value from Python.
    """

    words: Path
    text: str | None = None
    value: Any = None

    @property
    def removes(self) -> bool:
        """Whether the key is removed."""
        return self.value is None if self.text is None else not self.text.strip()

    @property
    def is_value(self) -> bool:
        """Whether the key gets a value, and not a table."""
        if self.text is None:
            return self.value is not None and not isinstance(self.value, Mapping)
        return self.text.strip()[:1] not in ("", "{")


@dataclass
class Changed:
    """A table after its changes.

    Attributes:
        table: the scenario's table.
        paths: the keys that were set.
        notices: what was replaced, in sentences.
    """

    table: dict[str, Any]
    paths: set[Path] = field(default_factory=set)
    notices: list[str] = field(default_factory=list)


def changes_of(sets: object) -> list[Change]:
    """Return the changes in an argument `sets`: texts such as "run.rounds=5", or a table of values by key.

    Raises:
        ScenarioError: the argument or a change does not have that form.
    """
    if isinstance(sets, str):
        raise ScenarioError("sets", f"must be a list of changes, got the text {sets!r}", fix=f"Pass [{sets!r}].")
    if isinstance(sets, Mapping):
        return [Change(_path(str(key), str(key)), value=plain(value, str(key))) for key, value in sets.items()]
    if not isinstance(sets, Iterable):
        raise ScenarioError("sets", f"must be a list of changes such as 'run.rounds=5', got {shown(sets)}")
    return [_change(text) for text in sets]


def apply_changes(table: Mapping[str, Any], changes: Sequence[Change], root: type) -> Changed:
    """Return a table with its changes.

    Args:
        table: the scenario before.
        changes: in order. A key without its section is found. Single values of a list that is set several times are
            collected; of any other key the last value counts, and a notice says so.
        root: the class of scenarios.

    Raises:
        ScenarioError: a key is not found, or is inside a value.
    """
    changed = Changed(copied(table))
    kinds = copied(table)  # with the kinds of every change, also of later ones
    for change in changes:
        if change.words[-1] == "kind" and change.words[0] in hints_of(root) and not change.removes:
            _put(kinds, change.words, change.value if change.text is None else change.text.strip().strip("'\""))
    given: dict[Path, list[Change]] = {}
    for change in changes:
        path = resolve(change.words, root, kinds, is_value=change.is_value)
        given.setdefault(path, []).append(change)
    for path, same in given.items():
        value = _value(path, same, hint_of(path, root, kinds), changed)
        _remove(changed.table, path) if value is None else _put(changed.table, path, value)
        changed.paths.add(path)
    return changed


def adapt_to_kinds(changed: Changed, before: Mapping[str, Any], root: type) -> None:
    """Remove the keys that a section's new kind does not have, or cannot read; add a notice of each section.

    A key that a change has set stays, so that it is reported as a mistake.
    """
    for section, kinds in tables(root, named=False).items():
        _adapt((section,), changed, before.get(section), changed.table.get(section), kinds)
    for section, kinds in tables(root, named=True).items():
        old, new = before.get(section), changed.table.get(section)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            for name in new:
                _adapt((section, name), changed, old.get(name), new[name], kinds)


def drop(changed: Changed, path: Path) -> str:
    """Remove a key, and return it with its value, for a notice; empty if a change has set it."""
    if any(path[: len(given)] == given for given in changed.paths):
        return ""
    value = _remove(changed.table, path)
    return f"{path[-1]} = {shown(value)}"


def _adapt(path: Path, changed: Changed, old: Any, new: Any, kinds: Mapping[str, Any]) -> None:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return
    was: Any = old.get("kind")
    now: Any = new.get("kind")
    if was == now or was not in kinds or now not in kinds or kinds[was].options is kinds[now].options:
        return
    hints = hints_of(kinds[now].options)
    unusable = [key for key in new if key not in hints or (key in old and not _readable(new[key], hints[key]))]
    dropped = [words for key in unusable if (words := drop(changed, (*path, key)))]
    if not dropped:
        return
    kept = [f"{key} = {shown(new[key])}" for key in new if key in old and key != "kind"]
    words = f"{'.'.join(path)}.kind is now {now!r}: dropped {', '.join(dropped)} (of {was!r})"
    changed.notices.append(words + (f"; kept {', '.join(kept)}" if kept else ""))


def _readable(value: Any, hint: Any) -> bool:
    return isinstance(value, Mapping) or fits(value, hint)


def _change(text: object) -> Change:
    if not isinstance(text, str):
        raise ScenarioError("sets", f"must be a list of changes such as 'run.rounds=5', got {shown(text)} in it")
    path, equals, value = text.partition("=")
    if not equals:
        fix = "Write the key, = and the value without spaces between them."
        raise ScenarioError("--set", f"{FORM}, got {shown(text)}", fix=fix)
    return Change(_path(path, text), value)


def _path(path: str, text: str) -> Path:
    steps = tuple(step.strip() for step in path.strip().removeprefix("--").split("."))
    if not all(steps):
        raise ScenarioError("--set", f"{FORM}, got {shown(text)}")
    return steps


def _value(path: Path, same: Sequence[Change], hint: Any, changed: Changed) -> Any:
    """Return the value that the changes of one key give it; None removes the key."""
    name = ".".join(path)
    values = [None if change.removes else _read(change, name, hint) for change in same]
    single = [value for value in values if value is not None and not _is_list(value, hint)]
    if hint is not None and takes_list(hint) and len(values) > 1 and len(single) == len(values):
        return single
    others = [value for value in values[:-1] if value != values[-1]]
    if others:
        used = "removed" if values[-1] is None else f"{shown(values[-1])} is used"
        changed.notices.append(f"{name} was set {len(values)} times: {used}, the last value")
    return values[-1]


def _is_list(value: Any, hint: Any) -> bool:
    """Return whether a value is a whole list of a key, not one element of it (which may be a list itself)."""
    elements = [a for a in get_args(hint) if a is not Ellipsis] if hint is not None else []
    return isinstance(value, list) and not any(fits(value, element, 1) for element in elements)


def _read(change: Change, name: str, hint: Any) -> Any:
    if change.text is None:
        return change.value
    try:
        return plain(interpret(change.text, hint), name)
    except RecursionError:
        raise ScenarioError(name, "has too many lists and tables inside each other") from None


def _put(table: dict[str, Any], path: Path, value: Any) -> None:
    inner = table
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ScenarioError("--set", f"{'.'.join(path)}: {key} is a value, not a section")
    inner[path[-1]] = value


def _remove(table: dict[str, Any], path: Path) -> Any:
    inner: Any = table
    for key in path[:-1]:
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner.pop(path[-1], None) if isinstance(inner, dict) else None
