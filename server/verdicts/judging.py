"""The final verdict of a run: what its criteria found, its condition and its signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from server.convergence.condition import Condition
from server.convergence.monitor import ConvergenceOptions
from server.convergence.verdict import Verdict
from server.verdicts.condition import condition_of
from server.verdicts.reading import Line, read
from server.verdicts.signs import signs_of

NOT_CONVERGED = ("diverging", "overfitted", "oscillating", "forgetting", "stuck", "improving", "too_short")
"""Conditions of which no run is said to have converged, whatever criterion held."""


def judged(verdict: Verdict, lines: Sequence[Line], convergence: ConvergenceOptions) -> Verdict:
    """Return a verdict with the run's condition and signs.

    Where the criteria say converged and the condition contradicts it, the verdict is `stopped`, and the condition's
    words are its last reason. So a run is said to have converged only where its condition is that of a run at rest.
    """
    lines = read(lines)
    condition = condition_of(lines, convergence, diverged=verdict.outcome == "diverged")
    verdict = replace(verdict, condition=condition, signs=signs_of(lines, convergence))
    if verdict.outcome != "converged" or not contradicts(condition):
        return verdict
    early = condition.kind == "too_short" and "rounds_needed" not in condition.numbers
    says = "whether it converged cannot be said" if early else "it has not converged"
    return replace(verdict, outcome="stopped", reasons=(*verdict.reasons, f"{says}: {condition.words}"))


def contradicts(condition: Condition) -> bool:
    """Return whether a condition contradicts that a run converged.

    Besides `NOT_CONVERGED` it is one that left its best validation, to rest above it or not.

    Example:
        >>> contradicts(Condition("noise_floor", 9, "it rests")), contradicts(Condition("overfitted", 9, "it rose"))
        (False, True)
    """
    left_its_best = condition.subkind == "biased" or (condition.kind == "unclear" and "rise" in condition.numbers)
    return condition.kind in NOT_CONVERGED or left_its_best
