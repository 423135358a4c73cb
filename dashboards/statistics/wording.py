"""Comparisons in words: what a second arm needs or has more or less of, with its interval, or why nothing follows."""

from __future__ import annotations

import math

from dashboards.statistics.findings import Findings

FEWEST_SIGNED = 6
"""Changes of sign of 5 pairs or fewer have no p of 0.05 or below."""


def verdict(found: Findings) -> str:
    """Return a comparison as a sentence without a full stop.

    A difference whose corrected p is not small is called indistinguishable, with the seeds that would be needed for
    the stated one. One pair is described without an interval.
    """
    name = found.quantity.spoken
    if not found.pairs:
        return f"{found.second} and {found.first} have no pair with two numbers for {name}"
    if found.censored and not (found.censored.first.times.size or found.censored.second.times.size):
        return f"{found.second} and {found.first} missed the target in all of {_pairs(found)}: {name} are unknown"
    if found.pairs == 1:
        return f"{_claim(found)}, in one pair"
    if found.distinguishable:
        return ", ".join(
            part for part in (f"{_claim(found)}{_interval(found)}", _agreeing(found), _hits(found)) if part
        )
    parts = (f"{_size(found)}{_interval(found)}", _agreeing(found), _hits(found), _p(found))
    words = ", ".join(part for part in parts if part)
    return f"{found.second} and {found.first} are indistinguishable in {name}: {words}{_needed(found)}"


def change(found: Findings) -> str:
    """Return the estimate as a signed change, such as `−31%`, `× 3.4`, `+0.012`."""
    if math.isnan(found.estimate):
        return "–"
    if found.scale == "ratio" and found.estimate > 2:
        return f"× {found.estimate:.2g}"
    return _signed(found, found.change)


def interval(found: Findings) -> str:
    """Return the interval of `change`, such as `−37% to −24%`; empty where there is none."""
    if found.interval is None:
        return ""
    if found.scale == "ratio" and found.estimate > 2:
        return f"× {found.interval[0]:.2g} to × {found.interval[1]:.2g}"
    one = 1.0 if found.scale == "ratio" else 0.0
    return f"{_signed(found, found.interval[0] - one)} to {_signed(found, found.interval[1] - one)}"


def p_value(p: float) -> str:
    """Return a p for people.

    Example:
        >>> p_value(0.04321), p_value(0.00001), p_value(1.0), p_value(float("nan"))
        ('0.043', '< 0.001', '1', '–')
    """
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"


def percent(share: float) -> str:
    """Return a share in percent, with enough digits to differ from 0 and 100.

    Example:
        >>> percent(0.3142), percent(0.0271), percent(0.99964), percent(1.5), percent(0.0)
        ('31', '2.7', '99.96', '150', '0')
    """
    value = 100 * abs(share)
    if 99 < value < 100:
        return f"{100 - float(f'{100 - value:.1g}'):g}"
    return f"{value:.0f}" if value >= 9.95 or not value else f"{value:.2g}"


def _claim(found: Findings) -> str:
    """Return the change as a main clause."""
    quantity = found.quantity
    if not found.change:
        return f"{found.second} and {found.first} are equal in {quantity.spoken}"
    if found.scale == "ratio" and found.estimate > 2:
        return f"{found.second} {quantity.verb} {found.estimate:.2g} times the {quantity.spoken} of {found.first}"
    within = ""
    if found.censored:
        within = f" within {quantity.shown(found.censored.horizon)} on average"
    return f"{found.second} {quantity.verb} {_size(found)} {quantity.spoken} than {found.first}{within}"


def _size(found: Findings) -> str:
    """Return the change without its sign, and its direction."""
    if not found.change:
        return "no difference"
    if found.scale == "ratio" and found.estimate > 2:
        return f"{found.estimate:.2g} times"
    size = f"{percent(found.change)}%" if found.scale == "ratio" else found.quantity.shown(abs(found.change))
    return f"{size} {found.quantity.less if found.change < 0 else found.quantity.more}"


def _interval(found: Findings) -> str:
    """Return the interval in brackets, in the direction of the claim: smaller number first."""
    if found.interval is None:
        return ""
    low, high = found.interval
    if found.scale == "ratio" and found.estimate > 2:
        return f" [{low:.2g}, {high:.2g}]"
    one, sign = (1.0 if found.scale == "ratio" else 0.0), (-1.0 if found.change < 0 else 1.0)
    ends = sorted((sign * (low - one), sign * (high - one)))
    return f" [{', '.join(_end(found, end) for end in ends)}]"


def _end(found: Findings, value: float) -> str:
    text = percent(value) if found.scale == "ratio" else found.quantity.shown(abs(value))
    return f"−{text}" if value < 0 and any(digit in text for digit in "123456789") else text


def _signed(found: Findings, value: float) -> str:
    text = f"{percent(value)}%" if found.scale == "ratio" else found.quantity.shown(abs(value))
    if value and not any(digit in text for digit in "123456789"):  # too small for a fixed number of decimals
        text = f"{abs(value):.0e}".replace("e-0", "e-")
    return f"−{text}" if value < 0 else f"+{text}" if value > 0 else text


def _agreeing(found: Findings) -> str:
    return f"{found.wins} pairs" if found.interval is not None else f"the same in each of {_pairs(found)}"


def _pairs(found: Findings) -> str:
    return "1 pair" if found.pairs == 1 else f"{found.pairs} pairs"


def _hits(found: Findings) -> str:
    """Return how many runs of each arm reached the target, and their medians."""
    if found.censored is None:
        return ""
    n, parts = found.censored.n, []
    for name, curve in ((found.second, found.censored.second), (found.first, found.censored.first)):
        median = "" if math.isnan(curve.median) else f" (median {found.quantity.shown(curve.median)})"
        parts.append(f"{name} reached the target in {n - curve.misses} of {n} runs{median}")
    return ", ".join(parts)


def _p(found: Findings) -> str:
    if math.isnan(found.p):
        return ""
    together = f" after correction for {found.family} comparisons" if found.family > 1 else ""
    return f"p = {p_value(found.p_corrected)}{together}".replace("= <", "<")


def _needed(found: Findings) -> str:
    """Return how many seeds a clear answer needs."""
    words = ""
    if found.censored and found.pairs < FEWEST_SIGNED:
        words += f"; fewer than {FEWEST_SIGNED} pairs cannot show a difference where runs miss the target"
    if found.needed is None:
        return words
    stated = f"{percent(found.stated)}%" if found.scale == "ratio" else found.quantity.shown(found.stated)
    return f"{words}; {found.needed:,} seeds would be needed to see a difference of {stated}"
