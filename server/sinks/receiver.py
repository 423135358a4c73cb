"""A remote-write receiver behind a URL: what it answers, and what that means for what was sent."""

from __future__ import annotations

import base64
import http.client
import re
import ssl
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from clients.core.errors import UserError, require
from server.sinks.write_request import CONTENT

TOKEN_VARIABLE = "FEDSCAPE_REMOTE_WRITE_TOKEN"
"""Environment variable with a bearer token for receivers that want one."""
_HOPELESS = {
    401: f"it wants a login: put user:password into the URL, or a token into {TOKEN_VARIABLE}",
    403: "the login may not write there",
    404: "nothing receives there: Prometheus needs --web.enable-remote-write-receiver, and the path /api/v1/write",
    405: "that address takes no writes: the path is /api/v1/write",
}
_NEVER = re.compile(r"too old|out of order|out of bounds|out-of-order|duplicate sample", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    Attributes:
        kind: `taken`; `refused`: these samples will never be taken; `later`: try again; `hopeless`: no sample will be.
        words: what was answered, or went wrong; never a password or a token.
    """

    kind: Literal["taken", "refused", "later", "hopeless"]
    words: str = ""


class Receiver:
    """A connection to a receiver, kept between requests.

    Args:
        url: http or https, with the path; may hold `user:password@`.
        token: a bearer token; never shown.
        timeout: seconds to wait for a connection, and for an answer.

    Attributes:
        name: the URL without its password, for messages.

    Raises:
        UserError: it is no URL of that kind.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 10.0) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise UserError("remote-write", f"is no URL: {url!r}", fix=_EXAMPLE) from None
        require(parts.scheme in ("http", "https") and bool(parts.hostname), "remote-write",
                f"must be an http or https URL, got {url!r}", fix=_EXAMPLE)  # fmt: skip
        assert parts.hostname is not None
        self.name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._path = (parts.path or "/api/v1/write") + (f"?{parts.query}" if parts.query else "")
        self._headers = dict(CONTENT)
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(parts.hostname, port, timeout=timeout, context=context)
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=timeout)

    def post(self, body: bytes) -> Answer:
        """Send one body; a connection that the other side had closed meanwhile is opened once more."""
        for kept in (self._connection.sock is not None, False):
            try:
                self._connection.request("POST", self._path, body, self._headers)
                response = self._connection.getresponse()
                return answer(response.status, response.read(2000).decode("utf-8", "replace"))
            except TimeoutError:
                self._connection.close()
                return Answer("later", f"no answer within {self._connection.timeout:g} seconds")
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if not kept:
                    return Answer("later", str(error) or type(error).__name__)
        raise AssertionError

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def answer(status: int, text: str) -> Answer:
    """Say what an HTTP answer means.

    Example:
        >>> answer(500, "too old sample").kind, answer(503, "").kind, answer(400, "out of order sample").kind
        ('refused', 'later', 'refused')
    """
    said = f"HTTP {status}" + (f": {line[:200]}" if (line := text.strip().partition("\n")[0]) else "")
    if 200 <= status < 300:
        return Answer("taken")
    if status in _HOPELESS or 300 <= status < 400:
        why = _HOPELESS.get(status, "the URL leads elsewhere")
        return Answer("hopeless", f"HTTP {status}; {why}")
    if status in (408, 429) or (status >= 500 and not _NEVER.search(text)):
        return Answer("later", said)
    return Answer("refused", said)


_EXAMPLE = "Such as http://127.0.0.1:9090/api/v1/write."
