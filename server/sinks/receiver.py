"""A remote-write receiver behind a URL: its answers, and what they mean for the samples sent.

httpx sends the requests. Redirects are not followed, so no login reaches an address that the user did not name.
"""

from __future__ import annotations

import base64
import re
import ssl
from dataclasses import dataclass
from itertools import islice
from typing import Literal
from urllib.parse import unquote, urlsplit

import httpx

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
LONGEST_ANSWER = 2000
"""Bytes read of an answer; the connection is closed where there are more."""
_LOGIN = re.compile(r"//[^/]*@")
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
        url: http or https, with the path; may hold `user:password@`.
        token: a bearer token; never shown.
        timeout: seconds to wait for a connection, and for each part of an answer.

    Attributes:
        name: the URL without its password, for messages.

    Raises:
        UserError: it is no http or https URL, or the token has characters that no header can hold.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 10.0) -> None:
        shown = _LOGIN.sub("//", url)
        try:
            parts = urlsplit(url)
            login = parts.username, parts.password
            self.name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            self._url = httpx.URL(parts._replace(netloc=parts.netloc.rpartition("@")[2],
                                                 path=parts.path or "/api/v1/write", fragment="").geturl())  # fmt: skip
        except (ValueError, httpx.InvalidURL):
            raise UserError("remote-write", f"is no URL: {shown!r}", fix=_EXAMPLE) from None
        require(self._url.scheme in ("http", "https") and bool(self._url.host), "remote-write",
                f"must be an http or https URL, got {shown!r}", fix=_EXAMPLE)  # fmt: skip
        require(token is None or (token.isascii() and token.isprintable()), TOKEN_VARIABLE,
                "must be a token of printable ASCII characters", fix="Look for a line break in it.")  # fmt: skip
        self._timeout = timeout
        self._client = httpx.Client(
            headers=CONTENT | {"User-Agent": "fedscape", "Accept-Encoding": "identity"} | _authorization(login, token),
            timeout=timeout,
            follow_redirects=False,
            verify=ssl.create_default_context(),  # the system's certificates; httpx has a list of its own
            # No proxy and no .netrc from the environment: a proxy that is set for downloads would get the samples of a
            # receiver on this machine, and over http their token. SSL_CERT_FILE still counts.
            trust_env=False,
        )

    def post(self, body: bytes) -> Answer:
        """Send one body, on a new connection where the receiver has closed the last one.

        A receiver may close a connection at the moment it is used again. Then the body is sent once more: a receiver
        that has taken it takes the same samples again.
        """
        try:
            try:
                return self._send(body)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                return self._send(body)
        except httpx.TimeoutException:
            return Answer("later", f"no answer within {self._timeout:g} seconds")
        except httpx.HTTPError as error:
            return Answer("later", str(error) or type(error).__name__)

    def _send(self, body: bytes) -> Answer:
        with self._client.stream("POST", self._url, content=body) as response:
            text = b"".join(islice(response.iter_raw(LONGEST_ANSWER), 1))
            return answer(response.status_code, text.decode("utf-8", "replace"))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


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
