"""Foreign text made safe to show: answers of servers, errors of nodes, names of files and columns."""

from __future__ import annotations

from typing import Any

from clients.core.shown.urls import bare_urls


def printable(text: str) -> str:
    r"""Return a text on one line, without characters that act on a terminal or a page.

    White space becomes spaces. Control characters, directions of writing (which can reverse what a reader sees) and
    halves of surrogate pairs (which cannot be encoded) become escapes.

    Example:
        >>> print(printable("a\tb \x1b[2Jc \u202ed"))
        a b \x1b[2Jc \u202ed
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def all_printable(value: Any) -> Any:
    r"""Return lists, tuples and dictionaries with every text in them printable; keys stay as they are.

    Example:
        >>> all_printable({"columns": ["a\x07", 1]})
        {'columns': ['a\\x07', 1]}
    """
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: all_printable(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(all_printable(item) for item in value)
    return value


def presentable(text: str) -> str:
    """Return a foreign text as a message shows it: printable, and with its URLs as scheme, host and path.

    Example:
        >>> presentable("moved to http://me:secret@host:80/path?key=secret")
        'moved to http://host:80/path'
    """
    return printable(bare_urls(text))


def excerpt(text: str, most: int = 300) -> str:
    """Return the start of a foreign text as a message shows it.

    Example:
        >>> excerpt("abcdef", 3)
        'abc...'
    """
    return presentable(text[:most]) + ("..." if len(text) > most else "")
