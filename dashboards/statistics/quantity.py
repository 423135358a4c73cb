"""What the statistics need to know of a compared number: its name, the better direction, and its wording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Better = Literal["lower", "higher"] | None


def three_digits(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:.3g}"


@dataclass(frozen=True)
class Quantity:
    """A number of each run that arms are compared by.

    Attributes:
        key: its column in a study's table; `<key>_at_least` is the column of its lower bounds.
        name: its name for people.
        better: the better direction; None where neither is.
        shown: formats a value, or the size of a difference.
        relative: arms are compared by their ratio where all values are positive, else by their difference.
        noun: its name in a sentence; the name up to its first comma where empty.
        verb: what an arm does with it in a sentence.
        less: the word for a smaller value.
        more: the word for a larger value.
    """

    key: str
    name: str
    better: Better
    shown: Callable[[float], str] = field(default=three_digits, kw_only=True)
    relative: bool = field(default=True, kw_only=True)
    noun: str = field(default="", kw_only=True)
    verb: str = field(default="has", kw_only=True)
    less: str = field(default="lower", kw_only=True)
    more: str = field(default="higher", kw_only=True)

    @property
    def spoken(self) -> str:
        """Return the name in a sentence."""
        return self.noun or self.name.partition(",")[0]
