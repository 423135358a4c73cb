"""What a node accepts in a server's message: texts of bounded length, and only files of the node's own folder."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clients.core.errors import StrategyError

LONGEST_SCENARIO = 1 << 20
"""The most characters of a scenario's text."""
LONGEST_NAME = 200
"""The most characters of a run's name."""
LARGEST_STAMP = 2**53
"""The largest index of a round."""
HUB = "huggingface"
"""The kind of data that may be downloaded."""


def scenario_text(value: object, files: Path | None) -> str:
    """Return the text of a scenario in a message; empty where the message has none.

    Args:
        value: the value in the message's config.
        files: the folder in which the scenario may name files; None for any file.

    Raises:
        StrategyError: it is too long or no TOML, or names files outside of `files` or data to download.
    """
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_SCENARIO:
        size = f"{len(value):,} characters" if isinstance(value, str) else f"a {type(value).__name__}"
        raise StrategyError("scenario", f"of the server is {size}, and at most {LONGEST_SCENARIO:,} are accepted")
    try:
        table = tomllib.loads(value)
    except (ValueError, RecursionError) as error:
        raise StrategyError("scenario", f"that the server sent is no TOML: {error!s:.200}") from None
    if files is not None:
        _require_own_files(table.get("data"), files)
    return value


def _require_own_files(data: object, files: Path) -> None:
    path = data.get("path") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or path is None:
        return
    fix = f"Put the data there, or start the SuperNode with --node-config 'files=\"/folder\"', now {str(files)!r}."
    try:
        here = Path(str(path)).expanduser()
        is_own = here.resolve().is_relative_to(files.resolve())
        is_here = here.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise StrategyError("data.path", f"of the server's scenario is no path: {type(error).__name__}") from None
    if not is_own:
        problem = f"of the server's scenario is {str(path)!r:.200}, outside of the folder that this node opens to it"
        raise StrategyError("data.path", problem, fix=fix)
    if data.get("kind") == HUB and not is_here:
        problem = f"of the server's scenario is {str(path)!r:.200}, which this node does not have"
        raise StrategyError("data.path", f"{problem}; it downloads nothing for a server", fix=fix)


def run_name(value: object) -> str:
    """Return the name of a run, under which client states are kept.

    Raises:
        StrategyError: it is no name.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        raise StrategyError("message", f"must name its run in 1 to {LONGEST_NAME} characters, got {value!r:.60}")
    return value


def whole(config: Mapping[str, Any], key: str, most: int) -> int:
    """Return a whole number of a message, 0 where it is missing.

    Raises:
        StrategyError: it is none from 0 to `most`.
    """
    value = config.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise StrategyError("message", f"{key!r} must be a whole number from 0 to {most:,}, got {value!r:.60}")
    return value


def stamps_of(config: Mapping[str, Any], key: str, count: int) -> list[int]:
    """Return the rounds of K client states.

    Raises:
        StrategyError: they are not `count` rounds.
    """
    values = config.get(key)
    is_rounds = isinstance(values, list) and all(isinstance(v, int) and 0 <= v <= LARGEST_STAMP for v in values)
    if not isinstance(values, list) or not is_rounds or len(values) != count:
        raise StrategyError("message", f"{key!r} must have {count} rounds, got {values!r:.60}")
    return values
