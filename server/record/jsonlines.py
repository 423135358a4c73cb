"""Values as JSON text, and a file of JSON lines that grows: each line is passed to the system before `append` returns.

JSON has no nan and no infinity. They are written as the strings "nan", "inf" and "-inf" and read back as numbers, so
text values with exactly these words also become numbers.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from clients.core.errors import RunFolderError
from server.record.checked.parsing import parse_json
from server.record.checked.regular_files import LARGEST_RECORD, NO_FOLLOW, open_regular
from server.record.checked.seals import START, chained, link, unchained
from server.record.files import writing

Line = dict[str, Any]
"""A line of the record: what one round measured, by key."""


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
    return parse_json(text.encode() if isinstance(text, str) else text, exact=True)


def line_after(head: bytes, line: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return a line's bytes with its link, and the chain's head after it; `head` is the one before it."""
    assert line, "an empty line cannot carry its link"
    content = to_json(line).encode()
    head = link(head, content)
    return chained(content, head) + b"\n", head


class RoundWriter:
    """Appends lines of JSON to one file; each is passed to the system before `append` returns.

    Each line ends in its link of the chain (`server.record.checked.seals`). A partly written line is removed, so the
    file ends in a complete line unless the removal fails as well. Lines are on disk only after `sync`: a killed process
    loses nothing, a power cut loses the lines since the last `sync`.

    Args:
        path: the file, made or continued. Its last line must be complete (see `truncate_rounds`).

    Attributes:
        head: the chain's head after the last line.

    Raises:
        RunFolderError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_FOLLOW | getattr(os, "O_NONBLOCK", 0)
        with writing(path):
            handle = os.open(path, flags, 0o644)
            status = os.fstat(handle)
        if stat.S_ISFIFO(status.st_mode):
            os.close(handle)
            raise RunFolderError(str(path), "is not a regular file: it is a named pipe")
        self._handle, self._size = handle, status.st_size
        self.head = head_of(path) if self._size else START

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line (about 50 us for a hundred numbers).

        Raises:
            RunFolderError: the system refused: a full disk, a disk gone read-only, an input or output error.
        """
        assert self._handle is not None, "the record is closed"
        raw, head = line_after(self.head, line)
        rest = memoryview(raw)
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
        self.head = head

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


def head_of(path: Path) -> bytes:
    """Return the head of the chain over a file of complete lines, which need not have links.

    Raises:
        RunFolderError: the file cannot be read.
    """
    head = START
    with open_regular(path, most=LARGEST_RECORD) as file:
        for raw in file:
            head = link(head, unchained(raw.rstrip(b"\n"))[0])
    return head
