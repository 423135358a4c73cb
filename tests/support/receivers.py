"""Remote-write receivers for tests: one keeps the samples it takes, one never answers. They decode bodies by hand.

The decoder shares no code with the encoder: neither protobuf nor cramjam.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Key = tuple[tuple[str, str], ...]
Point = tuple[int, bytes]
"""Milliseconds and the eight bytes of the number, which distinguish NaN values."""

STALE = struct.pack("<Q", 0x7FF0000000000002)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def unsnappy(block: bytes) -> bytes:
    """Decompress a snappy block: literals and copies, as its format description defines them."""
    length, at = _varint(block, 0)
    out = bytearray()
    while at < len(block):
        tag, at = block[at], at + 1
        if tag & 3 == 0:
            size = tag >> 2
            if size >= 60:
                extra = size - 59
                size = int.from_bytes(block[at : at + extra], "little")
                at += extra
            out += block[at : at + size + 1]
            at += size + 1
            continue
        extra = (1, 2, 4)[(tag & 3) - 1]
        offset = int.from_bytes(block[at : at + extra], "little")
        at += extra
        size = (tag >> 2) + 1
        if tag & 3 == 1:
            size, offset = (tag >> 2 & 7) + 4, offset | tag >> 5 << 8
        assert 0 < offset <= len(out)
        start = len(out) - offset
        for position in range(start, start + size):  # a copy may overlap what it makes
            out.append(out[position])
    assert len(out) == length
    return bytes(out)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif tag & 7 == 1:
            yield tag >> 3, data[at : at + 8]
            at += 8
        else:
            assert tag & 7 == 2
            size, at = _varint(data, at)
            yield tag >> 3, data[at : at + size]
            at += size


def decoded(body: bytes) -> list[tuple[Key, list[Point]]]:
    """Return the series of a request's body, each with its labels and samples in their order."""
    found = []
    for number, series in _fields(unsnappy(body)):
        assert number == 1
        labels: list[tuple[str, str]] = []
        points: list[Point] = []
        for kind, content in _fields(series):
            parts = dict(_fields(content))
            if kind == 1:
                labels.append((parts[1].decode(), parts[2].decode()))
            else:
                points.append((parts.get(2, 0), parts.get(1, bytes(8))))  # protobuf leaves zeros out
        found.append((tuple(labels), points))
    return found


class FakeReceiver:
    """Takes remote writes.

    Args:
        answer: (series of the request, number of requests before) -> status and text; 2xx stores the samples.

    Attributes:
        stored: series -> time -> bytes of the number.
        requests: number of requests.
        headers: headers of each request.
    """

    def __init__(self, answer: Callable[[list[tuple[Key, list[Point]]], int], tuple[int, str]] | None = None) -> None:
        self.stored: dict[Key, dict[int, bytes]] = {}
        self.requests, self.headers = 0, list[Mapping[str, str]]()
        self.answer = answer or (lambda series, before: (204, ""))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                series = decoded(self.rfile.read(int(self.headers["Content-Length"])))
                status, text = outer.answer(series, outer.requests)
                outer.requests += 1
                outer.headers.append(dict(self.headers))
                if 200 <= status < 300:
                    for labels, points in series:
                        outer.stored.setdefault(labels, {}).update(points)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/v1/write"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def values(self, name: str, **labels: str) -> dict[int, float]:
        """Return time -> number of the one series with this name and these labels, ends left out."""
        wanted = {("__name__", name), *labels.items()}
        (found,) = [points for key, points in self.stored.items() if wanted <= set(key)]
        return {at: struct.unpack("<d", raw)[0] for at, raw in found.items() if raw != STALE}


@contextmanager
def receiving(
    answer: Callable[[list[tuple[Key, list[Point]]], int], tuple[int, str]] | None = None,
) -> Iterator[FakeReceiver]:
    receiver = FakeReceiver(answer)
    try:
        yield receiver
    finally:
        receiver.close()


Handle = Callable[[socket.socket, threading.Event], None]


@contextmanager
def handling(handle: Handle) -> Iterator[str]:
    """Give the URL of a server that calls `handle(connection, over)` in a thread for each connection.

    `over` is set at the end; connections are closed then.
    """
    held: list[tuple[socket.socket, threading.Thread]] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        over = threading.Event()

        def serve(connection: socket.socket) -> None:
            with suppress(OSError):
                handle(connection, over)

        def accept() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    connection = server.accept()[0]
                    thread = threading.Thread(target=serve, args=(connection,), daemon=True)
                    held.append((connection, thread))
                    thread.start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/api/v1/write"
        finally:
            over.set()
            accepting.join()
            for connection, thread in held:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                thread.join()
                connection.close()


def silent_receiver() -> AbstractContextManager[str]:
    """Give the URL of a receiver that takes connections and never answers."""
    return handling(lambda connection, over: None)


def dripping_receiver(start: bytes = b"", drip: bytes = b"x", *, pause: float = 0.02) -> AbstractContextManager[str]:
    """Give the URL of a receiver that answers with `start`, and then with `drip` after each pause, without an end."""

    def handle(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(1 << 16)
        connection.sendall(start)
        while not over.wait(pause):
            connection.sendall(drip)

    return handling(handle)
