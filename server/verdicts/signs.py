"""The three signs of convergence: parameters settle, outputs agree, validation plateaus beside training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.convergence.condition import Sign
from server.convergence.facts import shown
from server.convergence.monitor import ConvergenceOptions
from server.verdicts.course import Course, course_of
from server.verdicts.movement import outlook
from server.verdicts.reading import Line, Reading
from server.verdicts.thresholds import AGREE, FEWEST, LIKELY, NEWEST, SETTLED, SHORT_STEPS, SLOWLY, SMALLEST


def signs_of(lines: Sequence[Line], convergence: ConvergenceOptions | None = None) -> tuple[Sign, ...]:
    """Return the three signs at the end of a record, in this order: parameters, outputs, validation.

    Args:
        lines: the record, round 0 first.
        convergence: the scenario's criteria, whose own thresholds for `settled` and `agreement` replace the defaults.

    Example:
        >>> lines = [{"round": r, "relative_change": 0.5**r, "agreement": 0.9} for r in range(20)]
        >>> [(sign.name, sign.says) for sign in signs_of(lines)]
        [('parameters_settle', 'yes'), ('outputs_agree', 'no'), ('validation_plateaus', 'not_measured')]
    """
    reading = Reading(lines, convergence or ConvergenceOptions())
    return _parameters(reading), _outputs(reading), _validation(reading)


def _parameters(reading: Reading) -> Sign:
    """Whether the parameters stand still: by their relative change, or by steps that are short beside the longest."""
    name, changes, steps = "parameters_settle", reading.changes.values, reading.steps.values
    if not len(changes):
        return Sign(name, "not_measured", None, "no change of the parameters was measured")
    bound = reading.options.settled.below if reading.options.settled is not None else SETTLED
    change = float(np.median(changes[-NEWEST:]))
    short = len(steps) > NEWEST and float(np.median(steps[-NEWEST:])) <= SHORT_STEPS * float(steps.max())
    words = f"a round changes the parameters by {change:.2g} of their norm"
    words += "" if change <= bound else f", and steps are below {SHORT_STEPS:.0%} of the longest" if short else ""
    return Sign(name, "yes" if change <= bound or short else "no", change, words)


def _outputs(reading: Reading) -> Sign:
    """Whether predictions stay the same from round to round."""
    agreement = course_of(reading.lines, "agreement").values
    if not len(agreement):
        return Sign("outputs_agree", "not_measured", None, "the agreement of predictions was not measured")
    bound = reading.options.agreement.at_least if reading.options.agreement is not None else AGREE
    share = float(np.median(agreement[-NEWEST:]))
    words = f"{share:.3g} of the predictions are those of the round before"
    return Sign("outputs_agree", "yes" if share >= bound else "no", share, words)


def _validation(reading: Reading) -> Sign:
    """Whether validation loss is level, and training loss too or at least not falling away from it."""
    name, validation, train = "validation_plateaus", course_of(reading.lines, "validation_loss"), reading.train
    if len(validation) < FEWEST or len(train) < FEWEST:
        lacks = "validation loss" if len(validation) < FEWEST else "training loss"
        return Sign(name, "not_measured", None, f"{lacks} has fewer than {FEWEST} measured values")
    change = validation.motion.change
    moves = {"validation loss": _moves(validation), "training loss": _moves(train)}
    moving = [f"{what} still {how}" for what, how in moves.items() if how]
    words = " and ".join(moving) if moving else "neither validation nor training loss clearly moves"
    words += f": validation loss changed by {shown(change)} over its newest third"
    return Sign(name, "no" if moving else "yes", change, words)


def _moves(loss: Course) -> str:
    """Return whether a loss still rises or falls by what matters; empty where it is level."""
    matters = max(SMALLEST * loss.gained, loss.rounding)
    if loss.motion.rises and loss.motion.change > matters:
        return "rises"
    return "falls" if outlook(loss, max(SLOWLY * loss.gained, matters)).chance >= LIKELY else ""
