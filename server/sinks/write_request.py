"""Prometheus' remote-write body (version 0.1.0): a protobuf message in a snappy block, with the standard library alone.

The message: WriteRequest {1: TimeSeries {1: Label {1: name, 2: value}, 2: Sample {1: double value, 2: int64 ms}}}. A
snappy block may consist of literals only; then it is the message with a few bytes in between, and not smaller.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable

from server.metrics.run_stream import Moment, Series
from server.metrics.samples import Labels
from server.sinks.protobuf import field, utf8, varint

CONTENT = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
"""Headers of the request."""
STALE = struct.pack("<Q", 0x7FF0000000000002)
"""The nan that Prometheus takes as the end of a series; any other nan is a value."""
_METRIC, _LABEL = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*"), re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LITERAL = 1 << 16
_number = struct.Struct("<d").pack


class RequestEncoder:
    """Encodes moments of one run; remembers how its series are written.

    Args:
        labels: labels that every series has.
    """

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._known: dict[Series, bytes] = {}

    def split(self, moments: Iterable[Moment]) -> dict[Series, list[bytes]]:
        """Return series -> its samples, encoded, in the order of the moments.

        Raises:
            ValueError: a name that Prometheus does not allow; some receivers take it and cannot be queried for it.
        """
        found: dict[Series, list[bytes]] = {}
        for moment in moments:
            time = b"\x10" + varint(moment.at)
            head = b"\x12" + varint(9 + len(time)) + b"\x09"
            for name, labels, value in moment.samples:
                found.setdefault((name, labels), []).append(head + _number(value) + time)
            for series in moment.ends:
                found.setdefault(series, []).append(head + STALE + time)
        return found

    def body(self, series: Iterable[tuple[Series, list[bytes]]]) -> bytes:
        """Return the body of a request with these series."""
        written = []
        for key, points in series:
            labels = self._known.get(key)
            if labels is None:
                labels = self._known[key] = _written(key, self._labels)
            points = [labels, *points]
            written += [b"\x0a", varint(sum(map(len, points))), *points]
        return snappy(b"".join(written))


def _written(series: Series, shared: Labels) -> bytes:
    """Return a series' labels, sorted by name as receivers want them; an empty one is as good as none."""
    name, own = series
    if not _METRIC.fullmatch(name) or not all(_LABEL.fullmatch(label) for label, _ in (*own, *shared)):
        raise ValueError(f"{name} or one of its labels has a name that Prometheus does not allow")
    found = sorted((("__name__", name), *((label, word) for label, word in (*own, *shared) if word)))
    return b"".join(field(1, field(1, utf8(label)) + field(2, utf8(word))) for label, word in found)


def snappy(data: bytes) -> bytes:
    """Return data as a snappy block of literals.

    Example:
        >>> snappy(b"abc").hex()
        '03f40200616263'
    """
    parts = [varint(len(data))]
    for start in range(0, len(data), _LITERAL):
        part = data[start : start + _LITERAL]
        parts += [b"\xf4", (len(part) - 1).to_bytes(2, "little"), part]  # 61 << 2: two bytes of length follow
    return b"".join(parts)
