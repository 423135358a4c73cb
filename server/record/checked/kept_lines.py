"""The lines of a record in memory: packed in blocks, so that a long run takes a few hundred bytes a round."""

from __future__ import annotations

import marshal
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from server.record.jsonlines import Line

_PLAIN = frozenset((str, int, float, bool, type(None)))
BLOCK = 256
"""Lines that are packed together: the newest, fewer than these, are not packed."""


class KeptLines(Sequence[Line]):
    """A sequence of lines that is read as a list is; a line is made anew each time it is read.

    A line of a small run takes 11 kB as Python objects, and under 1 kB packed. Reading all lines in order costs about
    10 us a line. A change in a line that was read is not kept.

    Args:
        lines: the first lines.

    Example:
        >>> lines = KeptLines({"round": r, "loss": 1.0 / (r + 1)} for r in range(1000))
        >>> len(lines), lines[-1]["round"], lines[3]["loss"], [line["round"] for line in lines[1:3]]
        (1000, 999, 0.25, [1, 2])
    """

    def __init__(self, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self._blocks: list[bytes] = []
        self._newest: list[Line] = []
        self._read: tuple[int, list[Line]] = (-1, [])  # the block that was read last
        for line in lines:
            self.append(line)

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        self._newest.append(dict(line))
        if len(self._newest) == BLOCK:
            self._blocks.append(_packed(self._newest))
            self._newest = []

    def copy(self) -> KeptLines:
        """Return a sequence of the same lines, to which lines can be added apart; the blocks are shared."""
        other = KeptLines()
        other._blocks, other._newest = list(self._blocks), list(self._newest)
        return other

    def __len__(self) -> int:
        """Return the number of lines."""
        return BLOCK * len(self._blocks) + len(self._newest)

    def __iter__(self) -> Iterator[Line]:
        """Iterate over the lines, block by block."""
        for block in self._blocks:
            yield from _unpacked(block)
        yield from self._newest

    @overload
    def __getitem__(self, index: int) -> Line: ...

    @overload
    def __getitem__(self, index: slice) -> list[Line]: ...

    def __getitem__(self, index: int | slice) -> Line | list[Line]:
        """Return a line, or a list of lines."""
        if isinstance(index, slice):
            return [self._line(place) for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"line {index} of {len(self)}")
        return self._line(place)

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence has the same lines."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # a sequence that grows

    def __repr__(self) -> str:
        """Return the number of lines; they may be many."""
        return f"<{type(self).__name__}: {len(self)} lines>"

    def _line(self, place: int) -> Line:
        number, row = divmod(place, BLOCK)
        if number == len(self._blocks):
            return self._newest[row]
        if self._read[0] != number:
            self._read = number, _unpacked(self._blocks[number])
        return self._read[1][row]


def _packed(lines: list[Line]) -> bytes:
    """Pack lines. The bytes stay in this process: `marshal` differs between versions of Python."""
    return zlib.compress(marshal.dumps(_plain(lines)), 1)  # a third of the time of level 6, for 8% more bytes


def _plain(value: Any) -> Any:
    """Return a value with arrays as lists, as the record has them."""
    kind = type(value)  # asking what else a value is costs ten times as much
    if kind in _PLAIN:
        return value
    if kind is dict:  # plain values are nearly all: they cost no call
        return {key: item if type(item) in _PLAIN else _plain(item) for key, item in value.items()}
    if kind is list:
        return [item if type(item) in _PLAIN else _plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value  # `marshal` would write an array as bytes


def _unpacked(block: bytes) -> list[Line]:
    lines: list[Line] = marshal.loads(zlib.decompress(block))
    return lines
