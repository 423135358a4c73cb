"""Names of clients, from files and from columns of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from clients.core.errors import listed
from clients.tables.reading import Reading, counted


def without_spaces(names: Sequence[str], reading: Reading) -> dict[str, str]:
    """Return padded names without the spaces around them; none where two clients would get one name."""
    padded = {name: name.strip() for name in names if name != name.strip()}
    if not padded or len({name.strip() for name in names}) < len(set(names)):
        return {}
    shown = counted(len(padded), "name", "of clients left out")
    reading.say(f"spaces around {shown} ({next(iter(padded))!r})")
    return padded


def describe_names(reading: Reading, names: Sequence[str]) -> None:
    """Note names that keep spaces around them."""
    spaced = [name for name in names if name != name.strip()]
    if spaced:
        words = "names of clients begin or end" if len(spaced) > 1 else "name of a client begins or ends"
        reading.say(f"{len(spaced):,} {words} with a space: {listed(map(repr, spaced))}")


def file_names(files: list[Path]) -> list[str]:
    """Name clients by the parts in which their files' names differ, cut at separators."""
    stems = [re.sub(r"\.(csv|tsv|parquet|pq)(\.gz|\.xz)?$", "", f.name, flags=re.IGNORECASE) for f in files]
    if len(stems) < 2:
        return stems
    head = re.sub(r"[^ _.-]*$", "", _common_start(stems))
    tail = re.sub(r"[^ _.-]*$", "", _common_start([s[len(head) :][::-1] for s in stems]))
    short = [s[len(head) : len(s) - len(tail)] for s in stems]
    return short if all(short) else stems


def _common_start(texts: Sequence[str]) -> str:
    return "".join(letters[0] for letters in takewhile(lambda c: len(set(c)) == 1, zip(*texts, strict=False)))
