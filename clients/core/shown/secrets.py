"""Secrets: tokens, from the environment or a file, and the removal of secrets from text."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from clients.core.errors import UserError, require
from clients.core.shown.urls import HIDDEN

FILE = "_FILE"
"""The end of the variable that names a file with the token."""
LONGEST_TOKEN = 1 << 16
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|LOGIN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
"""Names of variables that hold secrets."""
SHORTEST_SECRET = 4
"""A shorter word occurs in any text; removing it would make the text unreadable and show what was removed."""


def token_of(variable: str) -> str | None:
    """Return the token of an environment variable, or of the file that the variable with `_FILE` names.

    Returns:
        The token without white space around it; None where neither variable is set.

    Raises:
        UserError: the token is empty or has characters that no header holds, the file cannot be read, or both are set.
    """
    found = _given(variable)
    return None if found is None else checked_token(*found)


def login_of(variable: str) -> str | None:
    """Return the login `user:password` of an environment variable, or of the file that the one with `_FILE` names.

    Returns:
        The login as a URL holds it, percent-encoded; None where neither variable is set.

    Raises:
        UserError: it is no login, the file cannot be read, or both are set. The message never has the login.
    """
    found = _given(variable)
    if found is None:
        return None
    user, colon, password = found[0].strip("\r\n").partition(":")
    is_one = bool(user and colon and password) and (user + password).isprintable()
    require(is_one, found[1], "must be user:password on one line", fix="Write the login alone.")
    return f"{quote(user, safe='')}:{quote(password, safe='')}"


def child_environment() -> dict[str, str]:
    """Return the environment for a program that needs no secret, such as a compiler: without variables of secrets."""
    return {name: value for name, value in os.environ.items() if not _SECRET.search(name)}


def _given(variable: str) -> tuple[str, str] | None:
    """Return the text of a variable, or of the file that the one with `_FILE` names, and the variable's name.

    Raises:
        UserError: the file cannot be read, or both are set.
    """
    given, file = os.environ.get(variable), os.environ.get(variable + FILE)
    if file is None:
        return None if given is None else (given, variable)
    require(given is None, variable, f"and {variable + FILE} are both set", fix="Unset one of them.")
    try:
        with Path(file).expanduser().open("rb") as opened:
            content = opened.read(LONGEST_TOKEN + 1)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(variable + FILE, f"names a file that cannot be read ({reason})") from None
    require(len(content) <= LONGEST_TOKEN, variable + FILE, f"names a file of more than {LONGEST_TOKEN:,} bytes")
    return content.decode("utf-8", "replace"), variable + FILE


def checked_token(token: str, field: str) -> str:
    """Return a token without white space around it.

    Raises:
        UserError: it is empty, or has characters that no header holds. The message never has the token.
    """
    token = token.strip()
    require(bool(token), field, "is set, and its token is empty", fix="Give a token, or unset it.")
    if not (token.isascii() and token.isprintable() and " " not in token):
        problems = (("a line break", set("\r\n")), ("white space", set(" \t")))
        problem = next((name for name, few in problems if few & set(token)), "a character that is no printable ASCII")
        fix = "Give the token alone, without 'Bearer' or another line."
        raise UserError(field, f"must be a token that a header can hold, and it has {problem}", fix=fix)
    return token


class Secrets:
    """Words that no text may show.

    Args:
        words: the secrets; None and words shorter than `SHORTEST_SECRET` are left out.
    """

    def __init__(self, words: Iterable[str | None]) -> None:
        forms = {form for word in words if word and len(word) >= SHORTEST_SECRET for form in _forms(word)}
        self._forms = sorted(forms, key=len, reverse=True)

    def __repr__(self) -> str:
        """Return the number of forms only."""
        return f"<Secrets: {len(self._forms)} forms>"

    def hidden(self, text: str) -> str:
        """Return a text without the secrets, also where a server has encoded them.

        Example:
            >>> Secrets(["p4ss/word"]).hidden("bad token p4ss/word, p4ss%2Fword")
            'bad token (hidden), (hidden)'
        """
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        return text


def secrets_of(url: str, *more: str | None) -> Secrets:
    """Return the secrets of a URL (its password, and the values of its query) and further ones."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return Secrets(more)
    login = parts.netloc.rpartition("@")[0]
    user, _, password = login.partition(":")
    basic = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode() if login else None
    values = [value for _, value in parse_qsl(parts.query)] or [parts.query]
    return Secrets([password or user, unquote(password or user), basic, parts.query, *values, *more])


def _forms(word: str) -> set[str]:
    """Return a secret as it is, and as URLs, JSON, HTML and base64 have it."""
    return {
        word, quote(word, safe=""), quote(word), quote_plus(word), json.dumps(word)[1:-1], html.escape(word),
        repr(word)[1:-1], base64.b64encode(word.encode("utf-8", "replace")).decode().rstrip("="),
    }  # fmt: skip
