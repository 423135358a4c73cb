"""Keys of [local] that an algorithm fixes: they are refused, or dropped when `algorithm.kind` changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clients.core.errors import ScenarioError
from server.algorithms.table import ALGORITHMS
from simulator.scenario.changes import Changed, drop


def check_fixed_local(kind: str, local: Mapping[str, Any], source: str) -> None:
    """Refuse local work that the algorithm would ignore, because its definition fixes local work.

    Args:
        kind: the algorithm.
        local: the given keys of [local].
        source: where they come from, for messages.

    Raises:
        ScenarioError: a key of [local] would be ignored.
    """
    fixed = ALGORITHMS[kind].fixed_local
    conflict = fixed.conflict(local) if fixed is not None else None
    if fixed is not None and conflict is not None:
        key, value = conflict
        raise ScenarioError(
            f"local.{key}",
            f"is {value!r} in {source}, and {kind} {fixed.words}",
            fix=f"Remove it (--set local.{key}=), or use {fixed.instead}.",
        )


def adapt_local(changed: Changed, before: Mapping[str, Any]) -> None:
    """Drop the keys of [local] that a new algorithm fixes, with a notice.

    A key that a change has set stays, so that it is reported as a mistake.
    """
    algorithm, local = changed.table.get("algorithm"), changed.table.get("local")
    if not isinstance(algorithm, Mapping) or not isinstance(local, Mapping):
        return
    kind: Any = algorithm.get("kind")
    old = before.get("algorithm")
    if kind not in ALGORITHMS or kind == (old.get("kind") if isinstance(old, Mapping) else None):
        return
    fixed = ALGORITHMS[kind].fixed_local
    if fixed is None:
        return
    conflicts = [key for key in fixed.values if key in local and fixed.conflict({key: local[key]})]
    dropped = [words for key in conflicts if (words := drop(changed, ("local", key)))]
    if dropped:
        changed.notices.append(
            f"algorithm.kind is now {kind!r}, which {fixed.words}: dropped {', '.join(dropped)} of [local]"
        )
