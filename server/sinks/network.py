"""Connections whose requests end by a deadline: name, connection, TLS, body, headers and answer together.

The time-outs of httpcore count each step anew, so a receiver that sends a byte from time to time would never end a
request. Here each step gets the time that is left.
"""

from __future__ import annotations

import ipaddress
import math
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import httpcore

FAILURES = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)
"""The errors of a request; httpcore has no common class for them."""
T = TypeVar("T")


class Deadline:
    """A moment by which a request is over. One thread uses it."""

    def __init__(self) -> None:
        self._until = math.inf

    def begin(self, seconds: float) -> None:
        """Let a request begin that may take so many seconds."""
        self._until = time.monotonic() + seconds

    def shorten(self, seconds: float) -> None:
        """Leave the request at most so many seconds from now."""
        self._until = min(self._until, time.monotonic() + seconds)

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            httpcore.TimeoutException: there are none.
        """
        seconds = self._until - time.monotonic()
        if seconds <= 0:
            raise httpcore.ReadTimeout("the time of the request is over")
        return seconds


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections that obey a deadline. Each time-out that httpcore passes is replaced by the time left."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline, self._sync = deadline, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of the host that takes the connection."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in _addresses(host, port, self._deadline.left()):
            try:
                stream = self._sync.connect_tcp(address, port, self._deadline.left(), local_address, socket_options)
            except httpcore.ConnectError as error:
                failure = error
            else:
                return _DeadlineStream(stream, self._deadline)
        raise failure


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes; the stream of httpcore would give each piece the whole time."""
        connection, rest = self._stream.get_extra_info("socket"), memoryview(buffer)
        while rest:
            connection.settimeout(self._deadline.left())
            try:
                rest = rest[connection.send(rest) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(str(error)) from error
            except OSError as error:
                raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _DeadlineStream(
            self._stream.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _addresses(host: str, port: int, seconds: float) -> list[str]:
    """Return the addresses of a host.

    Raises:
        httpcore.ConnectError: the host has none.
        httpcore.ConnectTimeout: the resolver did not answer in time.
    """
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        answers = within(seconds, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except TimeoutError:
        raise httpcore.ConnectTimeout(f"no address of {host} was found in time") from None
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a function returns that has no time-out of its own, such as the system's resolver.

    A thread calls it. Where it takes too long, the thread is left to itself: it ends when the function does, or with
    the process.

    Raises:
        TimeoutError: it took too long.
        Exception: what the function raised.
    """
    results: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((True, call()))
        except BaseException as error:
            results.put((False, error))

    threading.Thread(target=work, name="bounded", daemon=True).start()
    try:
        is_result, value = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no result in {seconds:g} seconds") from None
    if not is_result:
        try:
            raise value
        finally:
            del value  # the error's traceback has this frame: a circle would keep its connection open
    return value  # type: ignore[no-any-return]
