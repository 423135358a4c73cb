"""The condition of a run and the signs of convergence, as they are written into outcome.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal[
    "converged",
    "plateaued",
    "improving",
    "noise_floor",
    "oscillating",
    "diverging",
    "overfitted",
    "stuck",
    "forgetting",
    "too_short",
    "unclear",
]
KINDS: tuple[str, ...] = get_args(Kind)
Answer = Literal["yes", "no", "not_measured"]


@dataclass(frozen=True)
class Condition:
    """What happened in a run.

    Attributes:
        kind: one of `Kind`.
        round_index: the round since which it holds, such as the best round of a run that overfits.
        words: what happened, as one clause with its numbers.
        numbers: the numbers of that clause by name, in the unit of the loss unless a name says otherwise.
        subkind: of a run that is stuck: vanishing_gradients, dead_units, saddle or small_steps; of one that left its
            best: biased; of one at rest that still improves, by little: slowly; empty where it is unknown or there is
            none.
    """

    kind: Kind
    round_index: int
    words: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    subkind: str = ""

    def __str__(self) -> str:
        """Return the clause."""
        return self.words

    def to_outcome(self) -> dict[str, Any]:
        """Return the value of `condition` in outcome.json."""
        found = {"kind": self.kind, "round": self.round_index, "words": self.words, "numbers": dict(self.numbers)}
        return found | ({"subkind": self.subkind} if self.subkind else {})

    @classmethod
    def from_outcome(cls, found: Mapping[str, Any]) -> Condition:
        """Return the condition in outcome.json.

        Example:
            >>> Condition.from_outcome({"kind": "stuck", "round": 0, "words": "it never learnt"}).kind
            'stuck'
        """
        numbers, subkind = found.get("numbers") or {}, found.get("subkind") or ""
        return cls(found["kind"], found["round"], found["words"], dict(numbers), subkind)


@dataclass(frozen=True)
class Sign:
    """One of the three signs of convergence.

    Attributes:
        name: parameters_settle, outputs_agree or validation_plateaus.
        says: yes, no or not_measured.
        number: what is compared; None where it is not measured.
        words: the answer as a clause.
    """

    name: str
    says: Answer
    number: float | None
    words: str

    def to_outcome(self) -> dict[str, Any]:
        """Return an element of `signs` in outcome.json."""
        return {"name": self.name, "says": self.says, "number": self.number, "words": self.words}
