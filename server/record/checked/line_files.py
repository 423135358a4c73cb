"""Reads a file of JSON lines back: up to its last complete line, or up to the first line that is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from clients.core.errors import RunFolderError
from server.record.checked.kept_lines import KeptLines
from server.record.checked.layouts import layout_of
from server.record.checked.parsing import parse_json
from server.record.checked.regular_files import LARGEST_RECORD, LONGEST_LINE, open_regular
from server.record.checked.seals import START, chained, link, unchained
from server.record.checked.shapes import Misfit, Shape
from server.record.files import sync_folder, whole_file

NOT_JSON = "is damaged"
"""The problem of a line that is not a whole JSON object; the last line of a file is then read as one half written."""


@dataclass
class RecordedLines:
    """What a file of lines holds.

    Attributes:
        values: the whole lines, up to the first damaged one.
        heads: the chain's head after each of them.
        ends: the offset in the file after each of them.
        truncated: whether a partial line follows (after a kill or on a full disk).
        damage: what is wrong with the first line that cannot be used, as a clause; empty without one.
        unchained: how many lines have no link: an earlier version wrote them.
    """

    values: KeptLines = field(default_factory=KeptLines)
    heads: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    truncated: bool = False
    damage: str = ""
    unchained: int = 0

    @property
    def has_links(self) -> bool:
        """Whether a chain covers all lines; without lines there is nothing to cover."""
        return self.unchained < len(self.values) or not self.values

    def head(self) -> bytes:
        """The chain's head after the last whole line."""
        return self.heads[-1] if self.heads else START


def read_record(path: Path, *, layout: Shape | None = None, inside: Path | None = None) -> RecordedLines:
    """Read a file of lines; a damaged line ends it and is no error.

    Args:
        path: `rounds.jsonl`, `events.jsonl` or `clients/_parts.jsonl`.
        layout: the shape of a line; by default that of the file's name.
        inside: the run's folder, for a file in one of its folders.

    Raises:
        RunFolderError: the file cannot be read.
    """
    shape = layout or layout_of(path.name)
    found = RecordedLines()
    end = 0
    with open_regular(path, most=LARGEST_RECORD, inside=inside) as file:
        for raw in _raw_lines(file):
            problem = take_line(found, raw, shape, end + len(raw))
            if problem:
                is_last = not file.read(1)
                if problem == NOT_JSON and (is_last or not raw.endswith(b"\n")):
                    found.truncated = True  # only a part of the line was written
                else:
                    number = len(found.values) + 1
                    rest = file.read().count(b"\n") if not is_last else 0
                    found.damage = f"line {number} of {number + rest} {problem}"
                return found
            end += len(raw)
    return found


def _raw_lines(file: BinaryIO) -> Iterator[bytes]:
    while raw := file.readline(LONGEST_LINE):
        yield raw


def take_line(found: RecordedLines, raw: bytes, shape: Shape, end: int) -> str:
    """Add a line to those found, or return what is wrong with it.

    Args:
        found: the lines before it.
        raw: the line with its end.
        shape: the shape of its value.
        end: the offset in the file after it.

    Returns:
        The problem as a clause; empty where the line was added.
    """
    if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
        return f"is longer than {LONGEST_LINE:,} bytes"
    if not raw.endswith(b"\n"):
        return NOT_JSON
    content, stated = unchained(raw[:-1])
    try:
        value = parse_json(content)
    except ValueError:
        return NOT_JSON
    if not isinstance(value, dict):
        return NOT_JSON
    head = link(found.head(), content)
    if stated is None and found.values and found.unchained < len(found.values):
        return "lost its checksum"
    if stated is not None and stated != head:
        return "does not have its checksum: it was changed, or a line before it was changed, removed or doubled"
    try:
        shape(value)
    except Misfit as misfit:
        return f"cannot be used: {misfit}"
    found.values.append(value)
    found.heads.append(head)
    found.ends.append(end)
    found.unchained += stated is None
    return ""


def read_rounds(path: Path) -> tuple[KeptLines, bool]:
    """Read a file of lines up to its last complete line.

    Args:
        path: `rounds.jsonl` or `events.jsonl`.

    Returns:
        The lines, and whether a partial line at the end was ignored (after a kill or on a full disk).

    Raises:
        RunFolderError: the file cannot be read, or a line before the last is damaged.
    """
    found = read_record(path)
    if found.damage:
        raise damaged(path, found)
    return found.values, found.truncated


def damaged(path: Path, found: RecordedLines) -> RunFolderError:
    """Return the error of a file with a damaged line."""
    fix = f"Lines 1 to {len(found.values)} are complete: keep a copy, cut the file after them, then try again."
    return RunFolderError(str(path), found.damage, fix=fix)


def truncate_rounds(path: Path, last_round: int) -> int | None:
    """Drop, atomically, the lines of rounds after `last_round`, a partial line at the end, and what follows damage.

    Lines without a `round` are kept.

    Args:
        path: `rounds.jsonl` or `events.jsonl`.
        last_round: the round of the checkpoint from which the run continues.

    Returns:
        The last round that is left in the file; None without rounds.

    Raises:
        RunFolderError: the file cannot be read or replaced.
    """
    found = read_record(path)
    kept = [i for i, line in enumerate(found.values) if line.get("round", last_round) <= last_round]
    if found.truncated or found.damage or len(kept) < len(found.values):
        _keep(path, found, kept)
    return max((found.values[i]["round"] for i in kept if "round" in found.values[i]), default=None)


def _keep(path: Path, found: RecordedLines, kept: list[int]) -> None:
    """Replace a file by some of its lines. The first lines stay as they are; behind a gap the links are made anew."""
    is_prefix = kept == list(range(len(kept)))
    with open_regular(path, most=LARGEST_RECORD) as old, whole_file(path) as new:
        head = START
        for index in kept:
            start = found.ends[index - 1] if index else 0
            old.seek(start)
            raw = old.read(found.ends[index] - start)
            if not is_prefix:
                content, stated = unchained(raw[:-1])
                head = link(head, content)
                raw = (content if stated is None else chained(content, head)) + b"\n"
            new.write(raw)
    sync_folder(path.parent)
