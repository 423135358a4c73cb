"""What to do with a folder that is no run's, or already is one: the nearest run, and whether it can be resumed."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError
from server.record.checked.parsing import parse_json
from server.record.checked.regular_files import LARGEST_TEXT, read_regular

NEEDED = ("scenario.toml", "rounds.jsonl")
"""Files that every run has from its start."""
MOST_RUNS = 5


def is_run(path: Path) -> bool:
    """Return whether a folder has the files that every run has."""
    return all((path / name).is_file() for name in NEEDED)


def check_run(path: Path) -> None:
    """Refuse a folder that is no run's.

    Raises:
        RunFolderError: it does not exist, or lacks files that every run has.
    """
    if not path.is_dir():
        raise absent(path)
    if not is_run(path):
        raise incomplete(path)


def is_resumable(path: Path) -> bool:
    """Return whether `fedscape resume` may continue the run in a folder.

    It is a run, it is not over, and none of its parts came from Python.
    """
    started = _read(path / "environment.json").get("run", {})
    has_parts = isinstance(started, dict) and bool(started.get("from_python"))
    ended = _read(path / "outcome.json").get("outcome")
    return is_run(path) and ended in (None, "interrupted") and not has_parts


def way_on(path: Path) -> str:
    """Return what is possible with the run in a folder: resume it, or look at it."""
    if is_resumable(path):
        return f"continue the run in it: fedscape resume {path}"
    return f"look at the run in it: fedscape report {path}"


def absent(path: Path) -> RunFolderError:
    """Return the error of a path that is no folder."""
    if path.exists():
        run = path.parent
        fix = f"Its run is {run}." if is_run(run) else "A run prints its folder at its end, as its record."
        return RunFolderError(str(path), "is a file, not a run's folder", fix=fix)
    runs = [*_runs_in(path.parent), *(_runs_in(Path("runs")) if path.parent != Path("runs") else [])]
    names = {run.name: run for run in runs}
    near = get_close_matches(path.name, names, n=1, cutoff=0.4)
    fix = f"Nearest: {names[near[0]]}." if near else "A run prints its folder at its end, as its record."
    return RunFolderError(str(path), "no such folder", fix=fix)


def incomplete(path: Path) -> RunFolderError:
    """Return the error of a folder that lacks files of a run."""
    missing = [name for name in NEEDED if not (path / name).is_file()]
    runs = _runs_in(path)
    fix = "It is not a run's folder, or its run stopped before round 0: run the scenario again."
    if runs:
        more = f" and {len(runs) - MOST_RUNS} more" if len(runs) > MOST_RUNS else ""
        fix = f"It holds runs; name one: {', '.join(map(str, runs[-MOST_RUNS:]))}{more}."
    return RunFolderError(str(path), f"lacks {' and '.join(missing)}", fix=fix)


def _runs_in(folder: Path) -> list[Path]:
    """Return the runs in a folder, the newest last."""
    with suppress(OSError):
        return sorted((run for run in folder.iterdir() if is_run(run)), key=lambda run: run.stat().st_mtime)
    return []


def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):  # a RunFolderError is a ValueError
        found = parse_json(read_regular(file, most=LARGEST_TEXT))
        return found if isinstance(found, dict) else {}
    return {}
