"""A small page on this machine alone that lists runs and shows one as it grows: for people who have no Grafana.

It answers three addresses (the page, the list, one run) and reads only the runs' folders it lists. It listens on the
loopback and refuses requests that name another host, so that no other page's script can read the runs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from clients.core.errors import UserError
from dashboards.report.report import DRAWING, page_of
from dashboards.watch.runs import WatchedRuns
from server.record.jsonlines import to_json

_log = logging.getLogger("fedscape.watch")

RUNS = Path("runs")
"""Where runs are unless said otherwise."""
HOST = "127.0.0.1"
NAMES = {"127.0.0.1", "localhost", "[::1]"}
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)


class WatchServer(ThreadingHTTPServer):
    """Serves the page.

    Args:
        root: the folder of runs, or one run's.
        port: 0 takes any that is free.

    Raises:
        UserError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, root: Path, port: int) -> None:
        self.runs, self.lock = WatchedRuns(root), Lock()
        self.page = page_of("fedscape watch", "", (*DRAWING, "watch.js"), POLICY).encode()
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                "port", f"{port} cannot be had: {reason}", fix="Choose another; 0 takes a free one."
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a request raised, quietly where the browser just went away."""
        _log.debug("a request failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    server_version = "fedscape"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer one request."""
        if re.sub(r":\d+$", "", self.headers.get("Host", "")) not in NAMES:
            self._send(HTTPStatus.FORBIDDEN, b"this page is for this machine alone", "text/plain; charset=utf-8")
            return
        url = urlsplit(self.path)
        asked = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif url.path == "/runs.json":
            self._answer(lambda: {"root": self.server.runs.root.name, "runs": self.server.runs.rows()})
        elif url.path == "/run.json":
            self._answer(lambda: self.server.runs.view(asked.get("name", ""), asked.get("seen", "")))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"there is no such page", "text/plain; charset=utf-8")

    def _answer(self, make: Callable[[], Any]) -> None:
        with self.server.lock:
            try:
                value = make()
            except Exception as error:  # a run in an odd state must not end the watch
                _log.exception("a run cannot be shown")
                value = {"problem": f"{type(error).__name__}: {error}"}
        self._send(HTTPStatus.OK, to_json(value).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        with suppress(ConnectionError):
            self.send_response(status)
            for name, value in (HEADERS | {"Content-Type": kind, "Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a request a second is no news."""


def watch(root: Path | None, port: int, say: Callable[[str], object]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        root: the folder of runs, or one run's; None is `runs` here, which need not be there yet.
        port: 0 takes any that is free.
        say: is told the address, and where no run is there to show.

    Raises:
        UserError: the port cannot be had, or `root` is a file, or not there.
    """
    folder = root or RUNS
    if folder.is_file():
        raise UserError("runs", f"must be a folder, got the file {str(folder)!r}")
    if root is not None and not folder.is_dir():
        fix = f"Name the folder that runs are in; to wait for the first, make it: mkdir {folder}"
        raise UserError("runs", f"must be a folder, and {str(folder)!r} does not exist", fix=fix)
    with WatchServer(folder, port) as server, suppress(KeyboardInterrupt):
        say(f"{folder} is on {server.url}  (Ctrl-C ends it)")
        if not server.runs.paths():
            say(f"no run is in {folder} yet; one that starts there appears on the page")
        server.serve_forever(poll_interval=0.2)
