"""The body of a Prometheus remote-write request (version 0.1.0): a protobuf message in a snappy block.

protobuf builds the four message types here from a descriptor, so there is no generated module to keep in step with
the installed protobuf. cramjam compresses the message.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any, Final

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from server.metrics.run_stream import Moment, Series
from server.metrics.samples import Labels

CONTENT = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
"""Headers of the request."""
STALE: Final[float] = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""Prometheus takes this NaN as the end of a series, and any other NaN as a value."""
_METRIC, _LABEL = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*"), re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "Label": [("name", _Field.TYPE_STRING, ""), ("value", _Field.TYPE_STRING, "")],
    "Sample": [("value", _Field.TYPE_DOUBLE, ""), ("timestamp", _Field.TYPE_INT64, "")],
    "TimeSeries": [("labels", _Field.TYPE_MESSAGE, "Label"), ("samples", _Field.TYPE_MESSAGE, "Sample")],
    "WriteRequest": [("timeseries", _Field.TYPE_MESSAGE, "TimeSeries")],
}
"""Message -> its fields, numbered from 1: name, type, and the message that a repeated field holds."""


class RequestEncoder:
    """Encodes the moments of one run, and remembers the encoded labels of each series.

    Args:
        labels: labels that every series has.
    """

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._known: dict[Series, bytes] = {}

    def body(self, moments: Iterable[Moment]) -> bytes:
        """Return the body of a request with these moments, or an empty one where they have no sample.

        Raises:
            ValueError: Prometheus does not allow a name. Some receivers accept it, and then no query can reach it.
        """
        request, series = WriteRequest(), dict[Series, Any]()
        for moment in moments:
            at = moment.at
            for name, labels, value in moment.samples:  # keyword arguments would cost a sixth more
                add = series.get((name, labels)) or self._begin(request, series, (name, labels))
                sample = add()
                sample.value, sample.timestamp = value, at
            for key in moment.ends:
                add = series.get(key) or self._begin(request, series, key)
                add(value=STALE, timestamp=at)
        return bytes(cramjam.snappy.compress_raw(request.SerializeToString())) if series else b""

    def _begin(self, request: Any, series: dict[Series, Any], key: Series) -> Any:
        """Add a series without samples to the request; return the function that adds a sample to it."""
        labels = self._known.get(key)
        if labels is None:
            labels = self._known[key] = _encoded(key, self._labels)
        begun = request.timeseries.add()
        begun.MergeFromString(labels)
        series[key] = begun.samples.add
        return begun.samples.add


def _encoded(series: Series, shared: Labels) -> bytes:
    """Return the labels of a series, encoded and sorted by name as receivers require; empty labels are left out."""
    name, own = series
    if not _METRIC.fullmatch(name) or not all(_LABEL.fullmatch(label) for label, _ in (*own, *shared)):
        raise ValueError(f"{name} or one of its labels has a name that Prometheus does not allow")
    found = sorted((("__name__", name), *((label, word) for label, word in (*own, *shared) if word)))
    labels = [{"name": label, "value": word.encode("utf-8", "replace").decode()} for label, word in found]
    encoded: bytes = TimeSeries(labels=labels).SerializeToString()
    return encoded


def _message_types() -> dict[str, Any]:
    """Return the classes of `_MESSAGES` by name, from a descriptor pool of our own."""
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package="prometheus", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, holds) in enumerate(fields, start=1):
            label = _Field.LABEL_REPEATED if holds else _Field.LABEL_OPTIONAL
            of = f".prometheus.{holds}" if holds else None
            message.field.add(name=field, number=number, type=kind, label=label, type_name=of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"prometheus.{name}")) for name in _MESSAGES
    }


TimeSeries, WriteRequest = (_message_types()[name] for name in ("TimeSeries", "WriteRequest"))
