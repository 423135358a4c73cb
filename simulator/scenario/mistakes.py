"""One sentence for a mistake in a scenario: the key, the value, what is allowed, and the nearest name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from clients.core.errors import ScenarioError, UserError, shortened, unknown_name
from clients.core.rows import Table
from simulator.scenario.answers import VALUES, answer, choose
from simulator.scenario.kinds import classes_of, hints_of, table_in, tables
from simulator.scenario.values import alternatives, shown, words

EXAMPLES: Mapping[str, str] = {
    "clients": "20",
    "concentration": "0.3",
    "similarity": "0.5",
    "path": "PATH",
    "rates": "[0.1,0.3]",
    "metric": "validation_loss",
    "below": "1e-3",
}
"""Values of keys without a default, for messages."""


@dataclass(frozen=True)
class Mistake:
    """One mistake among those of a table.

    Attributes:
        error: what is wrong.
        rank: 0 for an unknown key, which explains others; 1 for a wrong type or a missing key; 2 for a value that its
            section refuses.
    """

    error: UserError
    rank: int

    @property
    def order(self) -> tuple[int, int]:
        """What comes first is reported: unknown keys, then those of the outer tables."""
        return min(self.rank, 1), self.error.field.count(".")


def first_of(mistakes: Sequence[Mistake], source: str) -> ScenarioError:
    """Return the first mistake as an error, with the number of others."""
    first = min(mistakes, key=lambda mistake: mistake.order)
    others = len({mistake.error.field for mistake in mistakes}) - 1
    more = f" ({others} more after this one)" if others > 0 and first.rank < 2 else ""
    error = first.error
    return ScenarioError(error.field, error.problem + more, fix=error.fix or f"In {source}.")


def wrong_type(path: str, value: Any, hint: Any) -> Mistake:
    """Return the mistake of a value whose type is not allowed."""
    fix = VALUES.get(path, {}).get(value.lower(), "") if isinstance(value, str) else ""
    if not fix and isinstance(value, str):
        names = [name for name in _names(hint) if isinstance(name, str)]
        near = get_close_matches(value.lower(), names, n=1, cutoff=0.7)
        fix = f"Nearest: {near[0]!r}." if near else ""
    return Mistake(UserError(path, f"must be {words(hint)}, got {shown(value)}", fix=fix), 1)


def out_of_range(path: str, problem: str) -> Mistake:
    """Return the mistake of a number that is too large, too small or not finite."""
    return Mistake(UserError(path, problem), 1)


def no_section(path: str, value: Any, hint: Any) -> Mistake:
    """Return the mistake of a value where a section is meant; the fix is the key that takes the value."""
    fix = f"Pass an object: {value.__name__}(...)." if isinstance(value, type) else _key_taking(path, value, hint)
    got = f"the class {value.__name__}" if isinstance(value, type) else shown(value)
    return Mistake(UserError(path, f"must be a section (a table of keys), got {got}", fix=fix), 1)


def _key_taking(path: str, value: Any, hint: Any) -> str:
    """Return how to give a section a value: by its kind, by a key of which it is a choice, or by a table."""
    kinds, classes = table_in(hint), classes_of(hint)
    if kinds is not None:
        other = VALUES.get(f"{path}.kind", {}).get(value.lower(), "") if isinstance(value, str) else ""
        one = repr(value) if value in list(kinds) else f"one of {', '.join(kinds)}"
        return other or f"Write {path}.kind = {one}."
    keys = hints_of(classes[0]) if classes else {}
    for key, inner in keys.items():
        if value in _names(inner):
            return f"Write {path}.{key} = {value!r}."
    remove = f" To leave it out: --set {path}=." if type(None) in alternatives(hint) else ""
    return f"Its keys: {', '.join(keys)}.{remove}" if keys else ""


def missing(path: str, source: str) -> Mistake:
    """Return the mistake of a key that has no default and is not given."""
    example = EXAMPLES.get(path.rpartition(".")[2], "VALUE")
    return Mistake(UserError(path, f"is missing in {source}", fix=f"Such as --set {path}={example}."), 1)


def refused(path: str, error: UserError) -> Mistake:
    """Return the mistake that a section found in itself; its error names the bare key."""
    steps = [step for step in (*path.split("."), *error.field.split(".")) if step]
    # An inner field may name its own table again: schedule.schedule.every.
    field = ".".join(step for i, step in enumerate(steps) if i == 0 or step != steps[i - 1])
    problem = re.sub(r"\S{200,}", lambda match: shortened(match[0]), error.problem)  # a value may be of any length
    return Mistake(UserError(field, problem, fix=error.fix), 2)


def unknown_key(
    path: str, root: type, keys: Collection[str], kinds: Table[Any] | None = None, kind: Any = ""
) -> Mistake:
    """Return the mistake of a key that its table does not have.

    Args:
        path: the whole key.
        root: the class of scenarios.
        keys: the keys of the table.
        kinds: the table of kinds of its section, if it has one.
        kind: the section's kind.
    """
    section, _, key = path.rpartition(".")
    what = f"a key of [{section}]" if section else "a key of a scenario"
    if section.rpartition(".")[2] in keys:  # a dotted key in a table: the keys are those of the outer table
        outer, _, inner = section.rpartition(".")
        problem = f"is a dotted key in the table of {f'[{outer}]' if outer else 'a scenario'}"
        fix = f'Write {{"{inner}": {{"{key}": ...}}}}, or pass sets={{"{path}": ...}}.'
        return Mistake(UserError(path, problem, fix=fix), 0)
    having = [row.kind for row in (kinds or {}).values() if key in hints_of(row.options)]
    fix = ""
    if having:
        what += f" of kind {kind!r}"
        change = f"--set {section}.kind={having[0]}"
        fix = f"It is a key of {', '.join(having)} ({change}). To remove it: --set {path}=."
    elif instead := answer(key):
        fix = instead
    else:
        fix = _home_of(key, root)
    return Mistake(UserError(path, unknown_name(key, keys, what), fix=fix), 0)


def _names(hint: Any) -> list[Any]:
    """Return the names that a type allows."""
    return [name for option in alternatives(hint) if get_origin(option) is Literal for name in get_args(option)]


def _home_of(key: str, root: type) -> str:
    """Return the section to which a top-level key belongs, as a fix."""
    sections = {name: hint for name, hint in hints_of(root).items() if classes_of(hint)}
    if section := choose(key, sections):
        return f"The section is called [{section}]."
    single = {name: hint for name, hint in sections.items() if name not in tables(root, named=True)}
    homes = [name for name, hint in single.items() if any(key in hints_of(cls) for cls in classes_of(hint))]
    where = " or ".join(f"[{name}]" for name in homes)
    return f"It belongs to the section {where}: {homes[0]}.{key}." if homes else ""
