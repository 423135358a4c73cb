"""The HTTP server of `/metrics`: it answers requests that name this machine, and no client can hold it.

A page of another site could read the numbers through a name of its own that resolves to this machine (DNS rebinding).
So a request must name an address, the loopback, or a name that the user gave. An address cannot be rebound.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Collection, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

IDLE_SECONDS = 10.0
"""Seconds that a client may take to send its request or to read a part of the answer."""
_REFUSAL = b"/metrics is not served under this name. Give it to the run: --metrics-name NAME\n"
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Handler(WSGIRequestHandler):
    timeout = IDLE_SECONDS

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without the look-up of a name, for which the base class waits."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, *_: Any) -> None:
        """Drop a connection that its client left or did not use."""


def serve(app: App, host: str, port: int, names: Collection[str] = ()) -> tuple[WSGIServer, threading.Thread]:
    """Serve an application from a thread.

    Args:
        app: the application.
        host: where to listen; a name here may also be named by requests.
        port: 0 takes a free one.
        names: more names that requests may name.

    Returns:
        The server, and its thread.

    Raises:
        OSError: the address cannot be listened on.
        OverflowError: it is no port.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    kind = type("_Server", (_Server,), {"address_family": family})
    server: WSGIServer = kind((address[0], port), _Handler)
    server.set_app(_only_under({host, *names}, app))
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
    thread.start()
    return server, thread


def _only_under(names: Collection[str], app: App) -> App:
    known = {"localhost", *(name.lower().rstrip(".") for name in names if name)}

    def checked(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if is_served(environ.get("HTTP_HOST", ""), known):
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [_REFUSAL]

    return checked


def is_served(host: str, names: Collection[str]) -> bool:
    """Return whether a request with this Host header is answered.

    Example:
        >>> [is_served(host, {"localhost"}) for host in ("127.0.0.1:9464", "[::1]:9464", "LOCALHOST", "a.test", "")]
        [True, True, True, False, False]
    """
    name = re.sub(r":\d+$", "", host.strip().lower()).rstrip(".")
    if name in names:
        return True
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True
