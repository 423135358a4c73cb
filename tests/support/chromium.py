"""A headless Chromium, controlled by its DevTools protocol through two pipes: no port, no driver, no dependency.

The browser reaches no network but loopback: names do not resolve, and other requests go to a proxy that does not exist.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio",
    "--hide-scrollbars", "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
    "--proxy-server=127.0.0.1:9", "--proxy-bypass-list=127.0.0.1;localhost", "--remote-debugging-pipe",
)  # fmt: skip


class Chromium:
    """A running browser; `open` gives pages. Made by `chromium()`."""

    def __init__(self, folder: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_read, to_write)]
        for end in (to_read, to_write):
            os.close(end)

        def hand_over() -> None:  # the protocol lies on descriptors 3 (in) and 4 (out)
            os.dup2(theirs[0], 3)
            os.dup2(theirs[1], 4)

        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [PROGRAM, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(3, 4), preexec_fn=hand_over, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
        for end in theirs:
            os.close(end)
        self._buffer, self._count = b"", 0
        self.pages: dict[str, Page] = {}

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send one request and return the answer."""
        self._count += 1
        mine = self._count
        message = {"id": mine, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60.0)
            assert answer is not None, f"Chromium did not answer {method}"
            if answer.get("id") == mine:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                result: dict[str, Any] = answer["result"]
                return result

    def settle(self, seconds: float) -> None:
        """Process the browser's messages for a while."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._next(left)

    def _next(self, timeout: float) -> dict[str, Any] | None:
        until = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium ended"
            self._buffer += data
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        page = self.pages.get(message.get("sessionId", ""))
        if page is not None and "method" in message:
            page.receive(message["method"], message["params"])
        return message

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1.0) -> Page:
        """Open a page in a tab of its own."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        self.call("Emulation.setDeviceMetricsOverride", session, width=width, height=height, deviceScaleFactor=scale,
                  mobile=width < 600)  # fmt: skip
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", session, features=scheme)
        self.call("Page.navigate", session, url=url)
        return page

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)


class Page:
    """One tab.

    Attributes:
        errors: errors and warnings of the page or the browser.
        requests: addresses that the page requested.
    """

    def __init__(self, browser: Chromium, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.errors: list[str] = []
        self.requests: list[str] = []

    def receive(self, method: str, what: dict[str, Any]) -> None:
        """Keep errors and requests among the browser's messages."""
        if method == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in what["args"]))
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression (or promise)."""
        result = self._browser.call("Runtime.evaluate", self._session, expression=expression, returnByValue=True,
                                    awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 60.0) -> Any:
        """Wait until a JavaScript expression is true, and return it."""
        until = time.monotonic() + seconds
        while not (found := self.evaluate(expression)):
            assert time.monotonic() < until, f"never true: {expression}; errors: {self.errors}"
            self._browser.settle(0.05)
        return found

    def drawn(self) -> int:
        """Wait until every chart is drawn, and return how many."""
        data = "document.documentElement.dataset"
        count = f"{data}.charts > 0 && {data}.charts === {data}.expected && Number({data}.charts)"
        return int(self.wait(f"document.readyState === 'complete' && {count}"))

    def picture(self, file: Path, *, whole: bool = False, height: int | None = None) -> None:
        """Write a PNG of the window, the whole page, or its first `height` pixels."""
        size = self._browser.call("Page.getLayoutMetrics", self._session)["cssContentSize"]
        size = size if height is None else size | {"height": min(height, size["height"])}
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = {"clip": clip, "captureBeyondViewport": True} if whole or height else {}
        data = self._browser.call("Page.captureScreenshot", self._session, format="png", **shot)["data"]
        file.write_bytes(base64.b64decode(data))

    def resize(self, width: int, height: int = 900) -> None:
        """Change the window."""
        self._browser.call("Emulation.setDeviceMetricsOverride", self._session, width=width, height=height,
                           deviceScaleFactor=1, mobile=width < 600)  # fmt: skip

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)
        del self._browser.pages[self._session]


@contextlib.contextmanager
def chromium() -> Iterator[Chromium]:
    """Start a browser with a new, empty profile, and end it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Chromium(Path(folder))
        try:
            yield browser
        finally:
            browser.close()
