"""What a convergence criterion is, what it remembers, and how one round updates it.

A criterion is a pure fold over rounds: its options, its state before and the facts of a round give its next
`CriterionState`. It holds once its condition was met in enough measured rounds in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from server.convergence.facts import label_of, shown

O = TypeVar("O")  # noqa: E741 (the options of a row)
Values = tuple[float, ...]


@dataclass(frozen=True)
class Best:
    """The best value of a metric so far, its round, and the number of measured rounds since that did not beat it."""

    value: float
    round_index: int
    stale: int = 0


@dataclass(frozen=True)
class CriterionState:
    """A criterion after the last round that measured its facts.

    Attributes:
        value: the value that is compared.
        threshold: the value it is compared with.
        held: measured rounds in a row, that one included, in which the condition was met.
        distance: 0 where the condition was met, else how far it is from being met: relative to the threshold where
            that is not 0; for criteria that count rounds, the share of rounds that are missing.
        words: the state as a clause for people.
        since: the round in which `held` began to count.
        bests: the best values of its metrics.
        warning: a clause on what looks wrong, or nothing.
        recent: the measured values since the best, newest last; the newest `noise.WINDOW` of them.
        rests: whether the values are at rest, so that the run has converged where the criterion ends it; where they
            are not, it has stopped improving.
        rising: measured rounds in a row in which the value rose.
    """

    value: float
    threshold: float
    held: int
    distance: float
    words: str
    since: int = 0
    bests: tuple[Best, ...] = ()
    warning: str = ""
    recent: Values = ()
    rests: bool = True
    rising: int = 0


@dataclass(frozen=True)
class Criterion(Generic[O]):
    """One row of `criteria.CRITERIA`.

    Attributes:
        options: the class of its options.
        label: its name for people.
        facts: options -> the names of the facts it needs.
        needed: options -> measured rounds in a row in which its condition must be met.
        update: (options, state before or None, round, those facts, all finite) -> state.
        counts: whether its distance counts rounds instead of comparing a value with a threshold.
    """

    options: type[O]
    label: str
    facts: Callable[[O], tuple[str, ...]]
    needed: Callable[[O], int]
    update: Callable[[O, CriterionState | None, int, Values], CriterionState]
    counts: bool = False


def update_criterion(
    criterion: Criterion[O],
    options: O,
    before: CriterionState | None,
    round_index: int,
    facts: Mapping[str, float | None],
) -> CriterionState | None:
    """Return the state after a round; None where the round did not measure what the criterion needs.

    A fact that is not finite resets `held` and changes nothing else that the criterion remembers.
    """
    names = criterion.facts(options)
    found = [facts.get(name) for name in names]
    values = tuple(float(value) for value in found if value is not None)
    if len(values) < len(names):
        return None
    if all(math.isfinite(value) for value in values):
        return criterion.update(options, before, round_index, values)
    words = f"{subject(names)} not finite"
    if before is None:
        return CriterionState(math.nan, math.nan, 0, math.inf, words)
    return replace(before, value=math.nan, held=0, distance=math.inf, words=words, warning="")


def subject(names: tuple[str, ...]) -> str:
    """Return what people call some facts, with the verb that fits.

    Example:
        >>> subject(("train_loss",)), subject(("train_loss", "validation_loss"))
        ('training loss is', 'training loss and validation loss are')
    """
    return " and ".join(map(label_of, names)) + (" is" if len(names) == 1 else " are")


def update_best(best: Best | None, value: float, round_index: int, min_delta: float, *, up: bool) -> Best:
    """Return the best after `value`: a new one where it is better by `min_delta`, else the old one, one round staler.

    Gains smaller than `min_delta` add up: they are measured from the best, not from the round before.
    """
    if best is None:
        return Best(value, round_index)
    gain = value - best.value if up else best.value - value
    return Best(value, round_index) if gain >= min_delta and gain > 0.0 else replace(best, stale=best.stale + 1)


def streak(before: CriterionState | None, round_index: int, *, met: bool) -> tuple[int, int]:
    """Return for how many measured rounds in a row a condition was met, and since which round."""
    if not met:
        return 0, round_index
    return (before.held + 1, before.since) if before is not None and before.held else (1, round_index)


def rounds_words(held: int, passed: int) -> str:
    """Return a number of rounds in words, and that they are measured ones where others lie between.

    Example:
        >>> rounds_words(3, 3), rounds_words(3, 9)
        ('3 rounds', '3 measured rounds')
    """
    return f"{held} {'' if passed == held else 'measured '}round{'' if held == 1 else 's'}"


def for_rounds(held: int, since: int, round_index: int) -> str:
    """Return " for N rounds", or nothing for a single round."""
    return f" for {rounds_words(held, round_index - since + 1)}" if held > 1 else ""


def compared(
    what: str, side: str, threshold: float, met: bool, before: CriterionState | None, round_index: int, value: float
) -> CriterionState:
    """Return the state of a criterion that compares one fact with a fixed threshold."""
    held, since = streak(before, round_index, met=met)
    distance = 0.0 if met else abs(value - threshold) / (abs(threshold) or 1.0)
    bound = f"{side} {shown(threshold)}"
    words = f"{label_of(what)} {shown(value)}, "
    words += f"{bound}{for_rounds(held, since, round_index)}" if met else f"needs {bound}"
    return CriterionState(value, threshold, held, distance, words, since)


def falling_below(
    what: str, threshold: float, hold: int, before: CriterionState | None, round_index: int, value: float
) -> CriterionState:
    """Return the state of a criterion that waits for a fact to stay below a threshold, without growing.

    Steps that grow in every round are those of a path that leaves its neighbourhood, however short they are.
    """
    state = compared(what, "below", threshold, value < threshold, before, round_index, value)
    grows = before is not None and math.isfinite(before.value) and value > before.value > 0.0
    rising = before.rising + 1 if before is not None and grows else 0
    state = replace(state, rising=rising)
    if state.held < hold or rising < max(1, state.held - 1):
        return state
    return replace(state, held=hold - 1, words=f"{state.words}, but it grows")
