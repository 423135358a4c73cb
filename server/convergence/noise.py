"""Whether the newest values of a metric rise, fall or only vary, and by how much they vary."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

WINDOW = 32
"""Values that are kept, at most."""
CLEAR = 4.0
"""A difference is clear from this many standard deviations of the noise on."""
_RANGE = {2: 1.128, 3: 1.693}
"""Expected range of two or three normal values, in standard deviations."""
_SQUARED = 1e150
"""Squares of larger numbers leave the range of float64."""
_SMALL, _LARGE = 0.1, 0.5
"""Shares of what was gained that a rise loses: a small one has to stand out from noise."""
_FEW = 5
"""With at least so many values noise differs measurably from a trend."""
_TREND = 8
_MANY = {2: 1, 3: 3, 4: 6, 5: 10, 6: 13, 7: 17, 8: 20}
"""Pairs in order minus pairs out of order that a trend needs, by values; from 5 on noise has them once in a hundred."""


def direction(values: Sequence[float]) -> int:
    """Return 1 where the newest values rise, -1 where they fall, 0 where they only vary (Mann and Kendall's test).

    Example:
        >>> direction([1.0, 2.0, 3.0, 4.0, 5.0]), direction([3.0, 1.0]), direction([1.0, 3.0, 2.0, 3.0, 1.0])
        (1, -1, 0)
    """
    newest = values[-_TREND:]
    if len(newest) < 2:
        return 0
    pairs = [(after > before) - (after < before) for i, before in enumerate(newest) for after in newest[i + 1 :]]
    total, needed = sum(pairs), _MANY[len(newest)]
    return (total >= needed) - (total <= -needed)


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation around a straight line; of two or three values, from their range.

    Example:
        >>> round(deviation([1.0, 2.0, 3.0, 4.0]), 9), round(deviation([1.0, 2.0, 1.0, 2.0]), 3)
        (0.0, 0.632)
    """
    n = len(values)
    if n < 4:
        return (max(values) - min(values)) / _RANGE[n] if n > 1 else 0.0
    largest = max(map(abs, values))
    if largest > _SQUARED:
        return largest * deviation([value / largest for value in values])
    mean, middle = math.fsum(values) / n, 0.5 * (n - 1)
    spread = n * (n * n - 1) / 12.0
    slope = math.fsum((i - middle) * (value - mean) for i, value in enumerate(values)) / spread
    square = math.fsum((value - mean - slope * (i - middle)) ** 2 for i, value in enumerate(values))
    return math.sqrt(square / (n - 2))


def climbs(losses: Sequence[float]) -> bool:
    """Return whether the newest values rise, or all values since the lowest do, three rounds or more.

    Example:
        >>> climbs([5.0, 3.0, 1.0, 1.1, 1.2, 1.4]), climbs([5.0, 3.0, 1.0, 1.1, 1.2, 1.1])
        (True, False)
    """
    tail = losses[min(range(len(losses)), key=losses.__getitem__) :]
    return direction(losses) > 0 or (len(tail) > 3 and all(a < b for a, b in pairwise(tail)))


def jumps(losses: Sequence[float], best: float, gain: float) -> bool:
    """Return whether the newest value leaves those before it: by more than their range, and by a share of the gain.

    Args:
        losses: since the best, newest last.
        best: the best loss.
        gain: how far the best lies below the first.
    """
    *known, newest = losses or (best,)
    if len(known) < _FEW:
        return newest - (known[-1] if known else best) > _LARGE * gain
    return newest > best + _SMALL * gain and newest - max(known) > max(known) - min(known)


def recovering(losses: Sequence[float], best: float, gain: float, patience: int) -> bool:
    """Return whether the newest values fall back from a peak, over `patience` values by a share of their height.

    The peak lost a large share of the gain, or a small one and enough values since then show a trend.
    """
    if not losses:
        return False
    peak = max(range(len(losses)), key=losses.__getitem__)
    height, tail = losses[peak] - best, losses[peak:][-max(patience + 1, _FEW) :]
    if height <= (_SMALL if len(tail) >= _FEW else _LARGE) * gain:
        return False
    return direction(tail) < 0 and tail[0] - tail[-1] > _SMALL * (tail[0] - best)


def excess(losses: Sequence[float], best: float) -> float:
    """Return how far the median of some losses lies above the best, in units of their noise (see `deviation`)."""
    above, noise = statistics.median(losses) - best, deviation(losses)
    return above / noise if noise > 0.0 else math.inf if above > 0.0 else 0.0
