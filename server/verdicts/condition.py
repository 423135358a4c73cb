"""What happened in a run: rules over the lines of its record, the first that holds decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from server.convergence.condition import Condition
from server.convergence.facts import label_of, shown
from server.convergence.findings import shrinking
from server.convergence.monitor import ConvergenceOptions
from server.verdicts.causes import stuck_of
from server.verdicts.course import Course, motion_of, scatter
from server.verdicts.cycles import cycle_of
from server.verdicts.movement import Rounds, clear_limit, level_since, outlook, rounds_to, speed_of
from server.verdicts.reading import SCORES, Line, Reading, Target, level_before
from server.verdicts.thresholds import (
    AHEAD,
    CLEAR,
    EVEN_STEPS,
    FAR,
    FAST_GROWTH,
    FEWEST,
    GROWN,
    LEARNT,
    LIKELY,
    LOST,
    NEWEST,
    NOISY,
    OUTRIGHT,
    REMAINING,
    SETTLED,
    SLOWLY,
    STILL,
    WORSE,
)


def condition_of(
    lines: Sequence[Line], convergence: ConvergenceOptions | None = None, *, diverged: bool = False
) -> Condition:
    """Return what happened in a run.

    Args:
        lines: the record, round 0 first.
        convergence: the scenario's criteria: the target, and the smallest gain that counts.
        diverged: whether the run was ended as diverged.

    Returns:
        The condition. Values that are missing change nothing; where no loss was measured it is `unclear`.

    Example:
        >>> losses = [1.0 + 0.7**r for r in range(40)]
        >>> found = condition_of([{"round": r, "validation_loss": v} for r, v in enumerate(losses)])
        >>> found.kind, found.words
        ('converged', 'validation loss rests at 1 since round 15')
    """
    reading = Reading(lines, convergence or ConvergenceOptions(), diverged)
    for rule in _RULES:
        found = rule(reading)
        if found is not None:
            return found
    return _at_rest(reading)


def _diverging(reading: Reading) -> Condition | None:
    """It was ended as diverged, has a loss that is no number, or rises at the end above its start."""
    loss, at = reading.loss, reading.not_finite
    name = label_of(loss.name)
    if at is not None:
        before = f"; before, its best was {shown(float(loss.values.min()))}" if len(loss) else ""
        return Condition("diverging", at, f"{name} is not a finite number in round {at}{before}")
    if not len(loss):
        return None
    best = int(loss.rounds[np.argmin(loss.values)])
    now, first = float(loss.values[-1]), float(loss.values[0])
    numbers = {"first": first, "best": float(loss.values.min()), "last": now}
    words = f"{name} grew from its best {shown(numbers['best'])} in round {best} to {shown(now)}"
    if reading.diverged:
        return Condition(
            "diverging", best, words if now > numbers["best"] else f"{name} diverged at {shown(now)}", numbers
        )
    if len(loss) < FEWEST:
        return None
    above = loss.level - first > max(FAST_GROWTH * max(abs(first), loss.gained), CLEAR * loss.noise)
    return Condition("diverging", best, words, numbers) if above and loss.motion.rises else None


def _nothing_measured(reading: Reading) -> Condition | None:
    """No loss, or too few values of one."""
    loss = reading.loss
    if not len(loss):
        return Condition("unclear", reading.last_round, "no loss was measured, so nothing can be said")
    if len(loss) >= FEWEST:
        return None
    changes = reading.changes.values
    if len(changes) and changes[-1] <= STILL:
        words = f"the parameters came to rest in {len(loss) - 1} rounds"
        return Condition("converged", reading.last_round, words, {"relative_change": float(changes[-1])})
    words = f"{len(loss)} measured values of {label_of(loss.name)} are too few to judge, {FEWEST} are needed"
    return Condition("too_short", reading.last_round, words, {"measured": len(loss)})


def _forgetting(reading: Reading) -> Condition | None:
    """A concept drift cost a share of what was gained, and the loss did not come back."""
    loss = reading.loss
    for drift in reversed(reading.drifts):
        at = int(np.searchsorted(loss.rounds, drift))
        if at < 3 or len(loss) - at < 3:
            continue
        before, after = level_before(loss, drift), loss.since(at)
        gained = float(loss.values[0]) - before
        lost = float(np.median(after.values[-max(3, len(after) // 4) :])) - before
        if gained > 0.0 and lost > max(LOST * gained, CLEAR * after.noise / math.sqrt(3.0), reading.smallest):
            name, share = label_of(loss.name), lost / gained
            now = before + lost
            words = (
                f"it forgot after the drift in round {drift}: {name} was {shown(before)} before and is {shown(now)}, "
                f"so {share:.0%} of what was gained is lost"
            )
            numbers = {"before": before, "level": now, "lost_share": share}
            return Condition("forgetting", drift, words, numbers)
    return None


def _oscillating(reading: Reading) -> Condition | None:
    """A lasting cycle of the loss; or a level loss while the steps keep their length, as on a circle."""
    loss, name = reading.loss, label_of(reading.loss.name)
    cycle = cycle_of(loss, reading.smallest)
    since = int(loss.rounds[len(loss) // 2])
    if cycle is not None:
        period = cycle.period * float(loss.rounds[-1] - loss.rounds[0]) / (len(loss) - 1)
        words = f"{name} cycles with a period of {period:.3g} rounds and an amplitude of {shown(cycle.amplitude)}"
        words += f" about {shown(loss.level)}"
        numbers = {"period": period, "amplitude": cycle.amplitude, "level": loss.level, "share": cycle.share}
        return Condition("oscillating", since, words, numbers)
    steps = reading.steps.values[-len(loss) // 2 :]
    if len(steps) < FEWEST or loss.noise > loss.rounding or steps.min() <= 0.0:
        return None
    change = reading.changes.values[-NEWEST:]
    even = float(np.ptp(steps)) <= EVEN_STEPS * float(steps.mean())
    flat = float(np.ptp(loss.values[-len(loss) // 2 :])) <= 10.0 * loss.rounding
    if not (even and flat) or (len(change) and float(np.median(change)) < SETTLED):
        return None
    words = (
        f"{name} stays at {shown(loss.level)} while every step is {shown(float(steps[-1]))} long: the parameters circle"
    )
    return Condition("oscillating", since, words, {"level": loss.level, "step_norm": float(steps[-1])})


def _rises(reading: Reading) -> Condition | None:
    """The loss got worse after its best, by more than its noise and by more than what matters."""
    loss = reading.loss
    rise = rise_of(loss)
    if rise is None or rise <= max(WORSE * loss.gained, loss.rounding):
        return None
    if loss.gained <= loss.rounding and (found := _score_rose(reading)) is not None:
        return found
    lowest = int(np.argmin(loss.values))  # the round whose model is kept as the best
    name, at, best = label_of(loss.name), int(loss.rounds[lowest]), float(loss.values[lowest])
    numbers = {"best": best, "best_round": float(at), "level": loss.level, "rise": rise}
    course = f"from its best {shown(best)} in round {at} to {shown(loss.level)}"
    apart = loss.name in ("optimality_gap", "validation_frechet_distance")  # training does not lower these themselves
    train = "" if apart or loss.name == "train_loss" else _train_meanwhile(reading, at)
    if train:
        words = f"it overfits since round {at}: {name} rose {course} while training loss {train}"
        return Condition("overfitted", at, words, numbers)
    if loss.motion.falls and _left(reading, REMAINING) is not None:
        return None  # it recovers
    if not loss.motion.rises or shrinking(reading.steps.values.tolist()) is not None:
        words = f"{name} rose {course}, and rests there: above its best"
        return Condition("plateaued", level_since(loss, max(0.1 * rise, CLEAR * loss.noise)), words, numbers, "biased")
    if rise > GROWN * loss.gained:
        return Condition("diverging", at, f"{name} rises {course}, and still does", numbers)
    return Condition("unclear", at, f"{name} rises {course}, and training loss does not fall", numbers)


def rise_of(loss: Course) -> float | None:
    """Return by how much a loss got worse after its best, None where noise explains it.

    The least of many noisy values is always below their level. So the medians of blocks since the best have to rise
    (Mann and Kendall's test) by a clear difference, or the rise has to be `OUTRIGHT` times the noise.
    """
    since = loss.since(loss.best)
    if len(since) < 5:
        return None
    motion = motion_of(since.values)
    rise = loss.level - float(loss.smooth[loss.best])
    error = loss.noise / math.sqrt(max(3.0, len(loss.tail) / 4.0))
    clear = motion.direction > 0 and rise > CLEAR * max(error, motion.error if len(since) >= 2 * FEWEST else 0.0)
    return rise if rise > (1.0 if clear else OUTRIGHT) * max(loss.noise, loss.rounding) else None


def _train_meanwhile(reading: Reading, at: int) -> str:
    """Return what the training loss did since the best of the validation loss; empty where it rose or is unknown."""
    train = reading.train
    before, after = train.values[train.rounds <= at][-NEWEST:], train.values[train.rounds > at]
    if not len(before) or len(after) < 2:
        return ""
    change = float(np.median(after[-NEWEST:]) - np.median(before))
    error = scatter(after) / math.sqrt(min(len(before), NEWEST, len(after)))
    return "fell" if change < -error else "did not rise" if change <= CLEAR * error else ""


def _stuck(reading: Reading) -> Condition | None:
    """The loss never left its start by more than its noise."""
    loss = reading.loss
    if loss.name == "optimality_gap" and abs(loss.level) <= loss.rounding:
        return None  # it starts at the optimum
    gained = float(loss.values[0]) - loss.level
    noise = max(loss.noise, float(np.median([scatter(part) for part in np.array_split(loss.values[1:], 4)])))
    error = noise / math.sqrt(max(3.0, len(loss.tail) / 4.0))
    if abs(gained) > max(2.0 * noise, CLEAR * error, loss.rounding):
        return None
    if gained > CLEAR * error and loss.motion.falls:
        return None
    if (found := _score_rose(reading)) is not None:
        return found
    subkind, why = stuck_of(reading)
    words = f"{label_of(loss.name)} never left its start {shown(float(loss.values[0]))} by more than its noise"
    words = f"it is stuck: {words}{why}"
    return Condition(
        "stuck", int(loss.rounds[0]), words, {"first": float(loss.values[0]), "level": loss.level}, subkind
    )


def _score_rose(reading: Reading) -> Condition | None:
    """A score is clearly better than at its start although the loss is not: mistakes became more confident."""
    loss = reading.loss
    for score in (one for one in map(reading.score, SCORES) if len(one) >= FEWEST):
        start = -float(score.values[0])
        if -score.level - start > max(CLEAR * score.noise, LEARNT * (1.0 - start), score.rounding):
            words = f"{label_of(loss.name)} is not below its start {shown(float(loss.values[0]))}, and yet "
            words += f"{label_of(score.name)} rose to {shown(-score.level)}"
            return Condition("unclear", int(loss.rounds[0]), words, {"level": loss.level, "score": -score.level})
    return None


def _improving(reading: Reading) -> Condition | None:
    """The loss, or the target's metric, still falls, and has more than a little still to fall."""
    loss, target = reading.loss, reading.target
    needed = None
    if target is not None and target.is_missed:
        needed = rounds_to(target.course, target.threshold)
    if target is not None and needed is not None and 0.0 < needed.estimate <= FAR * max(reading.last_round, 1):
        return _towards(reading, target, needed)
    left = _left(reading, REMAINING)
    if left is None:
        return None
    words = f"{label_of(loss.name)} {shown(loss.level)} still improves{_pace(reading)}: {_foreseen(loss, left)}"
    if target is not None and target.is_missed:
        words += f"; no rate leads to the target {shown(target.options.threshold)}"
    else:
        words += _reached(target)
    numbers = {"level": loss.level, "left": left, "per_100_rounds": speed_of(loss)}
    return Condition("improving", reading.last_round, words, numbers)


def _left(reading: Reading, share: float) -> float | None:
    """Return how far the loss will still fall, None where that is likely no more than a share of its gain.

    It falls no further than to the limit of the rate, where one family of curves clearly fits: both are shown.
    """
    loss = reading.loss
    if reading.rests_by_criterion or loss.gained <= loss.rounding:
        return None
    found = outlook(reading.since_drift, max(share * loss.gained, reading.smallest))
    if found.chance < LIKELY:
        return None
    limit = clear_limit(loss)
    return found.fall if limit is None or limit >= loss.level else min(found.fall, loss.level - limit)


def _pace(reading: Reading) -> str:
    """Return how fast the loss falls, in a hundred rounds or, of a short run, in ten; empty where noise hides it."""
    per, speed = (100.0, 1.0) if reading.last_round >= 100 else (10.0, 0.1)
    speed *= speed_of(reading.loss)
    if speed <= 0.0:
        return ""
    noise = reading.loss.noise
    return f", by {speed:.2g} per {per:.0f} rounds" + (f" under a noise of {noise:.2g}" if noise > 0.1 * speed else "")


def _foreseen(loss: Course, left: float) -> str:
    """Return what a longer run would bring, as a clause."""
    share = f", {left / loss.gained:.1%} of what it gained" if loss.gained > 0.0 else ""
    return f"{AHEAD:g} times the rounds would lower it by about {left:.2g}{share}"


def _reached(target: Target | None) -> str:
    """Return since when the target is reached, as a further clause; empty where it is not, or only now."""
    if target is None or target.reached is None or target.reached + target.options.hold > target.course.rounds[-1]:
        return ""
    return f"; the target {shown(target.options.threshold)} was reached in round {target.reached}"


def _towards(reading: Reading, target: Target, needed: Rounds) -> Condition:
    """Return that a run still moves towards its target, or that its rounds are far too few for it."""
    played = reading.last_round
    kind = "too_short" if needed.estimate >= played else "improving"
    span = f"{needed.low:,.0f} to {needed.high:,.0f}" if math.isfinite(needed.high) else f"{needed.low:,.0f} or more"
    now = shown(target.sign * target.course.level)
    words = (
        f"{label_of(target.options.metric)} {now} still improves: about {needed.estimate:,.0f} more rounds ({span}) to "
        f"the target {shown(target.options.threshold)}"
    )
    words += f", and {played} were played: the budget is too short" if kind == "too_short" else ""
    numbers = {"rounds_needed": needed.estimate, "rounds_low": needed.low, "rounds_high": needed.high,
               "level": target.sign * target.course.level}  # fmt: skip
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return Condition("too_short" if kind == "too_short" else "improving", played, words, finite)


def _at_rest(reading: Reading) -> Condition:
    """Return how a loss rests that neither moves nor cycles: its noise and the target decide."""
    loss, target = reading.loss, reading.target
    name, noise = label_of(loss.name), loss.noise
    since = level_since(loss, max(CLEAR * noise, reading.smallest))
    share = noise / loss.gained if loss.gained > 0.0 else math.inf
    numbers = {"level": loss.level, "noise": noise} | ({"noise_share": share} if math.isfinite(share) else {})
    least = max(noise, loss.rounding)
    if loss.gained <= least and loss.level - float(loss.values[0]) > least:
        if (found := _score_rose(reading)) is not None:
            return found
        words = f"it is stuck: {name} never fell below its start {shown(float(loss.values[0]))}"
        words += f"{' by more than its noise' if loss.gained > loss.rounding else ''}, and is {shown(loss.level)}"
        return Condition("stuck", int(loss.rounds[0]), words, numbers)
    newest = float(loss.smooth[-1])
    bottom = loss.motion.falls and float(loss.values.min()) >= 0.0 and newest <= REMAINING * loss.gained
    if bottom and (target is None or not target.is_missed):
        words = f"{name} fell to {shown(newest)}, {newest / loss.gained:.1%} of what it gained: hardly more can be left"
        return Condition("converged", int(loss.rounds[-1]), words + _reached(target), {"level": newest, "left": newest})
    slowly = _left(reading, SLOWLY)
    at = f"{name} rests at {shown(loss.level)}"
    missed = ""
    if target is not None and target.is_missed:
        metric, now = target.options.metric, shown(target.sign * target.course.level)
        missed = f"{label_of(metric)} {now} misses the target {shown(target.options.threshold)}"
        numbers |= {"missing": target.missing}
    if share >= NOISY and noise > reading.loss.rounding:
        words = f"{at}, at the noise floor: it scatters by {shown(noise)}"
        words += f", {share:.0%} of what was gained" if math.isfinite(share) else ""
        return Condition("noise_floor", since, words + (f"; {missed}" if missed else ""), numbers)
    if slowly is not None:
        numbers |= {"left": slowly, "per_100_rounds": speed_of(loss)}
        little = "below" if slowly <= REMAINING * loss.gained else "not clearly above"
        words = f"{name} {shown(loss.level)} still improves slowly{_pace(reading)}: {_foreseen(loss, slowly)}"
        words += f", {little} the {REMAINING:.0%} that matter"
        words += f"; {missed}" if missed else _reached(target)
        return Condition("plateaued" if missed else "converged", since, words, numbers, "slowly")
    if missed:
        return Condition("plateaued", since, f"{at} since round {since}, above the target: {missed}", numbers)
    return Condition("converged", since, f"{at} since round {since}", numbers)


_RULES: tuple[Callable[[Reading], Condition | None], ...] = (
    _diverging,
    _nothing_measured,
    _forgetting,
    _oscillating,
    _stuck,
    _rises,
    _improving,
)
"""In order: what makes later rules meaningless comes first."""
