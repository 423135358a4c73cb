"""A remote-write receiver behind a URL: its answers, and what they mean for the samples sent.

httpcore, the transport of httpx, sends the requests: it follows no redirect, so no login reaches an address that the
user did not name, and reads neither a proxy nor a .netrc file from the environment. A proxy that is set for downloads
would get the samples of a receiver on this machine, and over http their token. SSL_CERT_FILE still counts.
"""

from __future__ import annotations

import base64
import re
import ssl
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

import httpcore
import httpx

from clients.core.errors import UserError, require
from clients.core.shown.secrets import checked_token, secrets_of
from clients.core.shown.text import presentable
from clients.core.shown.urls import bare_url
from server.sinks.network import FAILURES, Deadline, DeadlineBackend
from server.sinks.write_request import CONTENT

TOKEN_VARIABLE = "FEDSCAPE_REMOTE_WRITE_TOKEN"
"""Environment variable with a bearer token for receivers that want one."""
LOGIN_VARIABLE = "FEDSCAPE_REMOTE_WRITE_LOGIN"
"""Environment variable with `user:password` for receivers that want them."""
_HOPELESS = {
    401: f"it wants a login: put user:password into {LOGIN_VARIABLE}, or a token into {TOKEN_VARIABLE}",
    403: "the login may not write there",
    404: "nothing receives there: Prometheus needs --web.enable-remote-write-receiver, and the path /api/v1/write",
    405: "that address takes no writes: the path is /api/v1/write",
}
LONGEST_ANSWER = 2000
"""Bytes read of an answer; the connection is closed where there are more."""
TEXT_SECONDS = 1.0
"""The most seconds for the text of an answer. Its status has arrived, and the text only says why."""
_NEVER = re.compile(r"too old|out of order|out of bounds|out-of-order|duplicate sample", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """The result of a request.

    Attributes:
        kind: `taken`; `refused`: these samples will never be taken; `later`: try again; `hopeless`: no sample will be.
        words: the answer or the error; never a password or a token.
    """

    kind: Literal["taken", "refused", "later", "hopeless"]
    words: str = ""


class Receiver:
    """A connection to a receiver, kept between requests. One thread uses it.

    Args:
        url: http or https, with the path; may hold `user:password@` and a query.
        token: a bearer token; never shown.
        timeout: seconds for a whole request, from the host's address to the answer.

    Attributes:
        name: the URL's scheme, host and path, for messages.
        hides: whether the URL has a login or a query, which `name` leaves out.

    Raises:
        UserError: it is no http or https URL, or the token is empty or has characters that no header can hold.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 10.0) -> None:
        url, shown = url.strip(), bare_url(url)
        require(
            not any(c.isspace() for c in url), "remote-write", f"must have no white space, got {shown!r}", fix=_EXAMPLE
        )
        try:
            parts = urlsplit(url)
            login = parts.username, parts.password
            path = parts.path or "/api/v1/write"
            address = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=path, fragment="").geturl()
            target = httpx.URL(address)
        except (ValueError, httpx.InvalidURL):
            problem = f"is no URL with a valid host and port: {shown!r}"
            raise UserError("remote-write", problem, fix=_EXAMPLE) from None
        require(target.scheme in ("http", "https") and bool(target.host), "remote-write",
                f"must be an http or https URL, got {shown!r}", fix=_EXAMPLE)  # fmt: skip
        token = checked_token(token, TOKEN_VARIABLE) if token is not None else None
        self.name = bare_url(address)
        self.hides = bool(parts.query) or login[0] is not None
        self._secrets = secrets_of(url, token)
        self._url = httpcore.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
        )
        headers = CONTENT | {"User-Agent": "fedscape", "Accept-Encoding": "identity"} | _authorization(login, token)
        self._headers = list(headers.items())
        self._timeout, self._deadline = timeout, Deadline()
        # The system's certificates; httpx has a list of its own.
        self._pool = httpcore.ConnectionPool(
            ssl.create_default_context(), max_connections=1, network_backend=DeadlineBackend(self._deadline)
        )

    def post(self, body: bytes) -> Answer:
        """Send one body, on a new connection where the receiver has closed the last one.

        A receiver may close a connection at the moment it is used again. Then the body is sent once more: a receiver
        that has taken it takes the same samples again. Both attempts together take at most `timeout` seconds.
        """
        self._deadline.begin(self._timeout)
        try:
            try:
                return self._send(body)
            except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError):
                return self._send(body)
        except httpcore.TimeoutException:
            return Answer("later", f"no answer within {self._timeout:g} seconds")
        except FAILURES as error:
            return Answer("later", presentable(self._secrets.hidden(str(error))) or type(error).__name__)

    def _send(self, body: bytes) -> Answer:
        with self._pool.stream("POST", self._url, headers=self._headers, content=body) as response:
            text = b""
            self._deadline.shorten(TEXT_SECONDS)
            try:
                for piece in response.iter_stream():
                    text += piece
                    if len(text) >= LONGEST_ANSWER:
                        break
            except FAILURES:
                pass  # the status is known
            return answer(response.status, self._secrets.hidden(text[:LONGEST_ANSWER].decode("utf-8", "replace")))

    def close(self) -> None:
        """Close the connection. Only the thread that sends may call it."""
        self._pool.close()


def with_login(url: str, login: str | None) -> str:
    """Return a URL with a login, which is percent-encoded; None leaves it as it is.

    Raises:
        UserError: the URL has a login already.

    Example:
        >>> with_login("https://host/x", "me:p%2Fw")
        'https://me:p%2Fw@host/x'
    """
    if login is None:
        return url
    scheme, separator, rest = url.strip().partition("://")
    is_taken = "@" in rest.partition("/")[0]
    require(not is_taken, LOGIN_VARIABLE, "is set, and the URL has a login too", fix="Leave it out of the URL.")
    return f"{scheme}://{login}@{rest}" if separator else url


def _authorization(login: tuple[str | None, str | None], token: str | None) -> dict[str, str]:
    """Return the header that logs in, if there is a login; a token goes before a password."""
    user, password = login
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user is None:
        return {}
    words = f"{unquote(user)}:{unquote(password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(words.encode()).decode()}


def answer(status: int, text: str) -> Answer:
    """Return what an HTTP answer means.

    Example:
        >>> answer(500, "too old sample").kind, answer(503, "").kind, answer(400, "out of order sample").kind
        ('refused', 'later', 'refused')
    """
    line = presentable(text.strip().partition("\n")[0])
    answer_line = f"HTTP {status}" + (f": {line[:200]}" if line else "")
    if 200 <= status < 300:
        return Answer("taken")
    if status in _HOPELESS or 300 <= status < 400:
        why = _HOPELESS.get(status, "the URL leads elsewhere")
        return Answer("hopeless", f"HTTP {status}; {why}")
    if status in (408, 429) or (status >= 500 and not _NEVER.search(text)):
        return Answer("later", answer_line)
    return Answer("refused", answer_line)


_EXAMPLE = "Such as http://127.0.0.1:9090/api/v1/write."
