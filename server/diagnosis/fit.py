"""Causes in how model, loss and data fit: scales, classes, size of the model, overfitting, tails of the errors."""

from __future__ import annotations

import math

import numpy as np

from server.convergence.facts import shown
from server.diagnosis.evidence import Evidence
from server.diagnosis.finding import NOTHING, Change, Sign

SPREAD, OFFSET = 4.0, 8.0
"""Times that the largest features' deviation exceeds the median, and that means exceed deviations."""
RATIO, MISSED = 8.0, 0.1
"""Times that the most common class exceeds the rarest, and by how much its recall exceeds that of rare ones."""
RISE = 0.035
"""Share of what was gained that validation loss rose again."""
SURE = 1.2
"""The largest strength of such a rise."""
ROSE, ABOVE, CLEAR = 0.1, 1.6, 4.0
"""Share of its best by which validation loss rose, times the training loss that it is, and deviations of its noise."""
FITTED, WORSE = 2.0, 1.4
"""Times the training loss, and times the reference's validation loss, that validation loss is without a rise."""
SHORT = 0.055
"""Share of the way from the first loss to the reference's that a model too small leaves, trained on a pooled sample."""
UNHELPED = 0.65
"""Factor of its strength where a wider model does no better."""
TAILS = 1.8
"""Root mean squared over mean absolute error; 1.25 for normal errors."""
TAIL = 0.35
"""Share of the loss that the largest 1% of the errors make; 0.085 for normal errors."""


def badly_scaled(e: Evidence) -> Sign:
    """Some features are much larger than others, or far from 0."""
    found = e.looks.get("features")
    if found is None or found["number"] < 2:
        return NOTHING
    spread = max(found["high"] / max(found["middle"], 1e-30), math.sqrt(found["high"] / max(found["low"], 1e-30)) / 4)
    words = (
        f"the deviations of features range from {shown(found['low'])} to {shown(found['high'])} (5% and "
        f"95%), median {shown(found['middle'])}",
    )
    if found["offset"] / OFFSET > spread / SPREAD:
        words = (f"features lie {found['offset']:.0f} deviations from 0",)
    return Sign(min(max(spread / SPREAD, found["offset"] / OFFSET), 10.0), words)


def normalise(e: Evidence) -> Change:
    """Return standardised features."""
    return Change(
        {"features.normalise": "federation"}, "standardise the features by the federation's means and deviations"
    )


def class_imbalance(e: Evidence) -> Sign:
    """Rare classes are hardly found, common ones are."""
    if e.labels is None:
        return NOTHING
    counts = np.asarray(e.labels, np.float64).sum(0)
    held = counts > 0
    recalls = _recalls(e, len(counts))
    if recalls is None or held.sum() < 2:
        return NOTHING
    ratio = float(counts[held].max() / counts[held].min())
    rare = held & (counts < counts[held].mean() / 2)
    common = held & ~rare
    if not rare.any() or not common.any():
        return NOTHING
    if not np.isfinite(recalls[rare]).any() or not np.isfinite(recalls[common]).any():
        return NOTHING  # validation has no example of them
    missed = float(np.nanmean(recalls[common]) - np.nanmean(recalls[rare]))
    words = (
        f"the most common class has {ratio:.0f} times the examples of the rarest",
        f"{np.nanmean(recalls[rare]):.0%} of the rare classes' validation examples are found, "
        f"{np.nanmean(recalls[common]):.0%} of the others'",
    )
    return Sign(min(ratio / RATIO, missed / MISSED, 10.0), words)


def _recalls(e: Evidence, classes: int) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """Return the recall of each class in the newest lines; damaged ones with another number of classes are left out."""
    found = [row for line in e.lines[-5:] if len(row := line.get("class_accuracy") or ()) == classes]
    if not found:
        return None
    values = np.array([[math.nan if v is None else v for v in row] for row in found], np.float64)
    return np.asarray(values.mean(0), np.float64)


def reweigh(e: Evidence) -> Change:
    """Return class weights."""
    return Change(
        {"local.class_weights": "inverse", "local.weights_from": "federation"},
        "weigh classes by the inverse of their examples",
    )


def model_too_small(e: Evidence) -> Sign:
    """On the pooled sample, with a good optimiser, the run's model still falls short of the reference."""
    validation, training, short = e.series("validation_loss")[1], e.objective("end"), e.pooled_shortfall
    if not len(validation) or not math.isfinite(training) or short is None or e.diverged:
        return NOTHING
    last = float(np.median(validation[-5:]))
    pooled, wider = e.looks["pooled_loss"], e.looks.get("wider_loss")
    better = max(last - training, pooled - e.looks.get("pooled_training_loss", pooled))
    fits_no_better = 1.0 - max(0.0, better / e.scale) / 0.25
    others = f"trees and linear models {shown(e.looks['reference_loss'])}"
    if wider is not None:
        others += f", one four times as wide {shown(wider)}"
    words = (
        f"training loss {shown(training)} and validation loss {shown(last)} agree",
        f"trained on a pooled sample, the model reaches a validation loss of {shown(pooled)}, {others}",
        f"the model has {e.looks.get('parameters', 0):,} parameters",
    )
    no_help = wider is not None and wider >= pooled  # others do better, but width is not what they have
    return Sign(short / SHORT * max(0.0, fits_no_better) * (UNHELPED if no_help else 1.0), words)


def larger_model(e: Evidence) -> Change:
    """Return a wider model."""
    hidden = e.get("model.hidden")
    if isinstance(hidden, list) and hidden:
        return Change({"model.hidden": [4 * w for w in hidden]}, "take a wider model")
    if isinstance(hidden, int):
        return Change({"model.hidden": 4 * hidden}, "take a wider model")
    channels = e.get("model.channels")
    if isinstance(channels, list):
        return Change({"model.channels": [4 * c for c in channels]}, "take a wider model")
    return Change({"model.kind": "mlp"}, "take a larger model")


def overfitting(e: Evidence) -> Sign:
    """Validation loss rose after its best while training loss fell on."""
    rounds, values = e.series("validation_loss")
    if len(values) < 10 or e.diverged:
        return NOTHING
    at = int(np.argmin(values))
    best = float(np.median(values[max(0, at - 2) : at + 3]))  # the least of noisy values lies below their course
    rise = float(np.median(values[-5:])) - best
    before = _training(e, 0, rounds[at]) if at else _first_training(e)
    after, training = _training(e, rounds[at], math.inf), e.objective("end")
    apart = float(values[-5:].mean() - training) / e.scale if math.isfinite(training) else 0.1
    falls = after < before or not math.isfinite(after)
    strength, behind = 0.0, _behind(e, training)
    if falls and at < len(values) - 5:
        strength = max(min(rise / e.scale / RISE, apart / 0.1), _rose(rise, best, training, e.noise))
    if behind > strength:
        clause = (
            f"validation loss is {shown(e.last)}, training loss {shown(training)}, and other models reach a "
            f"validation loss of {shown(e.looks['reference_loss'])}"
        )
        return Sign(behind, (clause,))
    words = (
        f"validation loss rose from its best {shown(float(values[at]))} in round {rounds[at]:.0f} to "
        f"{shown(float(np.median(values[-5:])))}",
        f"training loss fell to {shown(training if math.isfinite(training) else after)}",
    )
    return Sign(min(strength, 10.0), words, round_index=int(rounds[at]))


def _rose(rise: float, best: float, training: float, noise: float) -> float:
    """Return how clearly a loss that is small beside what was gained rose again; above 0 only where all losses are."""
    if not (rise > 0 and best > 0 and training > 0):
        return 0.0
    return min(rise / best / ROSE, (best + rise) / training / ABOVE, rise / max(CLEAR * noise, 1e-12), SURE)


def _behind(e: Evidence, training: float) -> float:
    """Return how clearly a model knows its examples better than others know new ones, and new ones worse."""
    reference, values = e.looks.get("reference_loss"), e.series("validation_loss")[1]
    if reference is None or not (reference > 0 and training > 0):
        return 0.0
    last = float(np.median(values[-5:]))
    return min(last / training / FITTED, last / reference / WORSE, SURE) if training < reference else 0.0


def _training(e: Evidence, first: float, last: float) -> float:
    rounds, values = e.series("train_loss")
    chosen = values[(rounds > first) & (rounds <= last)][-5:]
    return float(np.median(chosen)) if len(chosen) else math.nan


def _first_training(e: Evidence) -> float:
    """Return the first model's objective, or the first round's training loss where that was not looked at."""
    values = e.series("train_loss")[1]
    objective = e.objective("start")
    return float(values[0]) if math.isnan(objective) and len(values) else objective


def regularise(e: Evidence) -> Change:
    """Return weight decay."""
    l2 = float(e.get("local.l2") or 0.0)
    return Change({"local.l2": max(10 * l2, 0.003)}, "add weight decay, or stop at the best round")


def model_too_large(e: Evidence) -> Sign:
    """It overfits, and it has more parameters than there are training examples."""
    found = overfitting(e)
    examples, parameters = (
        int(e.started.get("examples") or 0),
        int(e.looks.get("parameters") or e.started.get("parameters") or 0),
    )
    if not examples:
        return NOTHING
    words = (*found.evidence, f"{parameters:,} parameters for {examples:,} training examples")
    return Sign(min(0.9 * found.strength, parameters / examples), words)


def smaller_model(e: Evidence) -> Change:
    """Return a narrower model."""
    hidden = e.get("model.hidden")
    if isinstance(hidden, list) and hidden:
        return Change({"model.hidden": [max(2, w // 4) for w in hidden]}, "take a narrower model")
    if isinstance(hidden, int):
        return Change({"model.hidden": max(2, hidden // 4)}, "take a narrower model")
    return regularise(e)


def wrong_loss(e: Evidence) -> Sign:
    """Squared errors have heavy tails: a few examples make most of the loss.

    The last model's errors are taken where they were looked at, those of the record otherwise.
    """
    tail = e.looks.get("end", {}).get("tail")
    if tail is not None:
        return Sign(tail / TAIL, (f"the largest 1% of the errors make {tail:.0%} of the loss; of normal errors 8.5%",))
    squared, absolute = e.series("validation_error")[1], e.series("validation_mae")[1]
    if not len(absolute) or not len(squared) or absolute[-1] <= 0:
        return NOTHING
    ratio = float(np.median(squared[-5:]) / np.median(absolute[-5:]))
    targets = e.looks.get("targets") or {}
    tails = targets.get("deviation", 0.0) / max(targets.get("quartiles", math.inf), 1e-30)
    words = (
        f"the root mean squared error is {ratio:.1f} times the mean absolute error: few examples make most of the loss",
    )
    return Sign(max(ratio / TAILS, min(tails / 2.0, 1.5 * ratio / TAILS)), words)


def robust_loss(e: Evidence) -> Change:
    """Return what to do about heavy tails."""
    return Change(
        {"local.clip_norm": 1.0}, "bound the influence of single examples: clip gradients, or clean the targets"
    )
