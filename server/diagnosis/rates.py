"""Causes in the size of local steps: learning rate, schedule, clipping."""

from __future__ import annotations

import math

import numpy as np

from clients.core.arrays import F64
from clients.training.schedule_options import ScheduleOptions
from server.convergence.facts import label_of, shown
from server.diagnosis.evidence import CLEAR, Evidence
from server.diagnosis.finding import NOTHING, Change, Sign

FIRST_RISE = 0.05
"""Share of the first loss by which an eighth of the rate must be better in the first round."""
END_GAIN = 0.02
"""Share of what was gained by which half the rate must be better in one round at the end."""
LINEAR = 2.1
"""Times the first round's fall that eight times the rate must gain: a linear response would give 7."""
FREED = 1.8
"""Times the first round's fall that a round without clipping must gain."""
BENT = 1.6
"""The same where both a gain at the end and a shortfall speak for it."""
STILL = 0.05
"""Share of what was gained that as many rounds again would gain with the doubled (undecayed, unclipped) steps."""
RISEN = 0.5
"""Share of what was ever gained by which the loss ends above its start."""
STEEP, HALF = 0.02, 0.5
"""Share of what was gained by which the loss fell each round before the decay, and the factor that is a decay."""
SHORT = 0.03
"""Share of the way from the first loss to the reference's that is left."""
CLIPPED = 0.3
"""Share of clients whose gradients must exceed the bound."""


def rate_too_high(e: Evidence) -> Sign:
    """Smaller steps are better: in the first round, or at the end, or the run diverged."""
    found = Sign(0.0)
    if e.diverged:
        found = Sign(3.0, (_divergence(e),))
    elif len(e.loss) >= 4 and e.last > e.loss[0] + RISEN * e.scale and np.argmax(e.loss) > 0 and not e.learnt_by_heart:
        words = f"{label_of(e.loss_name)} ends at {shown(e.last)}, above its start {shown(float(e.loss[0]))}"
        found = Sign(min((e.last - float(e.loss[0])) / e.scale / RISEN, 3.0), (words,))
    at_start, first = e.trial("start", "eighth_rate"), abs(e.objective("start"))
    if at_start is not None and first > 0 and not _is_worse(e, "start", "eighth_rate"):
        own = e.trial("start", "own") or {"change": math.nan}
        gain = at_start["gain"] if math.isfinite(at_start["gain"]) else math.inf
        if not math.isfinite(own["change"]) or gain > 0:
            words = (
                f"the first round changes the training loss by {_signed(own['change'])}, an eighth of the rate by "
                f"{_signed(at_start['change'])}"
            )
            found = _stronger(found, Sign(min(gain / first / FIRST_RISE, 10.0), (words,)))
    gain = e.gain("end", "half_rate")
    if gain > 0:
        words = f"one more round with half the rate ends {shown(gain * e.scale)} lower than with the present rate"
        found = _stronger(found, Sign(gain / END_GAIN, (words,)))
    return found


def _is_worse(e: Evidence, place: str, name: str) -> bool:
    found = e.trial(place, name)
    return found is not None and math.isfinite(found["gain"]) and found["gain"] <= CLEAR * found["error"]


def _divergence(e: Evidence) -> str:
    words = e.outcome.get("headline")
    return str(words).lower() if e.outcome.get("outcome") == "diverged" else "a loss is not finite"


def _stronger(one: Sign, other: Sign) -> Sign:
    best, rest = (one, other) if one.strength >= other.strength else (other, one)
    return Sign(best.strength, best.evidence + (rest.evidence if rest.strength >= 1 else ()))


def _signed(value: float) -> str:
    return "a number that is not finite" if not math.isfinite(value) else f"{value:+.3g}"


def smaller_rate(e: Evidence) -> Change:
    """Return a fraction of the rate: an eighth where the first round shows it, half otherwise."""
    start = e.trial("start", "eighth_rate")
    strong = e.diverged or (start is not None and start["gain"] > 0)
    factor = 8 if strong else 2
    rate = float(e.get("local.local_lr", math.nan)) / factor
    return Change({"local.local_lr": _round(rate)}, f"take {'an eighth' if strong else 'half'} of the learning rate")


def rate_too_low(e: Evidence) -> Sign:
    """The loss answers linearly to much larger steps in the first round, and the run still falls at its end."""
    own, much = e.trial("start", "own"), e.trial("start", "eightfold_rate")
    if own is None or much is None or not math.isfinite(much["gain"]) or own["change"] >= 0 or e.diverged:
        return NOTHING
    response = much["gain"] / -own["change"]
    ahead = e.gain("end", "fourfold_rate") * e.rounds
    still, short = ahead / STILL, e.shortfall / SHORT
    strength = max(min(response / LINEAR, max(still, short)), min(response / BENT, still, short, 1.2))
    words = (
        f"in the first round eight times the rate lowers the training loss {1 + response:.1f} times as far",
        f"at the end four times the rate gains {shown(e.gain('end', 'fourfold_rate') * e.scale)} a round more",
        *e.short_words,
    )
    return Sign(strength, words)


def larger_rate(e: Evidence) -> Change:
    """Return eight times the rate."""
    return Change(
        {"local.local_lr": _round(8 * float(e.get("local.local_lr", math.nan)))}, "take eight times the learning rate"
    )


def decayed_too_early(e: Evidence) -> Sign:
    """The loss was still falling when the schedule made the rate small."""
    at = _decay(e)
    rounds, values = e.series(e.loss_name)
    if at is None or e.diverged:
        return NOTHING
    before, after = values[(rounds >= at - 4) & (rounds < at)], values[rounds >= at]
    if len(before) < 2 or len(after) < 3:
        return NOTHING
    falling = float(before[0] - before[-1]) / (len(before) - 1) / e.scale
    ahead = e.gain("end", "undecayed") * e.rounds
    words = (
        f"the schedule takes the rate below half after round {at - 1:.0f}, to {_last_factor(e):.2g} of it at the end",
        f"just before, the loss fell by {falling:.1%} of all it gained each round",
    )
    return Sign(
        max(min(falling / STEEP, HALF / max(_last_factor(e), 1e-3) / 2), ahead / STILL), words, round_index=int(at)
    )


def _factors(e: Evidence) -> F64:
    """Return the schedule's factor of each round from 1 on."""
    options = ScheduleOptions(**{**(e.get("local.schedule") or {}), "at": tuple(e.get("local.schedule.at") or ())})
    return np.array([options.scale(r) for r in range(1, e.rounds + 1)])


def _last_factor(e: Evidence) -> float:
    return float(_factors(e)[-1])


def _decay(e: Evidence) -> int | None:
    """Return the first round of less than half the rate after its peak; None where it never falls so far."""
    if e.get("local.schedule.kind", "constant") == "constant" or e.rounds < 2:
        return None
    factors = _factors(e)
    peak = int(np.argmax(factors))
    low = np.flatnonzero(factors[peak:] < HALF * factors[peak])
    return peak + 1 + int(low[0]) if len(low) else None


def no_decay(e: Evidence) -> Change:
    """Return a constant rate."""
    return Change({"local.schedule.kind": "constant"}, "keep the learning rate constant, or let it decay later")


def clipping_dominates(e: Evidence) -> Sign:
    """Most gradients are clipped, and without clipping a round gains much more."""
    bound = e.get("local.clip_norm")
    norms = np.asarray(e.columns.get("gradient_norm", ()), np.float64)
    share = float(np.mean(norms > bound)) if bound is not None and len(norms) else 1.0
    ahead = e.gain("end", "unclipped") * e.rounds
    own, free = e.trial("start", "own"), e.trial("start", "unclipped")
    first = free["gain"] / abs(own["change"]) if own and free and own["change"] < 0 < free["gain"] else 0.0
    words = (
        f"{share:.0%} of the clients have gradients above the bound",
        f"in the first round the training loss falls {1 + first:.1f} times as far without clipping",
        f"at the end a round without clipping gains {shown(e.gain('end', 'unclipped') * e.scale)} more",
        *e.short_words,
    )
    return Sign(min(max(ahead / STILL, min(first / FREED, e.shortfall / SHORT)), share / CLIPPED), words)


def no_clipping(e: Evidence) -> Change:
    """Return a bound above most norms, or none."""
    norms = np.asarray(e.columns.get("gradient_norm", ()), np.float64)
    if e.get("local.clip_norm") is not None and len(norms):
        return Change(
            {"local.clip_norm": _round(float(np.quantile(norms, 0.9)))}, "clip only the largest tenth of the gradients"
        )
    return Change({"local.clip_value": ""}, "leave out clipping")


def _round(value: float) -> float:
    return float(f"{value:.3g}")
