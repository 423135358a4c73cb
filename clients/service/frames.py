"""Frames on the service's socket: a fixed prefix, a JSON header and bytes. Sizes are checked before memory is taken."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

_PREFIX = struct.Struct("<4sBIQ")
_MAGIC = b"FSV1"
MOST_HEADER, MOST_BODY = 1 << 16, (1 << 31) - 1
"""The largest header, and the largest body: a protobuf message is at most so long."""
_AT_ONCE = 1 << 24
"""Bytes that are received before more memory is taken."""


class Kind(IntEnum):
    """What a frame is: the service greets, the client asks, the service beats while it works, then answers or fails."""

    HELLO = 1
    ASK = 2
    BEAT = 3
    ANSWER = 4
    FAILED = 5


class FrameError(Exception):
    """What came is no frame, is too large, or came too slowly."""


@dataclass(frozen=True)
class Frame:
    """A frame.

    Attributes:
        kind: what it is.
        head: what JSON can express.
        body: bytes, such as a message's content in protobuf.
    """

    kind: Kind
    head: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | bytearray = b""


def send(link: socket.socket, frame: Frame, seconds: float) -> None:
    """Send a frame.

    Raises:
        FrameError: it is too large.
        OSError: the connection broke, or some part was not taken within `seconds`.
    """
    head = json.dumps(frame.head).encode()
    _check(len(head), len(frame.body))
    link.settimeout(seconds)
    link.sendall(_PREFIX.pack(_MAGIC, frame.kind, len(head), len(frame.body)) + head)
    if frame.body:
        link.sendall(frame.body)


def receive(link: socket.socket, seconds: float, *, most: int = MOST_BODY) -> Frame | None:
    """Return the next frame; None where the other end has closed the connection between two frames.

    Args:
        link: the connection.
        seconds: for the whole frame.
        most: the largest body that is accepted.

    Raises:
        FrameError: there is no whole frame, or a part is too large.
        OSError: the connection broke, or `seconds` have passed.
    """
    until = time.monotonic() + seconds
    prefix = _exactly(link, _PREFIX.size, until, may_end=True)
    if not prefix:
        return None
    magic, kind, head_size, body_size = _PREFIX.unpack(prefix)
    if magic != _MAGIC or kind not in list(Kind):
        raise FrameError("it is no frame of this service")
    _check(head_size, body_size, most)
    try:
        head = json.loads(_exactly(link, head_size, until))
    except ValueError as error:
        raise FrameError("its header is no JSON") from error
    if not isinstance(head, dict):
        raise FrameError("its header is no table")
    return Frame(Kind(kind), head, _exactly(link, body_size, until))


def _check(head: int, body: int, most: int = MOST_BODY) -> None:
    for what, size, limit in (("header", head, MOST_HEADER), ("body", body, most)):
        if size > limit:
            raise FrameError(f"its {what} has {size:,} bytes, and at most {limit:,} are allowed")


def _exactly(link: socket.socket, size: int, until: float, *, may_end: bool = False) -> bytearray:
    """Return so many bytes; none where the connection ended before the first and may end."""
    data = bytearray()
    while len(data) < size:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("a frame took too long")
        link.settimeout(left)
        part = link.recv(min(_AT_ONCE, size - len(data)))
        if not part:
            if may_end and not data:
                break
            raise FrameError(f"the connection ended after {len(data):,} of {size:,} bytes")
        data += part
    return data
