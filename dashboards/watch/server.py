"""Serves a local page that lists runs and shows one while it is recorded, without Grafana.

uvicorn serves a starlette application with three addresses: the page, the list of runs, and one run. It reads only the
folders of listed runs. It listens on the loopback and refuses requests that name another host, so a page of another
site cannot read the runs through a name that resolves to this machine (DNS rebinding).
"""

from __future__ import annotations

import logging
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from clients.core.errors import UserError
from dashboards.report.pages import DRAWING, page_of
from dashboards.watch.runs import WatchedRuns
from server.record.jsonlines import to_json

_log = logging.getLogger("fedscape.watch")

RUNS = Path("runs")
"""The default folder of runs."""
HOST = "127.0.0.1"
NAMES = {"127.0.0.1", "localhost", "[::1]"}
"""Names of the loopback. A tunnel may come from another port of another machine's loopback, so any port is allowed."""
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)
LARGEST_HEAD, MOST_CONNECTIONS = 1 << 14, 64
"""The most bytes of a request's line and headers, and the most connections. No request body is read."""
IDLE_SECONDS, GRACE_SECONDS = 30, 2
"""Seconds that an idle connection is kept, and that the server waits for unfinished answers when it stops."""


class WatchServer:
    """Serves the page. It listens from the start and answers once `serve` is called.

    Args:
        root: the folder of runs, or one run's folder.
        port: 0 takes a free one.

    Attributes:
        runs: the runs of the page.
        url: the page's address.

    Raises:
        UserError: the port cannot be listened on.
    """

    def __init__(self, root: Path, port: int) -> None:
        self.runs = WatchedRuns(root)
        page = page_of("fedscape watch", "", (*DRAWING, "watch_list.js", "watch.js"), POLICY).encode()
        self._socket = _listening(port)
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/"
        config = uvicorn.Config(
            application(self.runs, page), http="h11", loop="asyncio", ws="none", lifespan="off", log_config=None,
            log_level="critical", access_log=False, proxy_headers=False, server_header=False,
            h11_max_incomplete_event_size=LARGEST_HEAD, limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS, timeout_graceful_shutdown=GRACE_SECONDS,
        )  # fmt: skip
        self._server = uvicorn.Server(config)

    def serve(self) -> None:
        """Answer requests until `stop` is called."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Make `serve` finish open answers and return. Any thread or signal handler may call this."""
        self._server.should_exit = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()


def _listening(port: int) -> socket.socket:
    """Return a socket that listens on the loopback."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
        made.listen()
    except (OSError, OverflowError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            "port", f"{port} cannot be used: {reason}", fix="Choose another; 0 takes a free one."
        ) from error
    return made


def application(runs: WatchedRuns, page: bytes) -> ASGIApp:
    """Return the application that serves the page, `runs.json` and `run.json?name=...&seen=...`."""
    lock = threading.Lock()  # the functions below run in several threads, and WatchedRuns is not thread-safe

    def answer(make: Callable[[], Any]) -> Response:
        with lock:
            try:
                value = make()
            except Exception as error:  # a run in an unexpected state must not stop the server
                _log.exception("a run cannot be shown")
                value = {"problem": f"{type(error).__name__}: {error}"}
        return _response(to_json(value).encode(), "application/json")

    def show_page(request: Request) -> Response:
        return _response(page, "text/html")

    def list_runs(request: Request) -> Response:
        return answer(lambda: {"root": runs.root.name, "runs": runs.rows(), "found": len(runs.paths())})

    def show_run(request: Request) -> Response:
        query = request.query_params
        return answer(lambda: runs.view(query.get("name", ""), query.get("seen", "")))

    routes = [Route("/", show_page), Route("/runs.json", list_runs), Route("/run.json", show_run)]
    made = Starlette(routes=routes, middleware=[Middleware(_LoopbackOnly)], exception_handlers={HTTPException: _refuse})
    made.router.redirect_slashes = False
    return made


class _LoopbackOnly:
    """Refuses requests whose Host header does not name the loopback.

    starlette's TrustedHostMiddleware cuts the header at its first colon, so it cannot distinguish `[::1]` from other
    IPv6 addresses.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and re.sub(r":\d+$", "", Headers(scope=scope).get("host", "").lower()) not in NAMES:
            await _response(b"this page is only for this machine", "text/plain", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _refuse(request: Request, error: Exception) -> Response:
    """Answer a request for another address, or with another method."""
    assert isinstance(error, HTTPException)
    words = b"there is no such page" if error.status_code == 404 else b"only GET is allowed"
    return _response(words, "text/plain", error.status_code)


def _response(body: bytes, kind: str, status: int = 200) -> Response:
    return Response(body, status, headers=HEADERS, media_type=kind)


def watch(root: Path | None, port: int, say: Callable[[str], object]) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        root: the folder of runs, or one run's folder; None takes `runs` here, which need not exist yet.
        port: 0 takes a free one.
        say: prints the line with the address, and another line if the folder has no run yet.

    Raises:
        UserError: the port cannot be listened on, or `root` is a file or does not exist.
    """
    folder = root or RUNS
    if folder.is_file():
        raise UserError("runs", f"must be a folder, got the file {str(folder)!r}")
    if root is not None and not folder.is_dir():
        fix = f"Name the folder of the runs; to wait for the first run, create it: mkdir {folder}"
        raise UserError("runs", f"must be a folder, and {str(folder)!r} does not exist", fix=fix)
    with WatchServer(folder, port) as server, _ended_by_signals(server.stop):
        say(f"{folder} is served at {server.url}  (Ctrl-C stops it)")
        if not server.runs.paths():
            say(f"no run is in {folder} yet; new runs appear on the page")
        server.serve()


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Make Ctrl-C and SIGTERM call `stop`. uvicorn would raise the signal again after its end and kill the process."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
