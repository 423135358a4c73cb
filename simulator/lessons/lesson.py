"""What a lesson is: arms of one scene, numbers of their runs, a text with the numbers in it, and what it claims."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.runs.run import Run

THEN = "then_"
"""Before the name of a number of the changed lesson in a text."""
Table = Mapping[str, Any]
Numbers = Mapping[str, float]
Runs = Mapping[str, "Run"]
"""The finished run of each arm, by the arm's name, in the lesson's order."""


@dataclass(frozen=True)
class Claim:
    """What a lesson asserts.

    Attributes:
        words: one sentence.
        holds: the numbers -> whether it is true of them.
    """

    words: str
    holds: Callable[[Numbers], bool]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A lesson: a row of `simulator.lessons.table`.

    Texts are formatted with the numbers: "the factor is {factor:.3f}".

    Attributes:
        name: in commands, words joined by hyphens.
        title: one line.
        group: the group that lists show it in.
        question: what the arms answer, one sentence.
        scene: the scenario that all arms share, as a table.
        arms: by name, the keys in which an arm differs from the scene, with dots: {"local.local_lr": 0.1}.
        numbers: the runs of the arms -> named numbers; those that theory predicts follow from the runs' scenarios.
        look: what to look at, with the numbers.
        change: what to change and what comes out, with the numbers of `then`: {then_NAME}.
        trial: the change of `change`, such as "local.local_lr=0.2".
        theory: what theory says, with its source.
        claims: what the numbers show.
        then: numbers after the change, as the text shows them; a test plays the change and compares.
        outcome: what the changed lesson's numbers show: what `change` says of them.
        within: the share by which `then` may differ between machines: more where training is chaotic, as of a GAN.
    """

    name: str
    title: str
    group: str
    question: str
    scene: Table
    arms: Mapping[str, Table]
    numbers: Callable[[Runs], Numbers]
    look: str
    change: str
    trial: tuple[str, ...]
    theory: str
    claims: tuple[Claim, ...]
    then: Numbers
    outcome: tuple[Claim, ...]
    within: float = 0.03

    def texts(self, numbers: Numbers) -> dict[str, str]:
        """Return the paragraphs by their headings, with the numbers filled in.

        Args:
            numbers: those of `numbers`; inf is written as "never", nan as "no number". The format "answer" writes 1 as
                "yes", 0 as "no" and nan as "not measured".
        """
        after = {f"{THEN}{name}": value for name, value in self.then.items()}
        parts = {"What to look at": self.look, "What to change": self.change, "What theory says": self.theory}
        return {heading: _FORMATTER.format(text, **numbers, **after) for heading, text in parts.items()}

    def __repr__(self) -> str:
        """Return the name and the title; the rest is long."""
        return f"<Lesson {self.name}: {self.title}>"


class _Formatter(string.Formatter):
    """str.format that writes "never" for a round that does not come (inf), "no number" for nan, and answers."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Return a field as text."""
        if format_spec == "answer":
            return {1.0: "yes", 0.0: "no"}.get(value, "not measured")
        if isinstance(value, float) and not math.isfinite(value):
            return "never" if value == math.inf else "no number"
        return str(super().format_field(value, format_spec))


_FORMATTER = _Formatter()


def fields_of(text: str) -> set[str]:
    """Return the names of the numbers that a text has.

    Example:
        >>> sorted(fields_of("from {first:.2f} to {last}"))
        ['first', 'last']
    """
    return {field for _, field, _, _ in _FORMATTER.parse(text) if field}
