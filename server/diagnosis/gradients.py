"""Causes in the gradients: noise, vanishing and exploding norms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from server.convergence.facts import shown
from server.diagnosis.course import falling, too_few_rounds
from server.diagnosis.evidence import Evidence
from server.diagnosis.finding import NOTHING, Change, Sign

NOISE_GAIN = 0.006
"""Share of what was gained that full batches gain in one round at the end."""
ADDED_GAIN = 0.0005
"""The same where the scenario adds noise to gradients."""
FIRST_GAIN = 0.05
"""Share of the first loss that the first round gains without added noise, in a run that ended above its start."""
MOSTLY = 0.7
"""Share of the gain of half the rate that full batches must have."""
RATIO = 8.0
"""Times that the last layer's relative gradient exceeds the first's."""
LEARNT = 0.4
"""Share of the best constant prediction's loss that a run with vanishing gradients gains at most."""
STEEP, DEEP = 1.5, 3
"""Times the norm of the weights that the gradient has at the start, and the weight matrices that multiply it."""
SPIKE = 30.0
"""Times the median of the early rounds' largest gradient norm."""


def noise_floor(e: Evidence) -> Sign:
    """Steps without noise gain in one round, about as much as smaller ones do.

    Noise that the scenario adds is known, so a smaller gain is enough; and where steps without it gain more than
    smaller steps do, it explains that smaller steps gain. Without it, a run that still falls has not reached a floor.
    """
    added = float(e.get("local.gradient_noise") or 0.0) > 0
    gain, half = e.gain("end", "noiseless" if added else "full_batch"), e.gain("end", "half_rate")
    strength = min(gain / (ADDED_GAIN if added else NOISE_GAIN), gain / max(MOSTLY * half, 1e-12))
    words: tuple[str, ...] = (
        f"one more round of full batches ends {shown(gain * e.scale)} lower than one of mini-batches",
    )
    if added:
        words = (
            f"the scenario adds noise of deviation {e.get('local.gradient_noise'):g} to gradients",
            f"one more round without it ends {shown(gain * e.scale)} lower",
        )
    else:
        strength /= max(1.0, too_few_rounds(e).strength, falling(e)) ** 2
    explained: tuple[str, ...] = ("rate_too_high", "too_few_rounds", "model_too_small") if gain >= half else ()
    if added and e.ruined and (first := _first_gain(e)) > strength:
        words = (words[0], f"without it the first round ends {shown(first * FIRST_GAIN * e.objective('start'))} lower")
        strength, explained = first, ("rate_too_high", "exploding", "too_few_rounds", "model_too_small")
    return Sign(min(strength, 10.0), words, explains=explained if added else ())


def _first_gain(e: Evidence) -> float:
    """Return what the first round gains without added noise, in units of the threshold; 0 where it is not clear."""
    gain, first = e.gain("start", "noiseless") * e.scale, e.objective("start")
    return gain / first / FIRST_GAIN if first > 0 else 0.0


def less_noise(e: Evidence) -> Change:
    """Return larger batches, or no added noise."""
    if float(e.get("local.gradient_noise") or 0.0) > 0:
        return Change({"local.gradient_noise": 0.0}, "add no noise to gradients")
    size = e.get("local.batch_size")
    bigger = 4 * size if isinstance(size, int) else "full"
    return Change({"local.batch_size": bigger}, "take batches four times as large, or let the rate decay")


def _relative(e: Evidence) -> list[float]:
    """Return each weight matrix's gradient norm over its norm at the start, in the model's order."""
    found = e.looks.get("start", {}).get("gradients")
    if found is None:
        return []
    return [norm / found["weights"][name] for name, norm in found["layers"].items() if found["weights"][name] > 0]


def vanishing(e: Evidence) -> Sign:
    """The first layers' gradients are far smaller than the last's, and the run learnt little."""
    sizes = _relative(e)
    if len(sizes) < 3 or not len(e.loss):
        return NOTHING
    ratio = max(sizes[-2:]) / max(min(sizes[: len(sizes) // 2 + 1]), 1e-30)
    constant = (e.looks.get("targets") or {}).get("constant_loss") or abs(float(e.loss[0]))
    learnt = 1.0 - float(e.loss.min()) / max(constant, 1e-12)
    strength = min(math.log(max(ratio, 1.0)) / math.log(RATIO), LEARNT / max(learnt, 1e-3))
    words = (
        f"at the start the gradient relative to the weights is {ratio:.2g} times smaller in the first layers than "
        "in the last",
        f"the loss is {learnt:.0%} below that of the best constant prediction"
        if learnt > 0
        else "the run does not reach the loss of the best constant prediction",
    )
    return Sign(min(strength, 10.0), words)


def better_signal(e: Evidence) -> Change:
    """Return ReLU with He's initialisation."""
    if e.get("model.activation") in ("sigmoid", "tanh"):
        return Change({"model.activation": "relu", "model.initialisation": "he"}, "take ReLU with He's initialisation")
    return Change({"model.norm": "group"}, "normalise each layer, or take fewer layers")


def exploding(e: Evidence) -> Sign:
    """A local gradient is far larger than in the early rounds, or than the weights at the start.

    Gradients that are large before the first step are no consequence of the steps, so they explain steps that are too
    large; gradients that grew in the run may be one. A model of one or two matrices multiplies nothing on the way.
    """
    norms = e.series("largest_gradient_norm")[1]
    start = e.looks.get("start", {}).get("gradients")
    found = NOTHING
    if len(norms) >= 4:
        early = float(np.median(norms[:5]))
        ratio = float(norms.max() / max(early, 1e-30))
        found = Sign(
            ratio / SPIKE,
            (f"the largest gradient norm grew to {shown(float(norms.max()))}, {ratio:.0f} times its early median",),
        )
    weights = list(start["weights"].values()) if start is not None else []
    if start is not None and len(weights) >= DEEP and any(weights):  # weights of 0 are no scale
        steep = start["mean_norm"] / math.sqrt(sum(v**2 for v in weights))
        if steep > STEEP:
            words = f"at the start the gradient is {steep:.1f} times as large as the weights"
            found = Sign(max(steep / STEEP, found.strength), (words, *found.evidence), explains=("rate_too_high",))
    return replace(found, strength=min(found.strength, 10.0))


def clip(e: Evidence) -> Change:
    """Return a bound at the early median of the norms."""
    norms = e.series("largest_gradient_norm")[1]
    bound = float(f"{np.median(norms[:5]):.2g}") if len(norms) else 1.0
    return Change({"local.clip_norm": bound}, "clip gradients by their norm")
