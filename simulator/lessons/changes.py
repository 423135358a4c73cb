"""Changes of a lesson's arms: `KEY=VALUE` of all, `ARM:KEY=VALUE` of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clients.core.errors import UserError, unknown_name
from simulator.lessons.lesson import Lesson


def changes_by_arm(lesson: Lesson, sets: Sequence[str] | Mapping[str, Any]) -> dict[str, list[str] | dict[str, Any]]:
    """Return the changes of each arm, as `load_scenario` takes them.

    Args:
        lesson: the lesson.
        sets: changes such as "run.rounds=50", or a table; a key may have an arm's name and a colon before it.

    Raises:
        UserError: there is no such arm, or a change of all arms names a key in which they differ.
    """
    if isinstance(sets, Mapping):
        table: dict[str, dict[str, Any]] = {arm: {} for arm in lesson.arms}
        for key, value in sets.items():
            for arm, own in _targets(lesson, key):
                table[arm][own] = value
        return dict(table)
    if isinstance(sets, str):
        raise UserError("sets", f"must be a list of changes, got {sets!r}", fix=f"Write [{sets!r}].")
    lines: dict[str, list[str]] = {arm: [] for arm in lesson.arms}
    for text in sets:
        key, equals, value = text.partition("=")
        for arm, own in _targets(lesson, key):
            lines[arm].append(f"{own}{equals}{value}")
    return dict(lines)


def _targets(lesson: Lesson, key: str) -> list[tuple[str, str]]:
    """Return the arms that a key changes, each with the key without the arm."""
    arm, colon, own = key.rpartition(":")
    if colon:
        if arm not in lesson.arms:
            raise UserError("sets", unknown_name(arm, lesson.arms, f"an arm of '{lesson.name}'"))
        return [(arm, own)]
    differing = {other for keys in lesson.arms.values() for other in keys}
    clash = next((other for other in sorted(differing) if _same_key(key, other)), None)
    if clash is not None:
        example = next(name for name, keys in lesson.arms.items() if clash in keys)
        problem = f"{key} is what the arms of '{lesson.name}' differ in"
        raise UserError("sets", problem, fix=f'Change one arm: --set "{example}:{clash}=VALUE".')
    return [(name, key) for name in lesson.arms]


def _same_key(given: str, full: str) -> bool:
    """Return whether a key as a user writes it means a full key, or a table that holds it.

    Example:
        >>> _same_key("local_lr", "local.local_lr"), _same_key("rounds", "local.local_lr")
        (True, False)
    """
    return given == full or full.endswith(f".{given}") or full.startswith(f"{given}.")
