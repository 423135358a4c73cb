"""The convergence criteria: one table, `CRITERIA`, with a row for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from server.convergence.criteria_options import (
    AgreementOptions,
    BelowOptions,
    ErrorFreeOptions,
    GapOptions,
    GradientOptions,
    PlateauOptions,
    PseudoGradientOptions,
    SettledOptions,
    TargetOptions,
)
from server.convergence.criterion import (
    Best,
    Criterion,
    CriterionState,
    Values,
    compared,
    falling_below,
    for_rounds,
    rounds_words,
    streak,
    update_best,
)
from server.convergence.facts import METRICS, label_of, shown
from server.convergence.noise import CLEAR, WINDOW, climbs, excess, jumps, recovering


def _target(options: TargetOptions, before: CriterionState | None, round_index: int, values: Values) -> CriterionState:
    up, (value,), threshold = METRICS[options.metric], values, options.threshold
    met, side = (value >= threshold, "at least") if up else (value <= threshold, "at most")
    return compared(options.metric, side, threshold, met, before, round_index, value)


def _below(
    fact: str, options: BelowOptions, before: CriterionState | None, round_index: int, values: Values
) -> CriterionState:
    return falling_below(fact, options.below, options.hold, before, round_index, values[0])


def _plateau(
    options: PlateauOptions, before: CriterionState | None, round_index: int, values: Values
) -> CriterionState:
    up, (value,), what = METRICS[options.metric], values, label_of(options.metric)
    known = before.bests if before else ()
    best = update_best(known[0] if known else None, value, round_index, options.min_delta, up=up)
    first, sign = known[1] if known else best, -1.0 if up else 1.0
    very_best = update_best(known[2] if known else None, value, round_index, 0.0, up=up)  # small gains count here
    bests = (best, first, very_best)
    lost = sign * (value - best.value)
    if best.round_index == first.round_index and best.stale and lost > options.min_delta:
        words = f"{what} {shown(value)} is worse than its first value {shown(first.value)}"
        return CriterionState(value, first.value, 0, 1.0, words, round_index, bests)
    recent = (*(before.recent if before else ()), value)[-WINDOW:] if best.stale else ()
    losses, lowest = tuple(sign * one for one in recent), sign * best.value
    gain = max(sign * (first.value - best.value), options.min_delta)
    held = before.held + 1 if before is not None and best.stale else 0
    if jumps(losses, lowest, gain):
        held = 1  # it leaves its best: count anew, so that it can recover
    recovers = lost > options.min_delta and recovering(losses, lowest, gain, options.patience)
    held = 0 if recovers else held
    close, rises = lost <= options.min_delta, climbs((lowest, *losses))
    if close and rises:
        held = min(held, options.patience - 1)  # wait for where it comes to rest
    rests = not rises and (close or excess(losses[-max(held, 1) :], lowest) <= CLEAR)
    since = round_index - held + 1
    if before is not None and before.held and held > 1:
        since = before.since
    threshold = best.value - sign * options.min_delta
    words = _plateau_words(options, bests, value, held, since, round_index, rests=rests, recovers=recovers)
    left = max(0.0, 1.0 - held / options.patience)
    return CriterionState(value, threshold, held, left, words, since, bests, recent=recent, rests=rests)


def _plateau_words(
    options: PlateauOptions,
    bests: tuple[Best, ...],
    value: float,
    held: int,
    since: int,
    round_index: int,
    *,
    rests: bool,
    recovers: bool,
) -> str:
    """Return the state of a plateau as a clause; the best that it names counts gains below `min_delta` too."""
    what, still, best = label_of(options.metric), bests[0].stale == 0, bests[2]
    if still:
        return f"{what} still improves ({shown(value)})"
    if recovers:
        return (
            f"{what} {shown(value)} recovers from a rise above its best {shown(best.value)} (round {best.round_index})"
        )
    if held >= options.patience and not rests:
        was = f"its best was {shown(best.value)} in round {best.round_index}"
        return f"{what} stopped improving: {was}, and it is {shown(value)} now"
    rounds = rounds_words(held, round_index - since + 1)
    return f"{what} did not beat its best by {options.min_delta:g} in {rounds} (best {shown(best.value)})"


def _gap(options: GapOptions, before: CriterionState | None, round_index: int, values: Values) -> CriterionState:
    train, validation = values
    known = before.bests if before and before.bests else (None, None)
    bests = tuple(
        update_best(best, value, round_index, options.min_delta, up=False)
        for best, value in zip(known, values, strict=True)
    )
    gap, still = validation - train, min(best.stale for best in bests) > 0
    met = abs(gap) < options.below and still
    held, since = streak(before, round_index, met=met)
    recent = (*(before.recent if before else ()), *values)[-WINDOW:]  # of both losses by turns
    rises = held > 1 and (climbs(recent[::2]) or climbs(recent[1::2]))
    held = min(held, options.patience - 1) if rises else held
    distance = max(abs(gap) / options.below - 1.0, 0.0) + max(0.0, 1.0 - held / options.patience)
    words = f"validation loss minus training loss {shown(gap)}, "
    if met and rises:
        words += "but a loss rises"
    elif met:
        words += f"below {options.below:g} and neither improved{for_rounds(held, since, round_index)}"
    else:
        words += f"needs below {options.below:g}" if still else "but a loss still improves"
    rise = validation - bests[1].value
    overfits = bests[1].stale >= options.patience > bests[0].stale and rise > 0.0 and gap > 0.0
    above = f"{shown(rise)} above its best (round {bests[1].round_index})"
    warning = f"validation loss is {above} while training loss still falls"
    warning = warning if overfits else ""
    return CriterionState(gap, options.below, held, distance, words, since, bests, warning, recent)


def _agreement(
    options: AgreementOptions, before: CriterionState | None, round_index: int, values: Values
) -> CriterionState:
    met = values[0] >= options.at_least
    return compared("agreement", "at least", options.at_least, met, before, round_index, values[0])


def _error_free(
    options: ErrorFreeOptions, before: CriterionState | None, round_index: int, values: Values
) -> CriterionState:
    (errors,) = values
    state = compared("train_errors", "", 0.0, errors == 0.0, before, round_index, errors)
    words = f"no training errors{for_rounds(state.held, state.since, round_index)}"
    if not state.held:
        words = f"{errors:.0f} training error{'' if errors == 1.0 else 's'}, needs 0"
    return replace(state, words=words)


CRITERIA: Mapping[str, Criterion[Any]] = {
    "target": Criterion(
        options=TargetOptions,
        label="target",
        facts=lambda options: (options.metric,),
        needed=lambda options: options.hold,
        update=_target,
    ),
    "plateau": Criterion(
        options=PlateauOptions,
        label="plateau",
        facts=lambda options: (options.metric,),
        needed=lambda options: options.patience,
        update=_plateau,
        counts=True,
    ),
    "settled": Criterion(
        options=SettledOptions,
        label="settled parameters",
        facts=lambda options: ("relative_change",),
        needed=lambda options: options.hold,
        update=partial(_below, "relative_change"),
    ),
    "pseudo_gradient": Criterion(
        options=PseudoGradientOptions,
        label="pseudo-gradient",
        facts=lambda options: ("pseudo_gradient_norm",),
        needed=lambda options: options.hold,
        update=partial(_below, "pseudo_gradient_norm"),
    ),
    "gradient": Criterion(
        options=GradientOptions,
        label="true gradient",
        facts=lambda options: ("gradient_norm",),
        needed=lambda options: options.hold,
        update=partial(_below, "gradient_norm"),
    ),
    "gap": Criterion(
        options=GapOptions,
        label="loss gap",
        facts=lambda options: ("train_loss", "validation_loss"),
        needed=lambda options: options.patience,
        update=_gap,
    ),
    "agreement": Criterion(
        options=AgreementOptions,
        label="agreement",
        facts=lambda options: ("agreement",),
        needed=lambda options: options.hold,
        update=_agreement,
    ),
    "error_free": Criterion(
        options=ErrorFreeOptions,
        label="training errors",
        facts=lambda options: ("train_errors",),
        needed=lambda options: options.hold,
        update=_error_free,
    ),
}
"""Every criterion by its key in `[convergence]`."""
