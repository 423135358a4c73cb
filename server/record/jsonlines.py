"""Lines of JSON that grow by one a round: written at once, read back to the last whole line.

JSON has no nan and no infinity: they are written as the strings "nan", "inf" and "-inf" and read back as numbers (so
those three words cannot be told from numbers when they are text).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError
from server.record.files import reading, sync_folder, whole_file, writing

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _plain(value: Any) -> Any:
    """Return NumPy's and torch's scalars and arrays as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written to a record")


def _spelled(value: Any) -> Any:
    """Return `value` with the numbers that are not finite as words."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    return _spelled(value.tolist()) if hasattr(value, "tolist") else value


def _restored(value: Any) -> Any:
    """Undo `_spelled`."""
    if isinstance(value, str):
        return NOT_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    return [_restored(item) for item in value] if isinstance(value, list) else value


_encode: Callable[[Any], str] = json.JSONEncoder(allow_nan=False, default=_plain).encode
_encode_indented: Callable[[Any], str] = json.JSONEncoder(allow_nan=False, default=_plain, indent=2).encode


def to_json(value: Any, *, indent: bool = False) -> str:
    """Return `value` as valid JSON text, whatever numbers it holds.

    Args:
        value: mappings, sequences, strings, numbers, None; NumPy and torch values become plain ones.
        indent: over several lines, for people.

    Example:
        >>> to_json({"round": 1, "loss": float("inf")})
        '{"round": 1, "loss": "inf"}'
    """
    encode = _encode_indented if indent else _encode
    try:
        return encode(value)
    except ValueError:
        return encode(_spelled(value))


def from_json(text: str | bytes) -> Any:
    """Return what `to_json` wrote.

    Raises:
        ValueError: `text` is not JSON.

    Example:
        >>> from_json('{"round": 1, "loss": "-inf"}')
        {'round': 1, 'loss': -inf}
    """
    raw = text.encode() if isinstance(text, str) else text
    value = json.loads(raw)
    return _restored(value) if b'"nan"' in raw or b'inf"' in raw else value


class RoundWriter:
    """Appends lines of JSON to one file, each handed to the system before `append` returns.

    A line that cannot be written whole is taken back, so the file ends in a whole line as long as the system lets us
    say so. Not on the disk until `sync`: a killed process loses nothing, a power cut the lines since.

    Args:
        path: the file; made if it is not there, continued if it is. Its last line must be whole (`truncate_rounds`).

    Raises:
        RunFolderError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self._handle: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            self._size = os.fstat(self._handle).st_size

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line (about 45 us for a hundred numbers).

        Raises:
            RunFolderError: the system refused: a full disk, a disk gone read-only, an input or output error.
        """
        assert self._handle is not None, "the record is closed"
        rest = memoryview(f"{to_json(line)}\n".encode())
        length = len(rest)
        try:
            with writing(self.path):
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._handle, self._size)
            raise
        self._size += length

    def sync(self) -> None:
        """Put every line so far on the disk, so that no checkpoint is ahead of its record."""
        assert self._handle is not None, "the record is closed"
        with writing(self.path):
            os.fsync(self._handle)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _whole_lines(path: Path) -> tuple[list[tuple[bytes, dict[str, Any]]], bool]:
    """Return every whole line as it stands and as it reads, and whether a partial one follows."""
    with reading(path):
        *raw_lines, tail = path.read_bytes().split(b"\n")
    lines: list[tuple[bytes, dict[str, Any]]] = []
    for number, raw in enumerate(raw_lines, start=1):
        try:
            line = from_json(raw)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            if number == len(raw_lines) and not tail:  # the line end arrived, the line did not
                return lines, True
            fix = f"Lines 1 to {number - 1} are whole: keep a copy, cut the file after them, then try again."
            raise RunFolderError(str(path), f"line {number} of {len(raw_lines)} is damaged", fix=fix)
        lines.append((raw, line))
    return lines, bool(tail)


def read_rounds(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Read a file of lines to its last whole one.

    Args:
        path: `rounds.jsonl` or `events.jsonl`.

    Returns:
        The lines, and whether a partial one at the end was ignored (the writer was killed, or the disk was full).

    Raises:
        RunFolderError: the file cannot be read, or a line before the last is damaged.
    """
    lines, truncated = _whole_lines(path)
    return [line for _, line in lines], truncated


def truncate_rounds(path: Path, last_round: int) -> int | None:
    """Drop, in one step, the lines of rounds after `last_round` and a partial line at the end.

    Lines without a `round` stay.

    Args:
        path: `rounds.jsonl` or `events.jsonl`.
        last_round: the round of the checkpoint from which the run goes on.

    Returns:
        The last round that the file still tells of; None where it tells of none.

    Raises:
        RunFolderError: the file cannot be read or replaced, or a line before the last is damaged.
    """
    lines, truncated = _whole_lines(path)
    kept = [(raw, line) for raw, line in lines if line.get("round", last_round) <= last_round]
    if truncated or len(kept) < len(lines):
        with whole_file(path) as file:
            file.writelines(raw + b"\n" for raw, _ in kept)
        sync_folder(path.parent)
    return max((line["round"] for _, line in kept if "round" in line), default=None)
