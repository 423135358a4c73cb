"""URLs as messages show them: scheme, host and path. A user, a password, a query and a fragment may be secret."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

HIDDEN = "(hidden)"
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|https?:/)[^\s\"'<>`]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?/*")
_AT = re.compile(r"@|%40", re.IGNORECASE)
_PORT = re.compile(r":\d*$")
_ENDS = ".,;:!?)]}"


def bare_url(url: str) -> str:
    """Return the scheme, the host and the path of a URL, which may be malformed.

    A part that may belong to a password is left out: one before an `@`, and a port that is no number. Where an `@`
    follows the host, as in a password with a slash, the scheme alone is left.

    Example:
        >>> bare_url("https://me:secret@host:9090/api/v1/write?key=secret#here")
        'https://host:9090/api/v1/write'
        >>> bare_url("http://me:sec/ret@host/x"), bare_url("http://me:secret/x"), bare_url("me:secret@host")
        ('http://(hidden)', 'http://me/x', '(hidden)')
    """
    url = url.strip()
    scheme = _SCHEME.match(url)
    start = scheme[0] if scheme is not None and scheme[0].endswith("//") else ""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets without an IPv6 address
        return start + HIDDEN
    if "@" in parts.path + parts.query + parts.fragment:
        return start + HIDDEN
    if not parts.netloc:
        return re.split(r"[?#]", url, maxsplit=1)[0]
    host = _AT.split(parts.netloc)[-1]
    port = _PORT.search(host)
    if port is None and not host.endswith("]"):
        host = host.partition(":")[0]
    return (f"{parts.scheme}:" if parts.scheme else "") + "//" + host + parts.path


def bare_urls(text: str) -> str:
    """Return a text with each URL in it as scheme, host and path.

    Example:
        >>> bare_urls("see 'http://a/b?c=d', or http://e:f@g.")
        "see 'http://a/b', or http://g."
    """
    return _URL.sub(_bare, text) if ":/" in text else text


def _bare(found: re.Match[str]) -> str:
    url = found[0].rstrip(_ENDS)
    return bare_url(url) + found[0][len(url) :]
