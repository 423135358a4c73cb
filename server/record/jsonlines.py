"""Lines of JSON, one for each round: written at once, read back up to the last complete line.

JSON has no nan and no infinity. They are written as the strings "nan", "inf" and "-inf" and read back as numbers, so
text values with exactly these words also become numbers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from clients.core.errors import RunFolderError
from server.record.files import reading, sync_folder, whole_file, writing
from server.record.kept_lines import KeptLines, Line

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _plain(value: Any) -> Any:
    """Return scalars and arrays of NumPy and torch as Python values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written to a record")


def _spelled(value: Any) -> Any:
    """Return `value` with non-finite numbers as strings."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    return _spelled(value.tolist()) if hasattr(value, "tolist") else value


def _restored(value: Any) -> Any:
    """Reverse `_spelled`."""
    if isinstance(value, str):
        return NOT_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    return [_restored(item) for item in value] if isinstance(value, list) else value


_encode: Callable[[Any], str] = json.JSONEncoder(allow_nan=False, default=_plain).encode
_encode_indented: Callable[[Any], str] = json.JSONEncoder(allow_nan=False, default=_plain, indent=2).encode


def to_json(value: Any, *, indent: bool = False) -> str:
    """Return `value` as valid JSON text, also with non-finite numbers.

    Args:
        value: mappings, sequences, strings, numbers, None; NumPy and torch values become plain ones.
        indent: whether to indent over several lines.

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
    """Return the value of a text from `to_json`.

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
    """Appends lines of JSON to one file; each is passed to the system before `append` returns.

    A partly written line is removed, so the file ends in a complete line unless the removal fails as well. Lines are on
    disk only after `sync`: a killed process loses nothing, a power cut loses the lines since the last `sync`.

    Args:
        path: the file, made or continued. Its last line must be complete (see `truncate_rounds`).

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
        """Sync all lines to disk, so that no checkpoint is ahead of its record."""
        assert self._handle is not None, "the record is closed"
        with writing(self.path):
            os.fsync(self._handle)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class _WholeLines:
    """Iterates over the complete lines of a file, as bytes and as a value; one line is in memory at a time.

    Attributes:
        truncated: after the last one, whether a partial line follows.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.truncated = path, False

    def __iter__(self) -> Iterator[tuple[bytes, Line]]:
        """Yield the lines.

        Raises:
            RunFolderError: the file cannot be read, or a line before the last is damaged.
        """
        with reading(self.path):
            file = self.path.open("rb")
        with file:
            for number, raw in enumerate(self._raw(file), start=1):
                whole = raw.endswith(b"\n")
                line = _object(raw) if whole else None
                if line is None:
                    self.truncated = True
                    if whole and file.read(1):
                        raise self._damaged(number)
                    return
                yield raw[:-1], line

    def _raw(self, file: BinaryIO) -> Iterator[bytes]:
        while True:
            with reading(self.path):
                raw = file.readline()
            if not raw:
                return
            yield raw

    def _damaged(self, number: int) -> RunFolderError:
        with reading(self.path):
            count = self.path.read_bytes().count(b"\n")
        fix = f"Lines 1 to {number - 1} are complete: keep a copy, cut the file after them, then try again."
        return RunFolderError(str(self.path), f"line {number} of {count} is damaged", fix=fix)


def _object(raw: bytes) -> Line | None:
    """Return the JSON object of a line; None if it is damaged."""
    with suppress(ValueError):
        line = from_json(raw)
        return line if isinstance(line, dict) else None
    return None


def read_rounds(path: Path) -> tuple[KeptLines, bool]:
    """Read a file of lines up to its last complete line.

    Args:
        path: `rounds.jsonl` or `events.jsonl`.

    Returns:
        The lines, and whether a partial line at the end was ignored (after a kill or on a full disk).

    Raises:
        RunFolderError: the file cannot be read, or a line before the last is damaged.
    """
    found = _WholeLines(path)
    return KeptLines(line for _, line in found), found.truncated


def truncate_rounds(path: Path, last_round: int) -> int | None:
    """Drop, atomically, the lines of rounds after `last_round` and a partial line at the end.

    Lines without a `round` are kept.

    Args:
        path: `rounds.jsonl` or `events.jsonl`.
        last_round: the round of the checkpoint from which the run continues.

    Returns:
        The last round that is left in the file; None without rounds.

    Raises:
        RunFolderError: the file cannot be read or replaced, or a line before the last is damaged.
    """
    found = _WholeLines(path)
    rounds = [line.get("round") for _, line in found]
    kept = [round_index is None or round_index <= last_round for round_index in rounds]
    if found.truncated or not all(kept):
        with whole_file(path) as file:
            file.writelines(raw + b"\n" for (raw, _), stays in zip(_WholeLines(path), kept, strict=True) if stays)
        sync_folder(path.parent)
    return max((r for r, stays in zip(rounds, kept, strict=True) if stays and r is not None), default=None)
