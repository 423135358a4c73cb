"""The few parts of protobuf's wire format that exporters write: numbers and length-delimited fields."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """Return a number >= 0 in base 128, lowest first.

    Example:
        >>> varint(300).hex()
        'ac02'
    """
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field: text, bytes or a message.

    Example:
        >>> field(1, b"abc").hex()
        '0a03616263'
    """
    return varint(number << 3 | 2) + varint(len(content)) + content


def utf8(text: str) -> bytes:
    """Return text as protobuf has it; what is no character becomes a question mark."""
    return text.encode("utf-8", "replace")
