"""The types of a diagnosis: a cause, what was found of it, and the change that would remove it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.diagnosis.evidence import Evidence


@dataclass(frozen=True)
class Sign:
    """What speaks for a cause.

    Attributes:
        strength: the cause's statistic, in units of the threshold above which it is named; below 1 it is not.
        evidence: clauses for people, with numbers.
        clients: names of the clients that are the cause, where some are.
        explains: kinds that this evidence explains beside those of `Cause.explains`, and that do not explain it.
        round_index: the round in which it shows, where it shows in one.
    """

    strength: float
    evidence: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    round_index: int | None = None


NOTHING = Sign(0.0)


@dataclass(frozen=True)
class Change:
    """One change of the scenario that should remove a cause.

    Attributes:
        sets: keys and values, as after `--set`; empty where the scenario cannot say it.
        words: what to do, as an imperative sentence.
    """

    sets: Mapping[str, Any]
    words: str


def options_of(sets: Mapping[str, Any]) -> str:
    """Return changes as options of the command.

    Example:
        >>> options_of({"local.local_lr": 0.1, "model.hidden": [32, 32]})
        '--set local.local_lr=0.1 --set model.hidden=[32,32]'
    """
    return " ".join(
        f"--set {key}={str(value).replace(' ', '') if isinstance(value, list | tuple) else value}"
        for key, value in sets.items()
    )


@dataclass(frozen=True)
class Cause:
    """A cause that a diagnosis looks for.

    Attributes:
        kind: its key.
        title: its name, as a noun phrase.
        explains: the kinds of symptoms that it explains; where it is found, they rank after it.
        look: evidence -> sign.
        change: evidence -> the change that would remove it; None where there is none.
        weight: factor of its strength in the ranking; below 1 for causes that are often symptoms of others.
    """

    kind: str
    title: str
    look: Callable[[Evidence], Sign]
    change: Callable[[Evidence], Change | None]
    explains: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class Finding:
    """A cause that was found.

    Attributes:
        kind: the cause's key.
        title: its name.
        strength: at least 1; see `Sign`.
        evidence: clauses with numbers.
        change: what to try.
        clients: the clients that are the cause, where some are.
        because_of: the kind of the stronger finding that explains this one; empty where none does.
        round_index: the round in which it shows; None where it is of the whole run.
    """

    kind: str
    title: str
    strength: float
    evidence: tuple[str, ...]
    change: Change | None = None
    clients: tuple[str, ...] = ()
    because_of: str = ""
    round_index: int | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The causes of a run's course, the most likely first.

    Attributes:
        findings: none for a healthy run.
        strengths: the strength of every cause that was looked for, also below 1.
        blind: what could not be looked for and why, a clause each.
    """

    findings: tuple[Finding, ...]
    strengths: Mapping[str, float] = field(default_factory=dict)
    blind: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether no cause was found."""
        return not self.findings
