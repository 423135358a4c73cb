"""The dialect of a CSV: what the options give, and what is found in the first lines."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from dataclasses import dataclass

from clients.core.errors import require

DELIMITERS = ("\t", ";", "|", ",")
"""Separators that are looked for. A comma comes last, since it may be a decimal mark."""
USUAL_MISSING = ("", "NA", "NaN", "nan", "NULL", "null", "-nan", "-NaN")
"""Texts that mark a missing value without being listed."""
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Dialect:
    """How a CSV is written.

    Attributes:
        delimiter: the separator of columns; empty if it is to be found.
        decimal: "." or ","; empty if it is to be found.
        thousands: the separator of groups of three digits; empty for none.
        encoding: a codec of Python; empty if it is to be found.
        comment: lines that begin with it are left out; empty for none.
        skip_rows: lines before the header.
        missing: texts that mark a missing value, besides `USUAL_MISSING`.
    """

    delimiter: str = ""
    decimal: str = ""
    thousands: str = ""
    encoding: str = ""
    comment: str = ""
    skip_rows: int = 0
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one = not self.delimiter or (len(self.delimiter) == 1 and self.delimiter not in '"\r\n\0')
        require(one, "delimiter", f"must be one character, such as ';' or '\\t', got {self.delimiter!r}")
        require(self.decimal in ("", ".", ","), "decimal", f"must be '.' or ',', got {self.decimal!r}")
        allowed = ("", ",", ".", " ", "'", "_")
        named = "',', '.', ' ', \"'\" or '_'"
        require(self.thousands in allowed, "thousands", f"must be {named}, got {self.thousands!r}")
        decimal = self.decimal or "."
        differs = not self.thousands or self.thousands != decimal or not self.decimal
        require(differs, "thousands", f"must differ from decimal, got {self.thousands!r} for both")
        require(self.skip_rows >= 0, "skip_rows", f"must be at least 0, got {self.skip_rows}")
        require(is_encoding(self.encoding), "encoding", f"is not known: {self.encoding!r}", fix="Try 'cp1252'.")


def is_encoding(name: str) -> bool:
    """Return whether Python has a codec of text of this name, or the name is empty."""
    try:
        "x".encode(name or "utf-8")
    except LookupError:
        return False
    return True


def find_encoding(raw: bytes) -> str:
    """Return the encoding of a text: by its byte order mark, else UTF-8 if it is valid, else cp1252.

    cp1252 is Latin-1 with the signs of Windows. It cannot be distinguished from other encodings of one byte a letter.

    Example:
        >>> find_encoding("Köln".encode("latin-1"))
        'cp1252'
    """
    for mark, name in _BOMS.items():
        if raw.startswith(mark):
            return name
    if 4 * raw[:200].count(0) > len(raw[:200]):  # every second byte of Latin letters
        return "utf-16-be" if raw[:1] == b"\0" else "utf-16-le"
    for name in ("utf-8", "cp1252"):
        try:
            raw.decode(name)
        except UnicodeDecodeError:
            continue
        return name
    return "latin-1"


def find_delimiter(lines: list[str]) -> str:
    """Return the separator that cuts the first lines into equally many columns, more than one; a comma if none does.

    Example:
        >>> find_delimiter(["a;b", "1,5;2,5"])
        ';'
    """
    best, score = ",", (0.0, 0)
    for candidate in DELIMITERS:
        widths = [len(cells) for cells in cells_of(lines, candidate)]
        if not widths or widths[0] < 2:
            continue
        # A header may lack the separator at the end that all rows have.
        commonest = Counter(widths[1:] or widths).most_common(1)[0]
        if commonest[0] - widths[0] not in (0, 1):
            continue
        share = commonest[1] / len(widths[1:] or widths)
        if (share, 0) > (score[0], 0) or (candidate != "," and share == score[0] and widths[0] > score[1]):
            best, score = candidate, (share, widths[0])
    return best


def cells_of(lines: list[str], delimiter: str) -> list[list[str]]:
    """Return the cells of lines, as the csv module cuts them."""
    return list(csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=delimiter))
