"""Why a model never learnt, as far as the record has it: norms of layers, gradients and steps."""

from __future__ import annotations

import numpy as np

from server.convergence.noise import direction
from server.verdicts.course import block_medians, course_of
from server.verdicts.reading import Reading
from server.verdicts.thresholds import ESCAPES, SMALL_STEPS, VANISHED

_GRADIENTS = ("gradient_norm", "pseudo_gradient_norm")


def stuck_of(reading: Reading) -> tuple[str, str]:
    """Return the subkind of a run that never learnt, and its evidence as words that follow a clause; "" if unknown."""
    layers = _layers(reading)
    if len(layers) > 1:
        (first, lowest), (last, highest) = _ends(layers)
        silent = [name for name, norm in layers.items() if norm == 0.0]
        if silent and max(layers.values()) > 0.0:
            return "dead_units", f"; no gradient reaches the layers {', '.join(silent)}: their units are dead"
        if lowest < VANISHED * highest:
            ratio = lowest / highest
            words = f"; the update of layer {first} is {ratio:.2g} times that of layer {last}: gradients vanish"
            return "vanishing_gradients", words
    for name in _GRADIENTS:
        norms = block_medians(course_of(reading.lines, name).values)
        if len(norms) < 4:
            continue
        if not norms.any():
            return "dead_units", "; every gradient is 0: the units are dead, or it began where the gradient is 0"
        if direction(norms.tolist()) > 0 and norms[-1] > ESCAPES * norms[0]:
            return "saddle", f"; its gradient grew {norms[-1] / norms[0]:.3g} times meanwhile: it leaves a saddle"
    changes = reading.changes.values
    if len(changes) and float(np.median(changes)) < SMALL_STEPS:
        return "small_steps", f"; a round changes the parameters by {float(np.median(changes)):.2g} of their norm only"
    return "", ""


def _layers(reading: Reading) -> dict[str, float]:
    """Return the median norm of each layer's update, in the order of the layers."""
    norms: dict[str, list[float]] = {}
    for line in reading.lines:
        for name, entry in (line.get("by_layer") or {}).items():
            if (norm := entry.get("aggregate_norm")) is not None:
                norms.setdefault(name, []).append(float(norm))
    return {name: float(np.median(values)) for name, values in norms.items()}


def _ends(layers: dict[str, float]) -> tuple[tuple[str, float], tuple[str, float]]:
    """Return the first and the last layer with their norms."""
    named = list(layers.items())
    return named[0], named[-1]
