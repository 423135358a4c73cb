"""The convergence criteria: what each looks at, and when its condition is met.

A criterion is a pure fold over rounds: from its options, its look before and the round's facts comes the next `Look`.
It holds once its condition was met in as many measured rounds in a row as it asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from server.convergence.criteria_options import (
    METRICS,
    AgreementOptions,
    ErrorFreeOptions,
    GapOptions,
    PlateauOptions,
    TargetOptions,
)


@dataclass(frozen=True)
class Best:
    """The best value of a metric so far, its round, and the measured rounds since that did not beat it."""

    value: float
    round_index: int
    stale: int = 0


@dataclass(frozen=True)
class Look:
    """What a criterion saw in the last round that measured its facts.

    Attributes:
        value: what is compared.
        threshold: with what.
        held: measured rounds in a row, that one included, in which the condition was met.
        needed: how many it takes.
        distance: 0 where the condition was met, else how far off: relative to the threshold where that is not 0; for
            criteria that wait, the share of their patience that is left.
        words: the state as the end of a sentence.
        bests: what it must remember of its metrics.
        overfitting: words, where it saw some.
    """

    value: float
    threshold: float
    held: int
    needed: int
    distance: float
    words: str
    bests: tuple[Best, ...] = ()
    overfitting: str = ""


@dataclass(frozen=True)
class Criterion:
    """One row of `CRITERIA`.

    Attributes:
        facts: options -> the names of the facts it needs.
        look: (options, the look before or None, round, those facts, all finite) -> `Look`.
    """

    facts: Callable[[Any], tuple[str, ...]]
    look: Callable[[Any, Look | None, int, tuple[float, ...]], Look]


def look_again(
    criterion: Criterion, options: Any, before: Look | None, round_index: int, facts: Mapping[str, float | None]
) -> Look | None:
    """Let a criterion look at one round; None where the round did not measure what it needs.

    A fact that is not finite breaks whatever was held, and teaches nothing else.
    """
    names = criterion.facts(options)
    found = [facts.get(name) for name in names]
    values = tuple(float(value) for value in found if value is not None)
    if len(values) < len(names):
        return None
    if all(math.isfinite(value) for value in values):
        return criterion.look(options, before, round_index, values)
    words = f"{' and '.join(names)} not finite"
    if before is None:
        return Look(math.nan, math.nan, 0, getattr(options, "hold", 0) or options.patience, math.inf, words)
    return replace(before, value=math.nan, held=0, distance=math.inf, words=words, overfitting="")


def further(best: Best | None, value: float, round_index: int, min_delta: float, *, up: bool) -> Best:
    """Return the best after seeing `value`: itself where it is better by `min_delta`, else the old one, one staler.

    Gains smaller than `min_delta` add up, since they are counted from the best and not from the round before.
    """
    if best is None:
        return Best(value, round_index)
    gain = value - best.value if up else best.value - value
    return Best(value, round_index) if gain >= min_delta and gain > 0.0 else replace(best, stale=best.stale + 1)


def _compare(before: Look | None, value: float, threshold: float, hold: int, what: str, *, up: bool, met: bool) -> Look:
    """Look at a value that has to pass a fixed threshold for `hold` rounds in a row."""
    held = (before.held if before else 0) + 1 if met else 0
    off = 0.0 if met else abs(value - threshold) / (abs(threshold) or 1.0)
    side = ("at least" if up else "at most" if what in METRICS else "below") if met else "needs"
    rounds = f" for {held} rounds" if held > 1 else ""
    return Look(value, threshold, held, hold, off, f"{what} {value:.4g}, {side} {threshold:.4g}{rounds}")


def _target(options: TargetOptions, before: Look | None, round_index: int, values: tuple[float, ...]) -> Look:
    up, value, threshold = METRICS[options.metric], values[0], options.threshold
    met = value >= threshold if up else value <= threshold
    return _compare(before, value, threshold, options.hold, options.metric, up=up, met=met)


def _below(what: str) -> Callable[[Any, Look | None, int, tuple[float, ...]], Look]:
    """Make the look of a criterion that waits for one fact to stay below a bound."""

    def look(options: Any, before: Look | None, round_index: int, values: tuple[float, ...]) -> Look:
        met = values[0] < options.below
        return _compare(before, values[0], options.below, options.hold, what, up=False, met=met)

    return look


def _plateau(options: PlateauOptions, before: Look | None, round_index: int, values: tuple[float, ...]) -> Look:
    up, value = METRICS[options.metric], values[0]
    best = further(before.bests[0] if before and before.bests else None, value, round_index, options.min_delta, up=up)
    first = before.bests[1] if before and before.bests else best
    lost = first.value - value if up else value - first.value
    if best.round_index == first.round_index and best.stale and lost > options.min_delta:
        words = f"{options.metric} {value:.4g} is worse than where it began ({first.value:.4g})"
        return Look(value, first.value, 0, options.patience, 1.0, words, (best, first))
    left = max(0.0, 1.0 - best.stale / options.patience)
    bar = best.value + (options.min_delta if up else -options.min_delta)
    rounds = "rounds" if round_index - best.round_index == best.stale else "measured rounds"
    words = (
        f"{options.metric} did not improve by {options.min_delta:g} in {best.stale} {rounds} (best {best.value:.4g})"
    )
    if best.stale == 0:
        words = f"{options.metric} still improves ({value:.4g})"
    return Look(value, bar, best.stale, options.patience, left, words, (best, first))


def _gap(options: GapOptions, before: Look | None, round_index: int, values: tuple[float, ...]) -> Look:
    train, validation = values
    old = before.bests if before and before.bests else (None, None)
    bests = tuple(
        further(best, value, round_index, options.min_delta, up=False) for best, value in zip(old, values, strict=True)
    )
    gap = validation - train
    still = min(best.stale for best in bests) > 0
    met = abs(gap) < options.below and still
    held = (before.held if before else 0) + 1 if met else 0
    off = max(abs(gap) / options.below - 1.0, 0.0) + max(0.0, 1.0 - held / options.patience)
    words = f"validation_loss - train_loss {gap:.4g}, " + (
        f"below {options.below:g} with both standing still for {held} rounds"
        if met
        else f"needs {options.below:g}"
        if still
        else "a loss still improves"
    )
    rise = validation - bests[1].value
    overfits = bests[1].stale >= options.patience > bests[0].stale and rise > 0.0 and gap > 0.0
    said = (
        f"validation_loss has risen {rise:.4g} above its best of round {bests[1].round_index}, train_loss still falls"
    )
    return Look(gap, options.below, held, options.patience, off, words, bests, said if overfits else "")


def _agreement(options: AgreementOptions, before: Look | None, round_index: int, values: tuple[float, ...]) -> Look:
    met = values[0] >= options.at_least
    look = _compare(before, values[0], options.at_least, options.hold, "agreement", up=True, met=met)
    rounds = f" for {look.held} rounds" if look.held > 1 else ""
    return replace(look, words=f"outputs agree {100 * values[0]:.4g}%{rounds}")


def _error_free(options: ErrorFreeOptions, before: Look | None, round_index: int, values: tuple[float, ...]) -> Look:
    look = _compare(before, values[0], 0.0, options.hold, "train_errors", up=False, met=values[0] == 0.0)
    rounds = f" for {look.held} rounds" if look.held > 1 else ""
    return replace(look, words=f"no training errors{rounds}" if look.held else f"{values[0]:.0f} training errors")


CRITERIA: Mapping[str, Criterion] = {
    "target": Criterion(lambda options: (options.metric,), _target),
    "plateau": Criterion(lambda options: (options.metric,), _plateau),
    "settled": Criterion(lambda options: ("relative_change",), _below("relative change of the parameters")),
    "pseudo_gradient": Criterion(lambda options: ("pseudo_gradient_norm",), _below("norm of the pseudo-gradient")),
    "gradient": Criterion(lambda options: ("gradient_norm",), _below("norm of the true gradient")),
    "gap": Criterion(lambda options: ("train_loss", "validation_loss"), _gap),
    "agreement": Criterion(lambda options: ("agreement",), _agreement),
    "error_free": Criterion(lambda options: ("train_errors",), _error_free),
}
"""Every criterion by the name of its field in `[convergence]`."""
