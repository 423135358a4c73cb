"""TensorBoard's event files, written with the standard library and numpy: records of protobuf events, each with a CRC.

A record is its length (8 bytes), the masked CRC-32C of those, the event, and its masked CRC-32C. An event is
Event {1: wall_time, 2: step, 3: file_version, 5: Summary {1: Value}, 7: SessionLog}, a value is
Value {1: tag, 2: simple_value, 5: HistogramProto, 8: TensorProto, 9: SummaryMetadata}.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from server.record.files import writing
from server.sinks.protobuf import field, utf8, varint

_BLOCK = 1024
_FOLLOWING = np.arange(_BLOCK)[::-1]
_POLYNOMIAL = 0x82F63B78
_START = field(7, b"\x08\x01")
_TEXT = field(9, field(1, field(1, b"text")))
_ONE_STRING = b"\x08\x07" + field(2, field(2, b"\x08\x01"))
_serial = itertools.count()
_single = struct.Struct("<f").pack


class EventFile:
    """One event file; TensorBoard shows its folder as a run.

    Args:
        folder: where it is made, itself made if it is not there.

    Raises:
        RunFolderError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{time.time():.6f}.{os.getpid()}.{next(_serial)}"
        with writing(folder, fix="Name another folder."):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / name).open("xb")
        self._event(0, time.time(), field(3, b"brain.Event:2"))

    def add(self, step: int, at: float, values: Iterable[bytes]) -> None:
        """Write values of one step, as `scalar`, `histogram` and `text` make them."""
        self._event(step, at, field(5, b"".join(values)))

    def resume(self, step: int, at: float) -> None:
        """Let TensorBoard forget what was written of this step and later ones."""
        self._event(step, at, _START)

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _event(self, step: int, at: float, content: bytes) -> None:
        event = b"\x09" + struct.pack("<d", at) + b"\x10" + varint(step) + content
        length = struct.pack("<Q", len(event))
        self._file.write(b"".join((length, _masked(length), event, _masked(event))))


def scalar(head: bytes, value: float) -> bytes:
    """Return a number under a `scalar_head`; it has 24 bits there, and what is too large for it is infinite."""
    try:
        return head + _single(value)
    except OverflowError:
        return head + _single(math.copysign(math.inf, value))


def scalar_head(tag: str) -> bytes:
    """Return what comes before a number, which is always four bytes."""
    named = _tag(tag) + b"\x15"
    return b"\x0a" + varint(len(named) + 4) + named


def histogram(tag: str, levels: Sequence[float], limits: Sequence[float], counts: Sequence[int]) -> bytes:
    """Return a histogram: levels are min, max, number and sum of what was counted."""
    keys = (b"\x09", b"\x11", b"\x19", b"\x21")
    parts = b"".join(key + struct.pack("<d", level) for key, level in zip(keys, levels, strict=True))
    packed = [struct.pack(f"<{len(numbers)}d", *numbers) for numbers in (limits, counts)]
    return field(1, _tag(tag) + field(5, parts + field(6, packed[0]) + field(7, packed[1])))


def text(tag: str, words: str) -> bytes:
    """Return a text, in Markdown."""
    return field(1, _tag(tag) + field(8, _ONE_STRING + field(8, utf8(words))) + _TEXT)


def _tag(name: str) -> bytes:
    return field(1, utf8(name))


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli), a kilobyte at a time.

    It is linear: a byte's part depends on its value and on how many bytes follow, and the state before a block acts
    like its first four bytes.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    tables, state = _tables(), 0xFFFFFFFF
    for start in range(0, len(data), _BLOCK):
        block = np.frombuffer(data, np.uint8, min(_BLOCK, len(data) - start), start).copy()
        size = len(block)
        block[:4] ^= np.frombuffer(struct.pack("<I", state), np.uint8)[:size]
        state = (state >> 8 * size) ^ int(np.bitwise_xor.reduce(tables[_FOLLOWING[-size:], block]))
    return state ^ 0xFFFFFFFF


@cache
def _tables() -> npt.NDArray[np.uint32]:
    """Return what a byte adds to the state when so many bytes follow it, [bytes that follow, byte]."""
    tables = np.empty((_BLOCK, 256), np.uint32)
    column = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        column = np.where(column & 1, column >> 1 ^ np.uint32(_POLYNOMIAL), column >> 1)
    first = column
    for following in range(_BLOCK):
        tables[following] = column
        column = column >> 8 ^ first[column & 0xFF]
    return tables


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
