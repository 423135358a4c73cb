"""mkdocs hook: makes reference/scenario.md from the option dataclasses that the dataclass `Scenario` joins.

The page is made while the site is built and is not kept in the repository. Kinds and their dataclasses come from the
tables that the sections of a scenario name. The meaning of a key is read from the `Attributes:` section of its
dataclass or of a base class. A key without a meaning is a warning, so a strict build fails.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
import types
import typing
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

PAGE = "reference/scenario.md"
LOG = logging.getLogger("mkdocs.hooks.reference")

SECTIONS: dict[str, str] = {
    "data": "What the clients hold. See [Data](../data.md) and [The city](../city.md).",
    "partition": "Which client holds which example. Sources that bring their own clients need no partition.",
    "world": "See [The city](../city.md).",
    "faults": "Errors of sensors and labels. `NAME` is any name. They act in file order. See [Faults](../faults.md).",
    "drifts": "`NAME` is any name. Drifts act in file order. See [Concept drift](../drifts.md).",
    "model": "What is trained.",
    "algorithm": "What the server does in a round. See [Algorithms](../algorithms.md).",
    "convergence": "See [Convergence and verdicts](../convergence.md).",
    "engine": "How a cohort is computed.",
}
"""What comes before a section's table; a section of one dataclass has that docstring too."""

TOP = {
    "title": "One line about the scenario.",
    "name": "A short name; run folders start with it. Default: the file's name.",
}
HEAD = """# Scenario keys

This page lists every key of a scenario file. It is generated from the code when the site is built. `fedscape show
SCENARIO` prints the same keys with the values of one scenario.

*required* means that the key has no default. *unset* means that the key is absent by default; `--set section.key=`
removes a key.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the page to the site's files."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=page()))
    return files


@dataclasses.dataclass(frozen=True)
class Key:
    """One row: a key of a table."""

    name: str
    type: str
    default: str
    meaning: str
    tables: tuple[type, ...] = ()


def page() -> str:
    """Return the page's text, and warn about keys without a meaning."""
    from simulator.scenario.kinds import hints_of, tables
    from simulator.scenario.sections import Scenario

    hints = typing.get_type_hints(Scenario, include_extras=True)
    of_kinds = tables(Scenario, named=False) | tables(Scenario, named=True)
    fields = [f for f in dataclasses.fields(Scenario) if f.name in hints_of(Scenario)]
    top = [
        Key(f.name, _type(hints[f.name]), _default(f), TOP.get(f.name, ""))
        for f in fields
        if not _options(hints[f.name])
    ]
    lines = [HEAD, "## Top level { #top }", "", *_table(top)]
    for field in fields:
        options = _options(hints[field.name])
        if not options:
            continue
        rows = of_kinds.get(field.name, {}).values()
        kinds = {cls: [row.kind for row in rows if row.options is cls] for cls in options}
        header = f"{field.name}.NAME" if get_origin(hints[field.name]) is dict else field.name
        lines += ["", f"## [{header}] {{ #{field.name} }}", "", SECTIONS.get(field.name, "")]
        lines += _section(kinds, header, field.name)
    return "\n".join(lines) + "\n"


def _section(kinds: dict[type, list[str]], header: str, path: str) -> Iterator[str]:
    """Yield the lines about a table: its dataclass or one for each kind, then the tables inside it."""
    keys = {cls: _keys(cls, names) for cls, names in kinds.items()}
    many = len(kinds) > 1
    shared = _shared(list(keys.values())) if many else {}
    if many:
        yield from ("", f"`kind` chooses: {', '.join(f'[`{_kind(c)}`](#{path}-{_anchor(_kind(c))})' for c in kinds)}.")
    if shared:
        yield from ("", "Keys of every kind, with the usual default:", "", *_table(shared.values()))
    for cls in kinds:
        if many:
            yield from ("", f"### {_kind(cls)} {{ #{path}-{_anchor(_kind(cls))} }}")
        yield from ("", _introduction(cls))
        own = [k for k in keys[cls] if shared.get(k.name) != k]
        if own:
            yield from ("", *_table(own))
    inner = {key.name: list(key.tables) for cls in kinds for key in keys[cls] if key.tables}
    for name, tables in inner.items():
        yield from ("", f"### [{header}.{name}] {{ #{path}-{name} }}")
        yield from _section({cls: [] for cls in tables}, f"{header}.{name}", f"{path}-{name}")


def _keys(cls: type, kinds: list[str]) -> list[Key]:
    """Return the keys of a dataclass, `kind` only where it has a choice; warn about those without a meaning."""
    hints, meanings = typing.get_type_hints(cls), _meanings(cls)
    keys = []
    for field in dataclasses.fields(cls):
        if field.name == "kind" and len(kinds) == 1:
            continue
        tables, meaning = _options(hints[field.name]), meanings.get(field.name, "")
        if not meaning and tables:
            meaning = _first_sentence(tables[0])
        if not meaning:
            LOG.warning("%s: %s.%s.%s has no meaning in `Attributes:`", PAGE, cls.__module__, cls.__name__, field.name)
        allowed = Literal[tuple(kinds)] if field.name == "kind" and kinds else hints[field.name]
        keys.append(Key(field.name, _type(allowed), _default(field), meaning, tuple(tables)))
    return keys


def _shared(tables: list[list[Key]]) -> dict[str, Key]:
    """Return the keys that every kind has, each as most kinds have it."""
    names = [k.name for k in tables[0] if all(any(o.name == k.name for o in t) for t in tables)]
    return {n: Counter(k for t in tables for k in t if k.name == n).most_common(1)[0][0] for n in names}


def _table(keys: Iterable[Key]) -> Iterator[str]:
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    for key in keys:
        cells = (f"`{key.name}`", key.type, key.default, key.meaning[:1].upper() + key.meaning[1:])
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _options(hint: Any) -> list[type]:
    """Return the dataclasses in a type, in order; those of a table where it names one."""
    from simulator.scenario.kinds import OneOf, parts

    found = [c for part in parts(hint) for c in (part.table.options if isinstance(part, OneOf) else [part])]
    return [cls for cls in found if isinstance(cls, type) and dataclasses.is_dataclass(cls)]


def _kind(cls: type) -> str:
    """Return the value of `kind` that names a dataclass."""
    found = [f.default for f in dataclasses.fields(cls) if f.name == "kind"]
    return str(found[0]) if found else cls.__name__


def _anchor(kind: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", kind.lower())


def _type(hint: Any) -> str:
    """Return a type in the words of a TOML file."""
    if _options(hint):
        return "table"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{_toml(value)}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(a) for a in arguments if a is not type(None))
    if origin is dict:
        return "table of values"
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"list of {_plural(_type(arguments[0]))}"
        return f"list of {len(arguments)} {_plural(_type(arguments[0]))}"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}.get(hint, str(hint))


def _plural(words: str) -> str:
    return {"whole number": "whole numbers", "number": "numbers", "text": "texts"}.get(words, f"({words})")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        value = field.default
    else:
        return "*required*"
    if value is None:
        return "*unset*"
    return "see below" if dataclasses.is_dataclass(value) else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    return f"{value:g}" if isinstance(value, float) and value != int(value) else str(value)


def _introduction(cls: type) -> str:
    """Return the docstring without its sections."""
    text = inspect.cleandoc(cls.__doc__ or "")
    kept = [
        part for part in re.split(r"\n\n", text) if not re.match(r"(Attributes|Example|Raises|Args|Returns):", part)
    ]
    return _words("\n\n".join(kept))


def _first_sentence(cls: type) -> str:
    return _words(inspect.cleandoc(cls.__doc__ or "").partition("\n")[0])


def _meanings(cls: type) -> dict[str, str]:
    """Return the meaning of each key, those of base classes first."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= _attributes(inspect.cleandoc(base.__doc__ or ""))
    return found


def _attributes(text: str) -> dict[str, str]:
    r"""Read an `Attributes:` section; one line may name several keys, as in `l1, l2: penalty weights`.

    Example:
        >>> _attributes("Title.\n\nAttributes:\n    a, b: of both,\n        at once.\n    c: alone.\n\nMore.")
        {'a': 'of both, at once.', 'b': 'of both, at once.', 'c': 'alone.'}
    """
    section = re.search(r"^Attributes:\n((?:[ ]{4}.*\n?|\n(?=[ ]{4}))*)", text, re.MULTILINE)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else ():
        start = re.match(r"[ ]{4}(\w+(?:, \w+)*): (.*)", line)
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2].strip())
        elif names and line.strip():
            found |= dict.fromkeys(names, f"{found[names[0]]} {line.strip()}")
    return {name: _words(meaning) for name, meaning in found.items()}


def _words(text: str) -> str:
    """Keep Markdown from reading a docstring's signs as its own."""
    return re.sub(r"(`[^`]*`)|([*_<\[\]])", lambda m: m[1] or f"\\{m[2]}", text)
