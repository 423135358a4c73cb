"""Checksums inside the files of a run's folder: a JSON object's first key, a scenario's last line, a record's lines.

A line of a record has the hash of itself and of the line before it (`chain`), so a changed, removed or doubled line is
noticed at that line. Checksums find damage. They do not stop a person who wants to deceive, who can compute them too.
"""

from __future__ import annotations

import hashlib
import re

UNLIKE = "is damaged: its content does not have its checksum"
ACCEPT = "Restore it from a copy. To accept it as it is, remove its key checksum."

START = bytes(8)
"""The head of a chain without lines."""
_JSON = re.compile(rb'\{"checksum": "([0-9a-f]{32})",')
_TOML = re.compile(rb"# checksum: ([0-9a-f]{32})\n\Z")
_LINE = re.compile(rb', "chain": "([0-9a-f]{16})"\}\Z')


def checksum(content: bytes | memoryview) -> str:
    """Return the checksum of a file's content, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def sealed_json(text: str) -> str:
    """Return the text of a JSON object with its checksum as first key.

    Example:
        >>> sealed_json('{"round": 7}')
        '{"checksum": "efa8ad7a3f6f76dd2944ee7fe31ab755","round": 7}'
    """
    return f'{{"checksum": "{checksum(text.encode())}",{text[1:]}'


def unsealed_json(raw: bytes) -> tuple[bytes, bool | None]:
    """Return the text of a JSON object without its checksum, and whether it has that checksum; None without one."""
    found = _JSON.match(raw)
    if found is None:
        return raw, None
    content = b"{" + raw[found.end() :].removesuffix(b"\n")
    return content, checksum(content) == found[1].decode()


def sealed_toml(text: str) -> str:
    """Return a scenario's text with its checksum as last line, a comment."""
    text = text if text.endswith("\n") else f"{text}\n"
    return f"{text}# checksum: {checksum(text.encode())}\n"


def toml_problem(raw: bytes) -> str | None:
    """Return what the checksum of a scenario's text shows: empty if it fits; None if there is none."""
    found = _TOML.search(raw)
    if found is None:
        return None
    return "" if checksum(raw[: found.start()]) == found[1].decode() else "was changed after the run wrote it"


def unsealed_toml(raw: bytes) -> bytes:
    """Return a scenario's text without its checksum."""
    found = _TOML.search(raw)
    return raw if found is None else raw[: found.start()]


def link(head: bytes, content: bytes) -> bytes:
    """Return the head of a chain after one more line.

    Args:
        head: the head before it.
        content: the line's JSON without its own link and without the line's end.
    """
    return hashlib.blake2b(content, key=head, digest_size=8).digest()


def chained(content: bytes, head: bytes) -> bytes:
    """Return a line with its link.

    Args:
        content: a JSON object with at least one key.
        head: the chain's head after the line, from `link`.
    """
    return content[:-1] + b', "chain": "' + head.hex().encode() + b'"}'


def unchained(raw: bytes) -> tuple[bytes, bytes | None]:
    """Return a line without its link, and the head that the link states; None for a line without a link."""
    found = _LINE.search(raw, max(0, len(raw) - 32))
    if found is None:
        return raw, None
    return raw[: found.start()] + b"}", bytes.fromhex(found[1].decode())
