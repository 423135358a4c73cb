"""Finds the records of a CSV and their lines: a record in quotes may span lines; comments and empty lines are none."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np

from clients.core.arrays import I64, Array, Bool


@dataclass(frozen=True)
class Records:
    """The records of a text.

    Attributes:
        text: UTF-8 bytes.
        starts: where each record starts in `text`, int64 (R,).
        ends: where it ends, with its line end, int64 (R,).
        lines: its line in the file, from 1, int64 (R,).
        joined: whether the records follow each other in `text` with nothing between them.
        multiline: whether some record spans lines.
    """

    text: bytes
    starts: I64
    ends: I64
    lines: I64
    joined: bool
    multiline: bool

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.starts)

    def head(self, count: int) -> list[str]:
        """Return the first records as text."""
        pairs = zip(self.starts[:count].tolist(), self.ends[:count].tolist(), strict=True)
        return [self.text[a:b].decode("utf-8", "replace").rstrip("\r\n") for a, b in pairs]

    def body(self) -> bytes:
        """Return all records but the first, which is the header, with a line end after each."""
        if len(self) < 2:
            return b""
        if self.joined:
            body = self.text[int(self.starts[1]) : int(self.ends[-1])]
        else:
            pairs = zip(self.starts[1:].tolist(), self.ends[1:].tolist(), strict=True)
            body = b"".join(self.text[a:b] for a, b in pairs)
        return body if body.endswith(b"\n") else body + b"\n"


def split_records(text: bytes, *, skip_rows: int = 0, comment: str = "") -> Records:
    """Split a text into records.

    Args:
        text: UTF-8 bytes.
        skip_rows: lines before the first record.
        comment: lines that begin with it are no records.
    """
    if b"\r" in text and b"\n" not in text:
        text = text.replace(b"\r", b"\n")
    begin = 0
    for _ in range(skip_rows):
        at = text.find(b"\n", begin)
        begin = len(text) if at < 0 else at + 1
    letters = np.frombuffer(text, np.uint8)
    breaks = np.flatnonzero(letters[begin:] == 10) + begin + 1
    if len(text) > (breaks[-1] if len(breaks) else begin):
        breaks = np.append(breaks, len(text))
    starts = np.concatenate(([begin], breaks[:-1])).astype(np.int64)[: len(breaks)]
    lines = np.arange(len(breaks), dtype=np.int64) + skip_rows + 1
    quotes = np.flatnonzero(letters[begin:] == 34) + begin if b'"' in text else np.zeros(0, np.int64)
    noted = _comments(text, starts, breaks, quotes, comment.encode())
    inside, multiline = _inside_quotes(starts, breaks, quotes, noted)
    opens = ~inside  # a record starts on this line
    closes = np.append(opens[1:], True) if len(opens) else opens
    starts, lines, ends, noted = starts[opens], lines[opens], breaks[closes], noted[opens]
    keep = ~noted & ~_blank(text, letters, starts, ends)
    starts, ends, lines = starts[keep], ends[keep], lines[keep]
    joined = bool((ends[1:-1] == starts[2:]).all())  # the header may stand apart
    return Records(text, starts, ends, lines, joined, multiline)


def _comments(text: bytes, starts: I64, breaks: I64, quotes: I64, comment: bytes) -> Bool:
    """Return which lines are comments: they begin with the sign, outside quotes."""
    noted = np.zeros(len(starts), np.bool_)
    if not comment or comment not in text:
        return noted
    left_out = 0  # quotes inside comments open and close nothing
    first = np.frombuffer(text, np.uint8)[starts] == comment[0]
    for i in [i for i in np.flatnonzero(first).tolist() if text.startswith(comment, int(starts[i]))]:
        before, after = np.searchsorted(quotes, (starts[i], breaks[i]))
        if (before - left_out) % 2 == 0:
            noted[i] = True
            left_out += int(after - before)
    return noted


def _inside_quotes(starts: I64, breaks: I64, quotes: I64, noted: Bool) -> tuple[Bool, bool]:
    """Return which lines start inside quotes, and whether any does. An unpaired quote is taken as a letter."""
    if noted.any():
        quotes = quotes[~noted[np.searchsorted(breaks, quotes, side="right")]]
    if not len(quotes) or len(quotes) % 2:
        return np.zeros(len(starts), np.bool_), False
    inside = (np.searchsorted(quotes, starts) % 2).astype(np.bool_)
    return inside, bool(inside.any())


def _blank(text: bytes, letters: Array, starts: I64, ends: I64) -> Bool:
    first = letters[starts]
    blank = (first == 10) | ((first == 13) & (ends - starts <= 2))
    for i in np.flatnonzero(first == 32).tolist():
        blank[i] = not text[int(starts[i]) : int(ends[i])].strip()
    return np.asarray(blank, np.bool_)


def read_cells(records: Records, delimiter: str) -> tuple[list[int], list[list[str]]]:
    """Return the line and the cells of every record after the header, as the csv module reads them.

    It is slow, and for messages and files with unpaired quotes.
    """
    reader = csv.reader(io.StringIO(records.body().decode("utf-8", "replace"), newline=""), delimiter=delimiter)
    numbers: list[int] = []
    cells: list[list[str]] = []
    physical, line = records.lines[1:], 0
    for row in reader:
        at = int(physical[min(line, len(physical) - 1)]) if not records.multiline else -1
        line = reader.line_num
        if row:
            numbers.append(at)
            cells.append(row)
    if records.multiline and len(numbers) == len(physical):
        numbers = physical.tolist()
    return numbers, cells
