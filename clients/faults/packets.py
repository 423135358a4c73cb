"""What the faults on the way from a sensor make of its readings; the options say what each does."""

from __future__ import annotations

import numpy as np

from clients.faults.common import Fill
from clients.faults.outages import out, phases
from clients.faults.packet_options import (
    ClockSkewOptions,
    DuplicatedOptions,
    GatewayOutageOptions,
    MissingBurstsOptions,
    MissingOptions,
    ReorderedOptions,
)
from clients.faults.readings import (
    F32,
    I64,
    Bools,
    Changed,
    Readings,
    first_after,
    hits,
    last_before,
    phased,
    sign,
    size,
    slot_hits,
)


def missing(o: MissingOptions, r: Readings) -> Changed:
    """Lose single readings."""
    return _without(r, hits(r, o.severity * o.share), o.fill)


def missing_bursts(o: MissingBurstsOptions, r: Readings) -> Changed:
    """Lose stretches of all channels."""
    return _without(r, slot_hits(r, o.steps, o.severity * o.share, by_channel=False), o.fill)


def gateway_outage(o: GatewayOutageOptions, r: Readings) -> Changed:
    """Lose stretches of all channels of all clients of a district."""
    hours = np.broadcast_to(np.arange(r.first, r.first + r.steps, dtype=np.float64), r.known.shape)
    if r.hours is not None:
        hours = np.where(r.known, r.hours, 0.0)  # padding may hold anything
    district = r.district[:, None]
    slot = np.floor((hours + phases(r.name, o, district, r.seed)) / o.hours).astype(np.int64)
    lost = out(r.name, o, district, slot, r.seed, r.storm)
    return _without(r, lost[:, None, :], o.fill)


def clock_skew(o: ClockSkewOptions, r: Readings) -> Changed:
    """Read earlier or later than the clock says."""
    key = r.keys("skew", by_channel=False)[:, 0]
    skew = o.severity * o.steps * size(key)
    late = sign(key) if o.direction == "either" else np.full(len(key), 1.0 if o.direction == "late" else -1.0)
    whole = np.floor(-late * skew)
    part = (-late * skew - whole).astype(np.float32)[:, None, None]
    source = np.arange(r.steps) + whole.astype(np.int64)[:, None]
    end = np.maximum(r.known.sum(axis=1) - 1, 0)[:, None]
    before = np.take_along_axis(r.values, np.clip(source, 0, end)[:, None, :], axis=2)
    after = np.take_along_axis(r.values, np.clip(source + 1, 0, end)[:, None, :], axis=2)
    after -= before
    after *= part
    after += before
    return Changed(after, np.ones((1, 1, 1), np.bool_), skew)


def duplicated(o: DuplicatedOptions, r: Readings) -> Changed:
    """Put packets in the place of the next."""
    again = slot_hits(r, o.steps, o.severity * o.share, by_channel=False)
    again[..., : o.steps] = False  # what it repeats lies before the span
    values = r.values.copy()
    values[..., o.steps :] = r.values[..., : r.values.shape[2] - o.steps]
    return Changed(values, again)


def reordered(o: ReorderedOptions, r: Readings) -> Changed:
    """Swap neighbouring packets."""
    swapped = slot_hits(r, 2 * o.steps, o.severity * o.share, by_channel=False)[:, 0]
    second = phased(r, 2 * o.steps) % (2 * o.steps) >= o.steps
    other = np.arange(r.steps) + np.where(second, -o.steps, o.steps)
    inside = (other >= 0) & (other < r.steps)
    other = np.where(inside, other, 0)
    swapped &= inside & np.take_along_axis(r.live, other, axis=1)
    return Changed(np.take_along_axis(r.values, other[:, None, :], axis=2), swapped[:, None, :])


def _without(r: Readings, lost: Bools, fill: Fill) -> Changed:
    """Fill what is lost, bool (R, C, T) or (R, 1, T), by the rule."""
    lost &= r.live[:, None, :]
    mean = r.of_channels("mean")
    if fill == "zero":
        return Changed(np.zeros((1, 1, 1), np.float32), lost)
    if fill == "mean":
        return Changed(mean[None], lost)
    good = r.known[:, None, :] & ~lost
    last = last_before(good)
    before = np.where(last >= 0, np.take_along_axis(r.values, np.maximum(last, 0), axis=2), mean)
    if fill == "last":
        return Changed(before, lost)
    return Changed(_straight(r, before, last, first_after(good)), lost)


def _straight(r: Readings, before: F32, last: I64, after: I64) -> F32:
    """Draw the straight line from the readings of the steps `last` (-1 for none) to those of `after` (T for none)."""
    value = np.take_along_axis(r.values, np.minimum(after, r.steps - 1), axis=2)
    part = (np.arange(r.steps) - last) / np.maximum(after - last, 1)
    line = before + part.astype(np.float32) * (value - before)
    return np.where(after == r.steps, before, np.where(last < 0, value, line))
