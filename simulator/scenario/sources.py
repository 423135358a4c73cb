"""Finds the text of a scenario: a built-in by its name, or a file; a path that cannot be used is explained."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from clients.core.errors import ScenarioError, unknown_name
from server.record.hints import is_run, way_on

DEFAULT = "digits-label-skew"
BLANK = "blank"
"""The name of the scenario with nothing but defaults; it is no file."""
PYTHON = "the scenario passed from Python"
OTHER_FORMATS = {
    ".json": "JSON",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".csv": "a table of data",
    ".tsv": "a table of data",
    ".parquet": "a table of data",
    ".npz": "an archive of arrays",
    ".py": "Python",
}
MOST_NAMES = 8


@dataclass(frozen=True)
class Source:
    """A scenario before it is checked.

    Attributes:
        table: its values.
        words: where it comes from, for messages.
        name: the name of a scenario that has none.
        is_builtin: whether it is a scenario of fedscape, so that the user has set none of its keys.
    """

    table: Mapping[str, Any]
    words: str
    name: str
    is_builtin: bool = False


def builtin_names() -> list[str]:
    """Return the names of the built-in scenarios, the default first."""
    folder = resources.files("simulator.scenario") / "builtin"
    names = sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))
    return sorted(names, key=lambda n: n != DEFAULT)


def find(name: str | Path) -> Source:
    """Return the scenario of a built-in's name or a file's path.

    Raises:
        ScenarioError: there is none, or it cannot be read; the message says whether a name or a path was meant.
    """
    if str(name) == BLANK:
        return Source({"algorithm": {"kind": "fedavg"}}, BLANK, BLANK, is_builtin=True)
    if str(name) in builtin_names():
        text = (resources.files("simulator.scenario") / "builtin" / f"{name}.toml").read_text("utf-8")
        return Source(tomllib.loads(text), str(name), str(name), is_builtin=True)
    path = Path(name)
    try:
        if path.is_dir():
            raise _is_folder(path)
        if path.exists():
            return Source(_parsed(path), str(path), path.stem)
    except (OSError, ValueError) as error:  # a name that is too long, or has a character that no path has
        if isinstance(error, ScenarioError):
            raise
        raise ScenarioError("scenario", f"{str(name)!r:.80} is not a path: {_reason(error)}") from None
    raise _is_absent(name, path)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except OSError as error:
        raise ScenarioError(str(path), f"cannot be read: {_reason(error)}") from None
    except UnicodeDecodeError as error:
        problem = f"cannot be read as UTF-8: byte {error.object[error.start]:#04x} at position {error.start}"
        raise ScenarioError(str(path), problem, fix=_other_format(path) or "Save it as UTF-8.") from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ScenarioError(str(path), "is not TOML: it has too many lists inside each other") from None
    except ValueError as error:  # tomllib's own error, and that of a number with too many digits
        raise ScenarioError(str(path), f"is not TOML: {_reason(error)}", fix=_other_format(path)) from None


def _reason(error: Exception) -> str:
    """Return the words of an error without its number and its path."""
    return (getattr(error, "strerror", None) or str(error)).partition(";")[0]


def _other_format(path: Path) -> str:
    format_ = OTHER_FORMATS.get(path.suffix.lower(), "")
    if not format_:
        return ""
    data = " Data are named inside one: [data] with kind = 'table' and path." if "data" in format_ else ""
    return f"Its name says {format_}; a scenario is a TOML file.{data}"


def _is_folder(path: Path) -> ScenarioError:
    problem = f"{str(path)!r} is a folder, so it is not a scenario file"
    if is_run(path):
        again = f"Run its scenario again: fedscape run {path / 'scenario.toml'}, or {way_on(path)}"
        return ScenarioError("scenario", f"{problem}; it holds a run", fix=again)
    files = sorted(file.name for file in path.glob("*.toml"))
    more = ", ..." if len(files) > MOST_NAMES else ""
    fix = f"Name a file in it: {', '.join(files[:MOST_NAMES])}{more}." if files else "It has no TOML file."
    return ScenarioError("scenario", problem, fix=fix)


def _is_absent(name: str | Path, path: Path) -> ScenarioError:
    """Return the error of a name that no file and no built-in has."""
    if isinstance(name, str) and "=" in name:
        fix = f'Write --set {name}. A shell splits {{a,b}} into two words; quote it: --set "key={{a=1,b=2}}".'
        return ScenarioError("scenario", f"{name!r:.80} is a change, not a scenario", fix=fix)
    if isinstance(name, str) and path.suffix not in (".toml", *OTHER_FORMATS) and not set(name) & set("/\\~"):
        return ScenarioError("scenario", unknown_name(name, builtin_names(), "a scenario file or a built-in scenario"))
    folder = path.parent
    if not folder.is_dir():
        return ScenarioError("scenario", f"no such file: {str(path)!r}", fix=f"There is no folder {str(folder)!r}.")
    names = {name: file for file in _files(folder) for name in (file.stem, file.name)}
    near = get_close_matches(path.name, names, n=1, cutoff=0.5)
    if path.stem in builtin_names() and path.parent == Path():
        fix = f"{path.stem!r} without {path.suffix} is a built-in scenario."
    else:
        fix = f"Nearest in that folder: {str(names[near[0]])!r}." if near else ""
    return ScenarioError("scenario", f"no such file: {str(path)!r}", fix=fix)


def _files(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(file for file in folder.iterdir() if file.suffix.lower() in (".toml", *OTHER_FORMATS))
    return []
