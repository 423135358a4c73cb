"""Cycles in the newest half of a loss: a peak of its spectrum over that of correlated noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F64
from server.verdicts.course import Course
from server.verdicts.thresholds import (
    AMPLITUDE,
    CYCLE_SHARE,
    FEWEST_CYCLES,
    MOST,
    SHORTEST_WINDOW,
    SIGNIFICANT,
    SUSTAINED,
)

_CLIP = 4.0
"""Deviations at which outliers are cut: a sine wave stays whole."""
_FINER = 8
"""Frequencies between two of the window's own, where a peak is located."""
_HARMONICS = 4


@dataclass(frozen=True)
class Cycle:
    """A cycle of a loss.

    Attributes:
        period: rounds of one cycle, as measured rounds.
        amplitude: half of its height.
        share: share of the scatter that it explains.
        chance: the probability that noise has as high a peak.
        sustained: amplitude in the newer half of the window over that in the older half.
    """

    period: float
    amplitude: float
    share: float
    chance: float
    sustained: float


def cycle_of(course: Course, smallest: float) -> Cycle | None:
    """Return the cycle of the newest half of a course; None without a significant and lasting one that matters.

    Args:
        course: the loss.
        smallest: the smallest difference that matters.
    """
    found = find_cycle(course.values[-min(max(len(course) // 2, SHORTEST_WINDOW), MOST) :])
    if found is None or found.sustained < SUSTAINED:
        return None
    return found if found.amplitude > max(smallest, AMPLITUDE * course.gained, course.rounding) else None


def find_cycle(values: F64) -> Cycle | None:
    """Return the strongest cycle of some values, where it stands out from correlated noise.

    The trend is a parabola, outliers are cut, and the background is the spectrum of an autoregression of order one,
    fitted without the peak and its harmonics.
    """
    n = len(values)
    if n < SHORTEST_WINDOW:
        return None
    rest = _without_trend(values)
    power = np.abs(np.fft.rfft(rest)) ** 2
    total = float(power[1:].sum())
    if n // 2 <= FEWEST_CYCLES or total <= 0.0:
        return None
    k, ratio = max(
        (_peak(power, n, over) for over in (power, power / _background(power, n, ()))), key=lambda one: one[1]
    )
    share = float(power[list(_harmonics(k, len(power)))].sum()) / total
    chance = _chance(ratio, len(power))
    if chance > SIGNIFICANT or share < CYCLE_SHARE:
        return None
    half = n // 2
    older, newer = (float(np.sqrt(np.mean(part**2))) for part in (rest[:half], rest[half:]))
    amplitude = math.sqrt(2.0 * share * float(np.mean(rest**2)))
    return Cycle(_period(rest, k), amplitude, share, chance, newer / older if older else math.inf)


def _peak(power: F64, n: int, over: F64) -> tuple[int, float]:
    """Return where `over` is largest, and the power there over that of the noise."""
    k = FEWEST_CYCLES + int(np.argmax(over[FEWEST_CYCLES:]))
    return k, float(power[k] / _background(power, n, _harmonics(k, len(power)))[k])


def _chance(ratio: float, count: int) -> float:
    """Return the probability that the largest of `count` powers of noise is so many times their estimated mean.

    Powers are exponential, and so is their mean's estimate uncertain: the ratio follows an F distribution with 2 and
    `count` degrees of freedom, since a median tells as much as half of the values.
    """
    free = 0.5 * count
    return min(1.0, count * math.exp(-free * math.log1p(ratio / free)))


def _without_trend(values: F64) -> F64:
    """Return what a parabola leaves of the values, with outliers cut."""
    t = np.linspace(-1.0, 1.0, len(values))
    basis = np.stack([np.ones_like(t), t, t * t], 1)
    cut = values - np.median(values)
    for _ in range(2):
        rest = cut - basis @ np.linalg.lstsq(basis, cut, rcond=None)[0]
        bound = _CLIP * 1.4826 * float(np.median(np.abs(rest)))
        cut = cut - rest + np.clip(rest, -bound, bound)
    found: F64 = cut - basis @ np.linalg.lstsq(basis, cut, rcond=None)[0]
    return found


def _harmonics(k: int, count: int) -> tuple[int, ...]:
    """Return the places of a peak and its harmonics, with the neighbours into which they leak."""
    near = {i for h in range(1, _HARMONICS + 1) for i in (h * k - 1, h * k, h * k + 1)}
    return tuple(sorted(i for i in near if 1 <= i < count))


def _background(power: F64, n: int, left_out: tuple[int, ...]) -> F64:
    """Return the spectrum of the autoregression of order one that fits the other frequencies."""
    kept = np.ones(len(power), bool)
    kept[0] = False
    kept[list(left_out)] = False
    if kept.sum() < 4:
        kept[1:] = True
    wave = np.cos(2.0 * np.pi * np.arange(len(power)) / n)
    total = float(power[kept].sum())
    echo = min(max(float(power[kept].dot(wave[kept])) / total, 0.0), 0.98) if total > 0.0 else 0.0
    shape = 1.0 / (1.0 - 2.0 * echo * wave + echo * echo)
    level = float(np.median(power[kept] / shape[kept])) / math.log(2.0)  # median of an exponential: ln 2 of its mean
    found: F64 = shape * max(level, 1e-12 * float(power.max()), 1e-300)
    return found


def _period(rest: F64, k: int) -> float:
    """Return the period of the peak near k cycles a window, located between the window's own frequencies."""
    n = len(rest)
    fine = np.abs(np.fft.rfft(rest, _FINER * n))
    low, high = _FINER * k - _FINER + 1, min(_FINER * k + _FINER, len(fine))
    return _FINER * n / (low + int(np.argmax(fine[low:high])))
