"""The list of known survivors, `survivors.txt`: blocks with an empty line between them; comments begin with #."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("survivors.txt")


@dataclass(frozen=True, order=True)
class Mutant:
    """A change of one function.

    Attributes:
        place: module and function; line numbers would move with each edit.
        lines: the lines taken away and added, each with its sign.
    """

    place: str
    lines: tuple[str, ...]

    def block(self, reason: str) -> str:
        """Return its entry of the list."""
        return "\n".join((self.place, *self.lines, f"why: {reason}")) + "\n"


def read_list(text: str) -> list[Mutant]:
    """Return the entries of a list; each needs a reason."""
    found = []
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for block in filter(None, map(str.strip, text.split("\n\n"))):
        place, *lines = block.splitlines()
        reason = lines.pop() if lines else ""
        if not re.fullmatch(r"why: (?!\.\.\.$)\S.*", reason):
            raise ValueError(f"the entry of {place} ends in {reason!r}; its last line must be 'why: REASON'")
        found.append(Mutant(place, tuple(lines)))
    return found
