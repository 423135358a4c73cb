"""How a run ended: a short headline, and the reasons as a list."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from server.convergence.condition import Condition, Sign

Outcome = Literal["converged", "diverged", "stopped", "interrupted"]
RESUME = "fedscape resume RUN"
"""The command that continues a run, without its folder: a folder may move, and a report names no path."""


@dataclass(frozen=True)
class Verdict:
    """How a run ended.

    Attributes:
        outcome: converged, diverged, stopped (the budget is spent, a metric stopped improving away from its best, or
            the criteria held and the run still moves) or interrupted.
        round_index: the round after which it ended.
        reasons: why, one clause each.
        criteria: the criteria that held, where they ended the run.
        quantity: the fact that diverged, for diverged.
        value: its value then.
        threshold: the limit it crossed; None where the value is not a finite number.
        hint: what usually helps, where something does.
        condition: what happened in the run; None before its end, and in records of earlier versions.
        signs: the three signs of convergence; none then.
    """

    outcome: Outcome
    round_index: int
    reasons: tuple[str, ...]
    criteria: tuple[str, ...] = ()
    quantity: str | None = None
    value: float | None = None
    threshold: float | None = None
    hint: str = ""
    condition: Condition | None = None
    signs: tuple[Sign, ...] = ()

    @property
    def headline(self) -> str:
        """The verdict in a few words.

        Example:
            >>> Verdict("converged", 301, ()).headline
            'Converged at round 301'
            >>> Verdict("stopped", 12, (), ("target",)).headline
            'Stopped on target at round 12'
        """
        return headline(self.outcome, self.round_index, self.criteria)

    @property
    def reason(self) -> str:
        """All reasons as one clause."""
        return "; ".join(self.reasons)

    def __str__(self) -> str:
        """Return the headline and the reasons as one sentence.

        Example:
            >>> print(Verdict("stopped", 20, ("the budget of 20 rounds is spent",)))
            Stopped at round 20: the budget of 20 rounds is spent
        """
        return f"{self.headline}: {self.reason}" if self.reasons else self.headline

    def to_outcome(self) -> dict[str, Any]:
        """Return the keys of outcome.json that make a verdict."""
        return {
            "outcome": self.outcome,
            "round": self.round_index,
            "headline": self.headline,
            "reasons": list(self.reasons),
            "words": str(self),
            "reason": self.reason,
            "criteria": list(self.criteria),
            "quantity": self.quantity,
            "value": self.value,
            "threshold": self.threshold,
            "hint": self.hint,
            "condition": self.condition.to_outcome() if self.condition is not None else None,
            "signs": [sign.to_outcome() for sign in self.signs],
        }

    @classmethod
    def from_outcome(cls, outcome: Mapping[str, Any]) -> Verdict:
        """Return the verdict in a run's outcome.json. Files before version 0.2 have one `reason` instead of `reasons`.

        Raises:
            KeyError: outcome.json lacks what makes a verdict.

        Example:
            >>> Verdict.from_outcome({"outcome": "converged", "round": 9, "reason": "it held"}).reasons
            ('it held',)
        """
        how, round_index = outcome["outcome"], outcome["round"]
        reasons = outcome["reasons"] if "reasons" in outcome else [outcome["reason"]]
        return cls(
            how,
            round_index,
            tuple(reasons),
            tuple(outcome.get("criteria") or ()),
            outcome.get("quantity"),
            outcome.get("value"),
            outcome.get("threshold"),
            outcome.get("hint") or "",
            Condition.from_outcome(outcome["condition"]) if outcome.get("condition") else None,
            tuple(Sign(**sign) for sign in outcome.get("signs") or ()),
        )


def headline(outcome: str, round_index: int | str, criteria: Collection[str] = ()) -> str:
    """Return how a run ended, and when, in a few words.

    A run that its target alone ended, and that did not converge, stopped on target.
    """
    if outcome == "stopped" and tuple(criteria) == ("target",):
        return f"Stopped on target at round {round_index}"
    return f"{outcome.capitalize()} at round {round_index}"
