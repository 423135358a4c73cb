"""What was read, and what was found, skipped, filled or dropped on the way: for the record and for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from clients.tables.frame import Frame
from clients.tables.text.steps import show_step

Notes = dict[str, str | int | float]
"""Facts about how the data were read, for the record."""

_LISTED = 5  # the most names that a sentence lists
_SIGNS = {"\t": "tab", " ": "space"}


@dataclass(frozen=True)
class Reading:
    """An account of one reading, which grows as the data are read.

    Attributes:
        record: facts for the record.
        parts: parts of the sentence that begins with "read as".
        sentences: further sentences.
    """

    record: Notes = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def add(self, key: str, count: int) -> None:
        """Add to a count of the record."""
        self.record[key] = int(self.record.get(key, 0)) + count

    def count(self, key: str) -> int:
        """Return a count of the record, 0 where it is not."""
        return int(self.record.get(key, 0))

    def say(self, sentence: str) -> None:
        """Add a sentence, once."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)

    def notices(self) -> tuple[str, ...]:
        """Return the sentences: first how the data were read, then what else was found."""
        parts = list(self.parts)
        if step := self.record.get("frequency"):
            parts.append(f"every {step}")
        for key, words in _COUNTS.items():
            if count := self.count(key):
                parts.append(counted(count, *words))
        whole = [f"read as: {', '.join(parts)}"] if parts else []
        if whole and (dropped := self.count("windows_dropped")):
            whole[0] += f"; {dropped:,} of {self.count('windows'):,} windows dropped (gaps)"
        return (*whole, *self.sentences)


_COUNTS = {
    "values_missing": ("value", "missing"),
    "values_marked": ("value", "missing by missing_value"),
    "rows_inserted": ("missing row", "inserted"),
    "values_interpolated": ("value", "filled"),
}


def counted(count: int, noun: str, *rest: str) -> str:
    """Return a number of things in words.

    Example:
        >>> counted(1, "value", "missing"), counted(1200, "row")
        ('1 value missing', '1,200 rows')
    """
    return " ".join([f"{count:,}", f"{noun}s" if count != 1 else noun, *rest])


def listed(names: Iterable[str], mark: str = ", ") -> str:
    """Return names for a sentence, the first few of many.

    Example:
        >>> listed("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    known = list(names)
    rest = len(known) - _LISTED
    return mark.join(known[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def describe_files(reading: Reading, frames: Sequence[Frame], remarks: Sequence[str]) -> None:
    """Note the files and their dialect.

    Args:
        reading: gets the facts.
        frames: what was read.
        remarks: what was left out when the files were found.
    """
    files = [source.file for frame in frames for source in frame.sources]
    order = "" if len(files) == 1 else f" in order of their names, from {files[0].name} to {files[-1].name}"
    reading.parts.append(counted(len(files), "file") + order)
    dialects = [frame.dialect for frame in frames if frame.dialect is not None]
    for key, values in (
        ("delimiter", [d.delimiter for d in dialects]),
        ("encoding", [d.encoding for d in dialects]),
        ("decimal", [f.numerals.decimal for f in frames if f.dialect is not None]),
    ):
        found = list(dict.fromkeys(values))
        if found:
            reading.record[key] = " ".join(found)
        if key == "encoding":
            reading.parts.extend(found)
        elif key == "delimiter" or found not in ([], ["."]):
            word = "decimal " if key == "decimal" else ""
            reading.parts.extend(_SIGNS.get(v, f"{word}'{v}'") for v in found)
    if any(d.encoding == "cp1252" for d in dialects):
        letters = next((n for f in frames for n in f.names if not n.isascii()), "")
        shown = f" (a column is {letters!r})" if letters else ""
        reading.say(f"a file is not UTF-8 and is read as cp1252{shown}; set encoding if names look wrong")
    for remark in dict.fromkeys([*remarks, *(r for frame in frames for r in frame.remarks)]):
        reading.say(remark)


def describe_steps(reading: Reading, steps: Sequence[tuple[str, int]]) -> None:
    """Note the time between rows of each client, in microseconds; 0 is unknown."""
    clients: dict[int, list[str]] = {}
    for name, step in steps:
        if step:
            clients.setdefault(step, []).append(name)
    if clients:
        ordered = sorted(clients, key=lambda step: -len(clients[step]))
        reading.record["frequency"] = " or ".join(map(show_step, ordered))
    if len(clients) > 1:
        shown = "; ".join(f"{show_step(step)}: {listed(clients[step])}" for step in ordered)
        reading.say(
            f"steps differ between clients, and a forecast is by steps ({shown}); set frequency to refuse others"
        )


def describe_missing(reading: Reading, frames: Sequence[Frame], names: Sequence[str]) -> None:
    """Note the texts that marked missing values in columns that are used."""
    markers: dict[str, int] = {}
    for frame in frames:
        for name in names:
            for text, count in frame.parsed(name).markers.items():
                markers[text] = markers.get(text, 0) + count
    if markers:
        reading.add("values_missing", sum(markers.values()))
        shown = [f"{'empty' if text == '' else repr(text)} {count:,}" for text, count in sorted(markers.items())]
        reading.say(f"missing values: {', '.join(shown)}")
        reading.record["missing_markers"] = ", ".join(shown)
    truth = [name for frame in frames for name in names if frame.parsed(name).truth]
    if truth:
        reading.say(f"true and false are read as 1 and 0: {listed(dict.fromkeys(truth))}")
